"""Follow one bias term through the graph, to every place where it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.bias_views import VIEWS
from bitfit_export.compiler.graph.edit import uses_of
from bitfit_export.compiler.passes.fold_biases import attention, linear
from bitfit_export.compiler.passes.fold_biases.outcome import Absorbed, Flow, Outcome, Refused, Scope, Vanished
from bitfit_export.compiler.passes.fold_biases.shift import Shift

__all__ = ["OUTPUT", "Entry", "ShiftTrace", "trace_shift"]

#: The graph's output that a head reads: what shifts it, the head takes up.
OUTPUT = "last_hidden_state"

_RULES: dict[str, Callable[[Flow], Outcome]] = {
    "Add": linear.through_add,
    "Cast": linear.through_cast,
    "CastLike": linear.through_cast,
    "Div": linear.through_scale,
    "Gather": linear.through_gather,
    "Gemm": linear.through_gemm,
    "Identity": linear.through_identity,
    "LayerNormalization": linear.through_layer_norm,
    "MatMul": attention.through_matmul,
    "Mul": linear.through_scale,
    "Reshape": linear.through_reshape,
    "Slice": linear.through_slice,
    "Softmax": attention.through_softmax,
    "Squeeze": linear.through_squeeze,
    "Transpose": linear.through_transpose,
    "Unsqueeze": linear.through_unsqueeze,
    "Where": attention.through_where,
}

#: Functions that are not linear, and the steps of a normalisation that is written out.
_NONLINEAR = frozenset(
    {"Abs", "Elu", "Erf", "Exp", "Gelu", "LeakyRelu", "Pow", "ReduceMean", "Relu", "Sigmoid", "Sub", "Tanh"}
)

#: Where a bias may enter: the operator and the inputs that hold it.
_ENTRIES = {"Add": (0, 1), "Gemm": (2,), "LayerNormalization": (2,)}

#: Uses that read a tensor's shape or type only.
_NO_VALUES = frozenset({("Shape", 0), ("CastLike", 1)})

#: More than any model needs; sums of sums of a graph without non-linear functions would never end.
_LONGEST_WALK = 20_000


@dataclass(frozen=True)
class Entry:
    """A node input through which the bias, arranged or not, is added."""

    node: gs.Node
    index: int


@dataclass
class ShiftTrace:
    """Where a bias enters and all its ends."""

    entries: list[Entry] = field(default_factory=list)
    absorbed: list[Absorbed] = field(default_factory=list)
    vanished: int = 0
    refused: list[Refused] = field(default_factory=list)


def trace_shift(bias: gs.Constant, scope: Scope) -> ShiftTrace:
    """Every end of the shift that a bias causes, the near ones first."""
    trace = ShiftTrace()
    if len(bias.shape) != 1:
        trace.refused.append(Refused(f"it has shape {tuple(bias.shape)}, expected a vector"))
        return trace
    # A tensor, the shift of it, and whether it is still nothing but the bias.
    open_ends = deque([(bias, Shift.of_vector(bias.shape[0]), True)])
    steps = 0
    while open_ends:
        tensor, shift, alone = open_ends.popleft()
        if tensor.name in scope.outputs:
            _record(trace, _at_output(tensor, shift))
        for node, index in _readers(tensor):
            steps += 1
            if steps > _LONGEST_WALK:
                trace.refused.append(Refused("it reaches too much of the graph"))
                return trace
            outcome = _pass(Flow(shift, node, index, scope), alone)
            if alone and node.op in _ENTRIES:
                trace.entries.append(Entry(node, index))
            if isinstance(outcome, Shift):
                open_ends.append((node.outputs[0], outcome, alone and node.op in VIEWS))
            else:
                _record(trace, outcome)
    return trace


def _readers(tensor: gs.Tensor) -> list[tuple[gs.Node, int]]:
    """Every use of a tensor's values once, also where a node reads it twice."""
    return [(node, index) for node, index in uses_of(tensor) if (node.op, index) not in _NO_VALUES]


def _pass(flow: Flow, alone: bool) -> Outcome:
    op = flow.node.op
    if alone and op not in VIEWS and flow.index not in _ENTRIES.get(op, ()):
        return flow.refuse(f"adds it, expected {', '.join(_ENTRIES)}")
    if op in _NONLINEAR:
        return flow.nonlinear("is not linear")
    if op not in _RULES:
        return flow.refuse("is not understood")
    return _RULES[op](flow)


def _at_output(tensor: gs.Tensor, shift: Shift) -> Outcome:
    if tensor.name != OUTPUT:
        return Refused(f"{tensor.name} is an output of the graph")
    if shift.factors or len(tensor.shape) != shift.rank or not shift.is_vector(tensor.shape[-1]):
        return Refused(f"it reaches the output {OUTPUT} in another form")
    return Absorbed(None, None, ())


def _record(trace: ShiftTrace, outcome: Outcome) -> None:
    if isinstance(outcome, Absorbed):
        trace.absorbed.append(outcome)
    elif isinstance(outcome, Vanished):
        trace.vanished += 1
    elif isinstance(outcome, Refused):
        trace.refused.append(outcome)
