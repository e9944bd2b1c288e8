"""Base model + deltas -> bundle: the passes in their order, then the files. Needs the `[export]` extra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export import __version__
from bitfit_export.base_models import BaseModel
from bitfit_export.bundle import (
    BaseRecord,
    FileRecord,
    Layout,
    Manifest,
    TaskRecord,
    decode_row,
    encode_row,
    row_file,
    write_manifest,
)
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.files import sha256_of_file

if TYPE_CHECKING:
    import onnx

__all__ = ["CompiledModel", "compile_bundle", "compile_model"]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
#: Smaller tensors stay in the model file. ONNX Runtime infers shapes from some of them (the sizes of the bias terms,
#: 8 bytes each) and can't do so from a file beside it.
_EXTERNAL_FROM_BYTES = 64 * 1024


@dataclass(frozen=True)
class CompiledModel:
    """A frozen model in memory, and the layout of the rows that run it."""

    model: onnx.ModelProto
    layout: Layout
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int


def compile_model(base: BaseModel) -> CompiledModel:
    """Trace the base model, lift its biases into `bias_table`, attach the heads, check.

    Raises:
        CompileError: a graph whose biases can't be lifted, with the reasons.
    """
    try:
        import onnx_graphsurgeon as gs

        from bitfit_export.compiler import check, head, lift, sites, trace
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    traced = trace.trace_base_model(base)
    properties = {"bitfit_export.format_version": "1", "bitfit_export.base_digest": base.digest}
    graph = gs.import_onnx(traced)
    poolings = head.poolings_of(graph)
    hidden = int(base.module.config.hidden_size)
    layout = Layout.pack(
        base.digest,
        {name: value.shape for name, value in base.biases.items()},
        [(entry.name, entry.shape) for entry in head.head_layout(poolings, hidden)],
        poolings,
    )
    # The head first: its poolings may use what the traced graph did not need, such as a pooler.
    task_ids = lift.declare_inputs(graph, layout)
    head.attach_head(graph, task_ids, hidden, poolings)
    lift.lift_into_table(graph, sites.find_bias_sites(graph, base.biases), layout)
    model: onnx.ModelProto = gs.export_onnx(graph)
    check.check_frozen_model(model, layout)
    properties["bitfit_export.layout_digest"] = layout.digest
    for name, value in sorted(properties.items()):
        model.metadata_props.add(key=name, value=value)
    return CompiledModel(
        model=model,
        layout=layout,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        opset=trace.OPSET,
    )


def compile_bundle(base: BaseModel, deltas: Mapping[str, TaskDelta], folder: Path) -> Manifest:
    """Compile the base model once and write a bundle with a row for each task into the existing `folder`.

    Args:
        deltas: task name in the bundle -> delta.

    Raises:
        UsageError: no task.
        BaseMismatchError, DeltaError: a delta that does not fit the base.
        CompileError: a graph whose biases can't be lifted.
    """
    if not deltas:
        raise UsageError("no task to compile, expected at least one", hint="pass --tasks rte,sst2")
    for delta in deltas.values():
        # A delta that does not fit is found in a moment, a compilation takes longer.
        delta.check_base(base.source.name, base.digest, base.biases)
    compiled = compile_model(base)
    write_model(compiled.model, folder)
    base.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    (folder / "tasks").mkdir()
    tasks = {name: _write_task(base, name, delta, compiled.layout, folder) for name, delta in deltas.items()}
    files = (MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
    manifest = Manifest(
        product_version=__version__,
        base=BaseRecord(base.source.name, base.revision, base.digest),
        layout=compiled.layout,
        layout_kind="table",
        target="ort",
        precision="fp32",
        opset=compiled.opset,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        max_positions=base.max_positions,
        vocab_size=int(base.module.config.vocab_size),
        pad_token_id=int(base.tokenizer.pad_token_id or 0),
        files={name: FileRecord(sha256_of_file(folder / name), (folder / name).stat().st_size) for name in files},
        tasks=tasks,
    )
    write_manifest(folder, manifest)
    return manifest


def write_model(model: onnx.ModelProto, folder: Path) -> None:
    """Write `model.onnx` and its weights beside it, aligned, so that a runtime can map them into memory."""
    import onnx_ir

    onnx_ir.save(
        onnx_ir.from_proto(model),
        folder / MODEL_FILE,
        external_data=WEIGHTS_FILE,
        size_threshold_bytes=_EXTERNAL_FROM_BYTES,
    )


def _write_task(base: BaseModel, name: str, delta: TaskDelta, layout: Layout, folder: Path) -> TaskRecord:
    from bitfit_export.compiler.rows import pack_row

    data = encode_row(pack_row(base, delta, layout, task=name))
    row = decode_row(data, layout=layout)
    path = folder / row_file(name)
    path.write_bytes(data)
    return TaskRecord(
        name=name,
        file=row_file(name),
        sha256=sha256_of_file(path),
        problem_type=row.problem_type,
        labels=delta.config.labels,
        task_version=row.task_version,
        max_length=min(delta.config.max_length, base.max_positions),
        metrics=dict(delta.config.metrics),
    )
