"""Base model + deltas -> bundle: the passes in their order, then the files. Needs the `[export]` extra."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfit_export import __version__
from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import (
    BaseRecord,
    Layout,
    Manifest,
    TaskRecord,
    decode_row,
    encode_row,
    record_file,
    row_file,
    write_manifest,
)
from bitfit_export.bundle.adapter import adapter_file, write_adapter
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError, MissingExtraError, UsageError
from bitfit_export.files import sha256_of_file

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

    from bitfit_export.compiler.pack_rows import RowPacker

__all__ = ["CompileOptions", "CompiledModel", "compile_bundle", "compile_model", "write_model"]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
#: Smaller tensors stay in the model file. ONNX Runtime infers shapes from some of them (the sizes of the bias terms,
#: 8 bytes each) and can't do so from a file beside it.
_EXTERNAL_FROM_BYTES = 64 * 1024
_ROW_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


@dataclass(frozen=True)
class CompiledModel:
    """A frozen model in memory, and what makes the rows that run it.

    Attributes:
        not_quantized: products that stay float32 though int8 or int4 was asked for, by the node's name -> why.
    """

    model: onnx.ModelProto
    packer: RowPacker
    options: CompileOptions
    opset: int
    not_quantized: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """The layout of the rows."""
        return self.packer.layout

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the graph inputs, in order."""
        return tuple(value.name for value in self.model.graph.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph outputs, in order."""
        return tuple(value.name for value in self.model.graph.output)


def compile_model(
    base: BaseModel, deltas: Mapping[str, TaskDelta], options: CompileOptions | None = None
) -> CompiledModel:
    """Trace the base model, fold, attach the heads that the tasks need, lift the biases, check.

    Raises:
        CompileError: a graph whose biases can't be lifted, with the reasons.
    """
    try:
        import onnx_graphsurgeon as gs

        from bitfit_export.compiler import pack_rows as rows
        from bitfit_export.compiler.calibration import activation_stats as observe
        from bitfit_export.compiler.frontend import trace
        from bitfit_export.compiler.passes import attach_heads as head
        from bitfit_export.compiler.passes import check_invariants as check
        from bitfit_export.compiler.passes import find_bias_sites as sites
        from bitfit_export.compiler.passes import fold_biases as fold
        from bitfit_export.compiler.passes import lift_biases as lift
        from bitfit_export.compiler.passes import quantize_weights as quantize
        from bitfit_export.compiler.passes import slice_first_token as first_token
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    options = options or CompileOptions()
    graph = gs.import_onnx(trace.trace_base_model(base))
    found = sites.find_bias_sites(graph, base.biases, by_row=options.layout == "table")
    plan = fold.fold_biases(graph, found) if options.fold else fold.no_fold(base.biases)
    observed, not_quantized = None, {}
    if options.precision in ("int8", "int4"):
        folded = plan.apply(base.biases).biases
        observed = observe.observe_products(graph, base, folded, gram=options.precision == "int4")
    heads = head.plan_head(graph, deltas.values())
    layout = Layout.pack(
        base.digest,
        {name: base.biases[name].shape for name in plan.kept},
        [(entry.name, entry.shape) for entry in heads.entries],
        heads.poolings,
    )
    # The head first: its poolings may use what the traced graph did not need, such as a pooler.
    inputs = lift.declare_inputs(graph, layout, options.layout)
    leading = ("tasks",) if options.layout == "table" else ()
    head.attach_head(graph, heads, lift.head_rows(graph, inputs), leading)
    first_token.read_first_token(graph)
    if options.precision in ("int8", "int4"):
        not_quantized = quantize.quantize_weights(graph, options.precision, observed).kept
    kept = [site for site in found if site.name in plan.kept]
    lift.lift_biases(graph, kept, layout, options.layout, inputs)
    labels = max((delta.config.output_size for delta in deltas.values()), default=1)
    model = _finish(graph, options, labels)
    if options.overridable:
        # Last: an optimiser may take what has a default for a constant.
        fixed = labels if options.static_shape is not None else 1
        lift.add_defaults(model, layout, plan.apply(base.biases).biases, labels=fixed)
    check.check_frozen_model(model, layout, options.layout, base.biases, overridable=options.overridable)
    _record_digests(model, layout)
    packer = rows.RowPacker(base, layout, heads, plan, _ROW_DTYPES[options.row_dtype])
    (opset,) = (each.version for each in model.opset_import if each.domain == "")
    return CompiledModel(model, packer, options, opset, not_quantized)


def _finish(graph: gs.Graph, options: CompileOptions, labels: int) -> onnx.ModelProto:
    """A lifted graph as the model that its target runs.

    Args:
        labels: the largest number of the tasks' labels, which a graph of fixed shape has.
    """
    import onnx_graphsurgeon as gs

    from bitfit_export.compiler.frontend import trace
    from bitfit_export.compiler.passes import convert_to_half as half
    from bitfit_export.compiler.passes import fix_shapes as shapes
    from bitfit_export.compiler.passes import fuse_for_ort as fuse
    from bitfit_export.compiler.passes import store_in_half as half_storage

    if options.precision == "fp16" and options.target == "portable":
        half.convert_to_half(graph)
    model: onnx.ModelProto = gs.export_onnx(graph)
    if options.static_shape is not None:
        batch, sequence = options.static_shape
        model = shapes.fix_shapes(model, {trace.BATCH: batch, trace.SEQUENCE: sequence, "labels": labels})
    if options.target == "ort":
        model = fuse.optimise_for_ort(model)
        fuse.add_biases_in_kernels(model)
        if options.precision == "fp16":
            half_storage.store_in_half(model)
        elif options.precision == "int4":
            fuse.share_equal_weights(model)
    return model


def _record_digests(model: onnx.ModelProto, layout: Layout) -> None:
    properties = {"format_version": "1", "base_digest": layout.base_digest, "layout_digest": layout.digest}
    for name, value in sorted(properties.items()):
        model.metadata_props.add(key=f"bitfit_export.{name}", value=value)


def compile_bundle(
    base: BaseModel, deltas: Mapping[str, TaskDelta], folder: Path, options: CompileOptions | None = None
) -> CompiledModel:
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
    if base.modality != "text":
        raise CompileError(
            f"{base.source.name} reads {base.modality}, and a bundle holds a model that reads text",
            hint="compile_model of bitfit_export.compiler gives the graph and the rows",
        )
    for delta in deltas.values():
        # A delta that does not fit is found in a moment, a compilation takes longer.
        delta.check_base(base.source.name, base.digest, base.biases)
    compiled = compile_model(base, deltas, options)
    write_model(compiled.model, folder)
    if compiled.options.prepack:
        from bitfit_export.compiler.passes.fuse_for_ort import prepack

        prepack(folder / MODEL_FILE, folder / WEIGHTS_FILE)
    _write_tokenizer(base, folder / TOKENIZER_FILE)
    (folder / "tasks").mkdir()
    labels = max(delta.config.output_size for delta in deltas.values())
    tasks = {name: _write_task(compiled, name, delta, folder, labels) for name, delta in deltas.items()}
    write_manifest(folder, _manifest(base, compiled, tasks, folder))
    return compiled


def write_model(model: onnx.ModelProto, folder: Path) -> None:
    """Write `model.onnx` and its weights beside it, aligned, so that a runtime can map them into memory."""
    from bitfit_export.compiler.graph.model_files import save_model

    save_model(model, folder / MODEL_FILE, external_from=_EXTERNAL_FROM_BYTES)


def _write_tokenizer(base: BaseModel, path: Path) -> None:
    """Write how text becomes ids, without what a call before this one asked for: padding and truncation."""
    tokenizer = copy.deepcopy(base.tokenizer.backend_tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(path))


def _manifest(base: BaseModel, compiled: CompiledModel, tasks: dict[str, TaskRecord], folder: Path) -> Manifest:
    options = compiled.options
    config: Any = base.module.config
    files = [MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE]
    files += [adapter_file(name) for name in tasks] if options.layout == "named" else []
    return Manifest(
        product_version=__version__,
        base=BaseRecord(base.source.name, base.revision, base.digest),
        layout=compiled.layout,
        layout_kind=options.layout,
        target=options.target,
        precision=options.precision,
        opset=compiled.opset,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        max_positions=base.max_positions,
        vocab_size=int(config.vocab_size),
        pad_token_id=int(base.tokenizer.pad_token_id or 0),
        files={name: record_file(folder / name) for name in files},
        tasks=tasks,
        static_shape=options.static_shape,
        overridable=options.overridable,
        fold_reasons=dict(compiled.packer.fold.reasons),
        row_dtype=options.row_dtype,
        prepacked=options.prepack,
    )


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
        max_length=min(delta.config.max_length, compiled.packer.base.max_positions),
        metrics=dict(delta.config.metrics),
    )
