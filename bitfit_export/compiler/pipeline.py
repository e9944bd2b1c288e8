"""The list of passes of a compilation, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.base_model import BaseModel
from bitfit_export.bundle import Layout
from bitfit_export.compiler.calibration.activation_ranges import ActivationRange
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal, TextParts
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.pack_rows import RowPacker
from bitfit_export.compiler.passes.attach_heads import AttachHeads
from bitfit_export.compiler.passes.canonicalize_bias_uses import CanonicalizeBiasUses
from bitfit_export.compiler.passes.canonicalize_mask import CanonicalizeMask
from bitfit_export.compiler.passes.canonicalize_shapes import CanonicalizeShapes
from bitfit_export.compiler.passes.check_invariants import CheckInvariants
from bitfit_export.compiler.passes.emit_model import EmitModel
from bitfit_export.compiler.passes.find_bias_sites import FindBiasSites
from bitfit_export.compiler.passes.fold_biases import FoldBiases
from bitfit_export.compiler.passes.lift_biases import LiftBiases
from bitfit_export.compiler.passes.plan_layout import PlanLayout
from bitfit_export.compiler.passes.propagate_batch_axis import PropagateBatchAxis
from bitfit_export.compiler.passes.slice_first_token import SliceFirstToken
from bitfit_export.compiler.targets import load_target
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError

__all__ = [
    "CompiledModel",
    "Observer",
    "canonicalizing_passes",
    "check_order",
    "describe_passes",
    "lower",
    "plan_passes",
    "run_passes",
]

#: Called after each pass with its number from 1, the pass and whether it changed the graph.
Observer = Callable[[int, Pass, bool, Compilation], None]
_ROW_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


@dataclass(frozen=True)
class CompiledModel:
    """A frozen model in memory, and what makes the rows that run it.

    Attributes:
        at_load: how much an engine has to optimise when it loads the model: `none`, `basic` or `all`.
        not_quantized: products that stay float32 though integers were asked for, by the node's name -> why.
        ranges: of activations that are rounded to a range that is a constant, by the name of the product's node.
        keeps_padding: why the graph computes padding though it was to be removed; None where it does not.
        train_step: the program that computes loss and gradients, where it was wanted.
        bias_scales: float32 [n] of each bias input that is int32, by its name.
    """

    model: onnx.ModelProto
    packer: RowPacker
    options: CompileOptions
    opset: int
    at_load: str
    not_quantized: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, ActivationRange] = field(default_factory=dict)
    keeps_padding: str | None = None
    train_step: onnx.ModelProto | None = None
    bias_scales: Mapping[str, np.ndarray] = field(default_factory=dict)

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


def lower(
    traced: onnx.ModelProto,
    base: BaseModel,
    deltas: Mapping[str, TaskDelta],
    options: CompileOptions,
    passes: Sequence[Pass],
    observe: Observer | None = None,
    *,
    texts: Sequence[TextParts] = (),
) -> CompiledModel:
    """Run passes over the traced graph of a base model.

    Args:
        traced: what `trace_base_model` returned; it is not changed.
        passes: those of `plan_passes`, or others in their place.
        texts: what activations are observed on, by default sample texts.

    Raises:
        CompileError: a pass refused, with its reason.
    """
    compilation = Compilation(base, deltas, options, gs.import_onnx(traced), texts)
    run_passes(compilation, passes, observe)
    (opset,) = (each.version for each in compilation.model.opset_import if each.domain == "")
    packer = RowPacker(base, compilation.layout, compilation.heads, compilation.fold, _ROW_DTYPES[options.row_dtype])
    at_load = load_target(options.target).at_load(options)
    return CompiledModel(
        compilation.model,
        packer,
        options,
        opset,
        at_load,
        compilation.not_quantized,
        compilation.ranges,
        compilation.keeps_padding,
        compilation.train_step,
        compilation.bias_scales,
    )


def canonicalizing_passes() -> tuple[Pass, ...]:
    """What every program begins with, whatever runs it: biases found and folded, mask and shapes in one form."""
    return (
        CanonicalizeBiasUses(),
        PropagateBatchAxis(),
        FindBiasSites(),
        FoldBiases(),
        CanonicalizeMask(),
        CanonicalizeShapes(),
    )


def plan_passes(options: CompileOptions) -> tuple[Pass, ...]:
    """The passes of a compilation with these options, in order.

    Raises:
        UsageError: options that the target does not take.
    """
    target = load_target(options.target)
    target.check(options)
    return (
        *canonicalizing_passes(),
        *target.calibrate(options),
        PlanLayout(),
        AttachHeads(),
        SliceFirstToken(),
        LiftBiases(),
        *target.arrange(options),
        *target.quantize(options),
        *target.lower(options),
        EmitModel(),
        CheckInvariants(),
    )


def check_order(passes: Sequence[Pass]) -> None:
    """Make sure that what each pass requires holds when it runs.

    Raises:
        CompileError: a pass that would run too early or too late.
    """
    holds = {Fact.TRACED}
    for each in passes:
        missing = each.requires - holds
        if missing:
            facts = "; ".join(sorted(fact.value for fact in missing))
            raise CompileError(f"the pass {each.name} runs where this does not hold: {facts}")
        holds = (holds - each.ends) | each.ensures


def run_passes(compilation: Compilation, passes: Sequence[Pass], observe: Observer | None = None) -> None:
    """Run passes in order.

    Args:
        observe: called after each pass.

    Raises:
        CompileError: a pass refused, with its reason; or the order of the passes does not hold.
    """
    check_order(passes)
    for number, each in enumerate(passes, 1):
        outcome = each.run(compilation)
        if isinstance(outcome, Refusal):
            raise CompileError(outcome.reason, hint=outcome.hint)
        if observe is not None:
            observe(number, each, outcome, compilation)


def describe_passes(passes: Sequence[Pass]) -> str:
    """A pass per line: its number, its name, and what holds after it that did not hold before."""
    width = max(len(each.name) for each in passes)
    lines = []
    for number, each in enumerate(passes, 1):
        facts = "; ".join(fact.value for fact in Fact if fact in each.ensures)
        lines.append(f"{number:2}  {each.name:<{width}}  {facts}".rstrip())
    return "\n".join(lines)
