"""A compiled model and its rows become a bundle."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from bitfit_export import __version__
from bitfit_export.base_model import BaseModel
from bitfit_export.bundle import (
    BaseRecord,
    Manifest,
    ProgramRecord,
    TaskRecord,
    decode_row,
    encode_row,
    record_file,
    row_file,
    write_manifest,
)
from bitfit_export.bundle.adapter import adapter_file, write_adapter
from bitfit_export.bundle.interface import (
    BASE_ROW_FILE,
    INFER,
    MODEL_FILE,
    TOKENIZER_FILE,
    TRAIN_STEP,
    TRAIN_STEP_FILE,
    WEIGHTS_FILE,
    Port,
    role_of,
)
from bitfit_export.bundle.quantization import QuantizationRecord, RangeRecord
from bitfit_export.compiler.graph.model_files import save_model, write_sharing
from bitfit_export.compiler.pack_rows import base_delta
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.compiler.targets import load_target
from bitfit_export.delta import TaskDelta
from bitfit_export.files import sha256_of_file

__all__ = ["write_bundle", "write_model"]

#: Smaller tensors stay in the model file. ONNX Runtime infers shapes from some of them (the sizes of the bias terms,
#: 8 bytes each) and cannot do so from a file beside it.
_EXTERNAL_FROM_BYTES = 64 * 1024


def write_bundle(compiled: CompiledModel, base: BaseModel, deltas: Mapping[str, TaskDelta], folder: Path) -> None:
    """Write a compiled model, a row for each task and the manifest into the existing `folder`."""
    options = compiled.options
    write_model(compiled.model, folder)
    if compiled.train_step is not None:
        write_sharing(compiled.train_step, folder / TRAIN_STEP_FILE, folder / MODEL_FILE)
        row = compiled.packer.pack(base_delta(deltas.values(), base), task="base")
        (folder / BASE_ROW_FILE).write_bytes(encode_row(row))
    added = load_target(options.target).finish_files(folder, MODEL_FILE, WEIGHTS_FILE, options)
    if base.tokenizer is not None:
        _write_tokenizer(base, folder / TOKENIZER_FILE)
    (folder / "tasks").mkdir()
    labels = max(delta.config.output_size for delta in deltas.values())
    tasks = {name: _write_task(compiled, name, delta, folder, labels) for name, delta in deltas.items()}
    write_manifest(folder, _manifest(base, compiled, tasks, folder, added))


def write_model(model: onnx.ModelProto, folder: Path) -> None:
    """Write `model.onnx` and its weights beside it, aligned, so that a runtime can map them into memory."""
    save_model(model, folder / MODEL_FILE, external_from=_EXTERNAL_FROM_BYTES)


def _write_tokenizer(base: BaseModel, path: Path) -> None:
    """Write how text becomes ids, without what a call before this one asked for: padding and truncation."""
    tokenizer = copy.deepcopy(base.tokenizer.backend_tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(path))


def _manifest(
    base: BaseModel, compiled: CompiledModel, tasks: dict[str, TaskRecord], folder: Path, added: tuple[str, ...]
) -> Manifest:
    options = compiled.options
    files = [MODEL_FILE, WEIGHTS_FILE, *added]
    files += [] if compiled.train_step is None else [TRAIN_STEP_FILE, BASE_ROW_FILE]
    files += [] if base.tokenizer is None else [TOKENIZER_FILE]
    files += [adapter_file(name) for name in tasks] if options.layout == "named" else []
    return Manifest(
        product_version=__version__,
        base=BaseRecord(base.source.name, base.revision, base.digest),
        layout=compiled.layout,
        layout_kind=options.layout,
        target=options.target,
        precision=options.precision,
        opset=compiled.opset,
        modality=base.modality,
        programs=_programs(compiled),
        files={name: record_file(folder / name) for name in files},
        tasks=tasks,
        static_shape=options.static_shape,
        overridable=options.overridable,
        fold_reasons=dict(compiled.packer.fold.reasons),
        row_dtype=options.row_dtype,
        prepacked=options.prepack,
        quantization=_quantization(compiled),
        **_text_fields(base),
    )


def _quantization(compiled: CompiledModel) -> QuantizationRecord:
    ranges = {name: RangeRecord(each.scale, each.zero_point, each.used) for name, each in compiled.ranges.items()}
    return QuantizationRecord(ranges, dict(compiled.not_quantized))


def _text_fields(base: BaseModel) -> dict[str, Any]:
    """What a runtime must know to feed ids; nothing of a model that reads no text."""
    if base.tokenizer is None:
        return {}
    config: Any = base.module.config
    return {
        "max_positions": base.max_positions,
        "vocab_size": int(config.vocab_size),
        "pad_token_id": int(base.tokenizer.pad_token_id or 0),
    }


def _programs(compiled: CompiledModel) -> dict[str, ProgramRecord]:
    programs = {INFER: _program(compiled, compiled.model, MODEL_FILE)}
    if compiled.train_step is not None:
        programs[TRAIN_STEP] = _program(compiled, compiled.train_step, TRAIN_STEP_FILE)
    return programs


def _program(compiled: CompiledModel, model: onnx.ModelProto, file: str) -> ProgramRecord:
    graph = model.graph
    return ProgramRecord(
        file=file,
        at_load=compiled.at_load,
        inputs=tuple(_port(value, compiled) for value in graph.input),
        outputs=tuple(_port(value, compiled) for value in graph.output),
    )


def _port(value: onnx.ValueInfoProto, compiled: CompiledModel) -> Port:
    """A graph input or output as the manifest describes it."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = tuple(size.dim_value or size.dim_param for size in tensor.shape.dim)
    return Port(value.name, role_of(value.name, compiled.layout, compiled.options.layout), dtype, shape)


def _write_task(compiled: CompiledModel, name: str, delta: TaskDelta, folder: Path, labels: int) -> TaskRecord:
    """Write a task's row and, for the named layout, its adapter.

    Args:
        labels: the largest number of labels of the bundle, which a graph of fixed shape has for every task.
    """
    data = encode_row(compiled.packer.pack(delta, task=name))
    row = decode_row(data, layout=compiled.layout)
    path = folder / row_file(name)
    path.write_bytes(data)
    if compiled.options.layout == "named":
        fixed = labels if compiled.options.static_shape is not None else None
        write_adapter(folder / adapter_file(name), row, compiled.layout, labels=fixed)
    return TaskRecord(
        name=name,
        file=row_file(name),
        sha256=sha256_of_file(path),
        problem_type=row.problem_type,
        labels=delta.config.labels,
        task_version=row.task_version,
        max_length=_max_length(delta, compiled.packer.base),
        metrics=dict(delta.config.metrics),
    )


def _max_length(delta: TaskDelta, base: BaseModel) -> int:
    """Tokens to which texts were truncated in training, of what this base takes."""
    return delta.config.max_length if base.tokenizer is None else min(delta.config.max_length, base.max_positions)
