"""How a shift passes linear nodes: views, sums, scales and products with a weight.

Each rule is a lemma about one operator f: f(t' + s) = f(t') + s', and the rule gives s'.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.shapes import (
    integers_in,
    is_number,
    known_integers,
    producer_of,
    reshape_sizes,
    sizes_of,
)
from bitfit_export.compiler.graph.weights import Weight
from bitfit_export.compiler.passes.fold_biases.outcome import Absorbed, Flow, Outcome, Scope

__all__ = [
    "through_add",
    "through_cast",
    "through_gather",
    "through_gemm",
    "through_identity",
    "through_layer_norm",
    "through_reshape",
    "through_scale",
    "through_slice",
    "through_squeeze",
    "through_transpose",
    "through_unsqueeze",
]

_FLOAT32 = 1
_OPEN_END = 2**62


def through_identity(flow: Flow) -> Outcome:
    """f(t) = t."""
    return flow.shift


def through_cast(flow: Flow) -> Outcome:
    """A cast of float32 to float32, as the exporter writes some; any other is not exact algebra."""
    to_float32 = flow.node.op == "CastLike" or flow.node.attrs["to"] == _FLOAT32
    return flow.shift if to_float32 else flow.refuse("makes another type of it")


def through_transpose(flow: Flow) -> Outcome:
    perm = flow.node.attrs.get("perm", list(reversed(range(flow.shift.rank))))
    return flow.shift.transposed(perm)


def through_reshape(flow: Flow) -> Outcome:
    sizes = reshape_sizes(flow.node)
    shift = None if sizes is None or flow.index else flow.shift.reshaped(sizes)
    return shift or flow.refuse(f"arranges it as {sizes}, which cannot be followed")


def through_unsqueeze(flow: Flow) -> Outcome:
    shift = flow.shift
    axes = _constant_axes(flow.node, 1, shift.rank + _count(flow.node, 1))
    if axes is None:
        return flow.refuse("has axes that are computed")
    for axis in sorted(axes):
        shift = shift.with_axis(axis)
    return shift


def through_squeeze(flow: Flow) -> Outcome:
    shift = flow.shift
    axes = _constant_axes(flow.node, 1, shift.rank)
    if axes is None or any(shift.axes[axis] for axis in axes):
        return flow.refuse("has axes that are not known to have size 1")
    for axis in sorted(axes, reverse=True):
        shift = shift.without_axis(axis)
    return shift


def through_gather(flow: Flow) -> Outcome:
    """One index of an axis along which s is constant, as a pooler takes the first token."""
    axis = flow.node.attrs.get("axis", 0)
    indices = flow.node.inputs[1]
    one_index = isinstance(indices, gs.Constant) and len(indices.shape) == 0
    if flow.index or not one_index or not flow.shift.constant_along(axis):
        return flow.refuse("picks values of it")
    return flow.shift.without_axis(axis)


def through_slice(flow: Flow) -> Outcome:
    """A range of axes along which s is constant."""
    axes = _constant_axes(flow.node, 3, flow.shift.rank)
    starts, ends = integers_in(flow.node.inputs[1]), integers_in(flow.node.inputs[2])
    steps = integers_in(flow.node.inputs[4]) if len(flow.node.inputs) > 4 else [1]
    if flow.index or axes is None or starts is None or ends is None or set(steps or [None]) != {1}:
        return flow.refuse("cuts it in a way that cannot be followed")
    shift = flow.shift
    for axis, start, end in zip(axes, starts, ends, strict=True):
        if start == 0 and isinstance(end, int) and end > _OPEN_END:
            continue
        if not shift.constant_along(axis):
            return flow.refuse("takes a part of it")
        shift = shift.resized(axis, None)
    return shift


def through_add(flow: Flow) -> Outcome:
    """(x + s) + y: a bias that y adds takes s up, else s passes to the sum."""
    other = flow.node.inputs[1 - flow.index]
    found = _bias_behind(other, flow.node, flow.scope)
    if found is not None and flow.shift.is_vector(found[0].shape[0]):
        return Absorbed(found[0].name, found[1], flow.shift.factors)
    sizes = sizes_of(flow.output) or sizes_of(other)
    if sizes is None:
        return flow.refuse(f"adds {other.name}, whose shape is not known")
    return flow.shift.broadcast(sizes)


def _bias_behind(tensor: gs.Tensor, reader: gs.Node, scope: Scope) -> tuple[gs.Constant, gs.Node] | None:
    """The bias that a tensor is or that makes part of it and of nothing else, and the node that adds it."""
    while True:
        bias = scope.bias(tensor)
        if bias is not None:
            return (bias, reader) if len(bias.shape) == 1 else None
        node = producer_of(tensor)
        if node is None or len(tensor.outputs) != 1 or tensor.name in scope.outputs:
            return None
        if node.op == "Identity":
            tensor = node.inputs[0]
            continue
        candidates = {"Add": node.inputs, "Gemm": node.inputs[2:]}.get(node.op, [])
        biases = [each for each in candidates if scope.bias(each) is not None and len(each.shape) == 1]
        return (biases[0], node) if biases else None


def through_scale(flow: Flow) -> Outcome:
    """A product or quotient with one number. Its value is not followed: where s is constant is all that is kept."""
    other = flow.node.inputs[1 - flow.index]
    if not is_number(other) or (flow.node.op == "Div" and flow.index == 1):
        return flow.refuse(f"scales it by {other.name}, which is not one number")
    return flow.shift.blurred()


def through_layer_norm(flow: Flow) -> Outcome:
    """The bias itself enters as the third input; a shift of what is normalised does not pass."""
    if flow.index != 2:
        return flow.nonlinear("normalises it")
    sizes = sizes_of(flow.output)
    if sizes is None or flow.node.attrs.get("axis", -1) not in (-1, len(sizes) - 1):
        return flow.refuse("normalises more than the last axis")
    return flow.shift.broadcast(sizes)


def through_gemm(flow: Flow) -> Outcome:
    """alpha (x + s) W + beta c, with alpha and beta 1; s passes as s W, and c takes it up where it is a bias."""
    attrs, sizes = flow.node.attrs, sizes_of(flow.output)
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        return flow.refuse("scales or transposes what it multiplies")
    if flow.index == 2:
        return flow.refuse("makes an unknown shape") if sizes is None else flow.shift.broadcast(sizes)
    matrix = flow.node.inputs[1]
    if flow.index == 1 or not isinstance(matrix, gs.Constant):
        return flow.product("something")
    weight = Weight(matrix, transposed=bool(attrs.get("transB", 0)))
    if not flow.shift.is_vector(weight.shape[0]):
        return flow.refuse("multiplies it by a weight when it is no longer a plain vector")
    shift = flow.shift.times(weight)
    bias = flow.scope.bias(flow.node.inputs[2]) if len(flow.node.inputs) > 2 else None
    return shift if bias is None else Absorbed(bias.name, flow.node, shift.factors)


def _count(node: gs.Node, position: int) -> int:
    return len(integers_in(node.inputs[position]) or []) if len(node.inputs) > position else 0


def _constant_axes(node: gs.Node, position: int, rank: int) -> list[int] | None:
    """The axes that a node's input names, counted from 0; None where they are not constants."""
    if len(node.inputs) <= position:
        return None
    axes = known_integers(node.inputs[position])
    return None if axes is None else [axis % rank for axis in axes]
