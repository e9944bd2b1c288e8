"""Base model + deltas -> bundle. Needs the `[export]` extra.

Three stages, each a public function of its own: `trace_base_model` (frontend) makes a graph of the PyTorch model,
`lower` (pipeline) runs the passes over it, and the `RowPacker` that comes with the result packs rows. `compile_bundle`
does all three and writes the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export.base_model import BaseModel
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import MissingExtraError, OutputError, UsageError

if TYPE_CHECKING:
    import onnx

    from bitfit_export.compiler.compilation import TextParts
    from bitfit_export.compiler.pipeline import CompiledModel, Observer

__all__ = ["CompileOptions", "compile_bundle", "compile_model"]


def compile_model(
    base: BaseModel,
    deltas: Mapping[str, TaskDelta],
    options: CompileOptions | None = None,
    *,
    traced: onnx.ModelProto | None = None,
    observe: Observer | None = None,
    texts: Sequence[TextParts] = (),
) -> CompiledModel:
    """Compile a base model in memory.

    Args:
        deltas: the tasks; they decide which heads the graph gets.
        traced: what `trace_base_model` returned for this base; by default it is traced now.
        observe: called after each pass, see `run_passes`.
        texts: what activations are observed on in int8, int8-static, w8a16 and int4, each a text or a pair; by default
            samples.

    Raises:
        CompileError: a graph whose biases cannot be lifted, with the reasons.
        UsageError: options that the target does not take.
        MissingExtraError: a package of the extra is not installed.
    """
    try:
        from bitfit_export.compiler.frontend.trace import trace_base_model
        from bitfit_export.compiler.pipeline import lower, plan_passes
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    options = options or CompileOptions()
    passes = plan_passes(options)  # first: what cannot be compiled is said before anything is traced
    graph = trace_base_model(base) if traced is None else traced
    return lower(graph, base, deltas, options, passes, observe, texts=texts)


def compile_bundle(
    base: BaseModel,
    deltas: Mapping[str, TaskDelta],
    folder: Path,
    options: CompileOptions | None = None,
    *,
    traced: onnx.ModelProto | None = None,
    observe: Observer | None = None,
    texts: Sequence[TextParts] = (),
) -> CompiledModel:
    """Compile the base model once and write a bundle with a row for each task into the existing, empty `folder`.

    The files are written one by one: `new_folder` gives a folder that is published when all of them are there.

    Args:
        deltas: task name in the bundle -> delta.
        traced: as for `compile_model`.
        observe, texts: as for `compile_model`.

    Raises:
        UsageError: no task, or options that the target does not take.
        BaseMismatchError, DeltaError: a delta that does not fit the base.
        CompileError: a graph whose biases cannot be lifted.
        OutputError: the folder is not empty.
    """
    if any(folder.iterdir()):
        raise OutputError(f"the folder {folder} is not empty", hint="pass a new folder")
    if not deltas:
        raise UsageError("no task to compile, expected at least one", hint="pass --tasks rte,sst2")
    for delta in deltas.values():
        # A delta that does not fit is found in a moment, a compilation takes longer.
        delta.check_base(base.source.name, base.digest, base.biases)
    compiled = compile_model(base, deltas, options, traced=traced, observe=observe, texts=texts)
    from bitfit_export.compiler.write_bundle import write_bundle

    write_bundle(compiled, base, deltas, folder)
    return compiled
