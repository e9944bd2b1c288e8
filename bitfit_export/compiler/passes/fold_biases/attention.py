"""How a shift passes attention: softmax(q k^T + mask) v.

- A shift of the keys adds q_i . s to row i of the scores: the same for every key. Softmax does not see it.
- The rows of the softmax sum to 1, so a shift of the values, the same for every key, passes as it is.

Both hold for a query that may look at some key. Where the mask leaves it none (an item of the batch without a token)
a model makes something up, and that may change.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from bitfit_export.compiler.graph.shapes import constant_number, integers_in, producer_of, reshape_sizes, sizes_of
from bitfit_export.compiler.graph.weights import weight_in
from bitfit_export.compiler.passes.fold_biases.outcome import Flow, Outcome, Vanished
from bitfit_export.compiler.passes.fold_biases.shift import Atom, Shift

__all__ = ["through_matmul", "through_softmax", "through_where"]

#: What a model writes over the scores of keys that are masked: exp of it is 0 in any float.
_MASKED_BELOW = -1e9


def through_matmul(flow: Flow) -> Outcome:
    """x W for a weight W, or one of attention's two products."""
    if flow.index == 1:
        return _as_keys_or_values(flow)
    weight = weight_in(flow.node)
    if weight is None:
        return flow.product(flow.node.inputs[1].name)
    if not flow.shift.is_vector(weight.shape[0]):
        return flow.refuse("multiplies it by a weight when it is no longer a plain vector")
    return flow.shift.times(weight)


def _as_keys_or_values(flow: Flow) -> Outcome:
    left = flow.node.inputs[0]
    sizes = sizes_of(left) or sizes_of(flow.output)
    shift = flow.shift
    if sizes is None or len(sizes) != shift.rank or shift.rank < 3:
        return flow.refuse(f"multiplies it by {left.name}, whose shape is not known")
    if shift.constant_along(-2) and _rows_sum_to_one(left):
        return shift.resized(shift.rank - 2, sizes[-2]).broadcast([*sizes[:-1], 1])
    if not shift.constant_along(-1):
        return flow.refuse(f"multiplies it by {left.name}, whose rows are not known to sum to 1")
    # q_i . s: it depends on all that q depends on, yet not on the key.
    batch = shift.broadcast([*sizes[:-2], 1, 1]).axes[:-2]
    leading = tuple(tuple(Atom(atom.size, None) for atom in axis) for axis in batch)
    return Shift((*leading, (Atom(sizes[-2], None),), shift.axes[-1]))


def through_softmax(flow: Flow) -> Outcome:
    """softmax(x + c) = softmax(x) for c that is constant along the softmax's axis."""
    if flow.shift.constant_along(flow.node.attrs.get("axis", -1)):
        return Vanished()
    return flow.nonlinear("reads how it differs along its axis")


def through_where(flow: Flow) -> Outcome:
    """Two uses are understood: masked scores in front of a softmax, and the guard for queries without a key."""
    if flow.index == 0:
        return flow.nonlinear("chooses by it")
    other = flow.node.inputs[3 - flow.index]
    value = constant_number(other)
    is_output = flow.output.name in flow.scope.outputs
    if value is not None and value < _MASKED_BELOW and _only_softmax_reads(flow.output, flow.shift) and not is_output:
        return Vanished()
    if value == 0 and flow.index == 2 and _counts_no_key(flow.node):
        return flow.shift
    return flow.refuse(f"puts {other.name} in its place")


def _only_softmax_reads(tensor: gs.Tensor, shift: Shift) -> bool:
    """Returns whether all that reads some masked scores is a softmax along an axis where their shift is constant."""
    return all(node.op == "Softmax" and shift.constant_along(node.attrs.get("axis", -1)) for node in tensor.outputs)


def _softmax_behind(tensor: gs.Tensor) -> gs.Node | None:
    """The softmax over the last axis that a tensor is, maybe with NaN made 0 for queries without a key."""
    node = producer_of(tensor)
    if node is None:
        return None
    if node.op == "Identity" or (node.op == "Reshape" and _keeps_rows(node)) or _stays_exact(node):
        return _softmax_behind(node.inputs[0])
    if node.op == "Where":
        condition = producer_of(node.inputs[0])
        guards = condition is not None and condition.op == "IsNaN" and condition.inputs[0] is node.inputs[2]
        return _softmax_behind(node.inputs[2]) if guards and constant_number(node.inputs[1]) == 0 else None
    if node.op != "Softmax":
        return None
    sizes = sizes_of(node.outputs[0])
    last = -1 if sizes is None else len(sizes) - 1
    return node if node.attrs.get("axis", -1) in (-1, last) else None


def _keeps_rows(reshape: gs.Node) -> bool:
    before, after = sizes_of(reshape.inputs[0]), reshape_sizes(reshape)
    return bool(before and after and after[-1] is not None and before[-1] == after[-1])


def _stays_exact(cast: gs.Node) -> bool:
    """Returns whether the node is a Cast that rounds nothing away, as eager attention has one behind its softmax."""
    return cast.op == "Cast" and cast.attrs["to"] in (TensorProto.FLOAT, TensorProto.DOUBLE, np.float32, np.float64)


def _rows_sum_to_one(tensor: gs.Tensor) -> bool:
    return _softmax_behind(tensor) is not None


def _counts_no_key(guard: gs.Node) -> bool:
    """Returns whether Where(few, 0, softmax(scores + mask) v) replaces only the queries that the mask leaves no key.

    As torch writes it:  few = sum over the keys of m < 1  and  mask = not m times a large negative number.
    """
    few = producer_of(guard.inputs[0])
    product = producer_of(guard.inputs[2])
    if few is None or few.op != "Less" or product is None or product.op != "MatMul":
        return False
    total = producer_of(few.inputs[0])
    if constant_number(few.inputs[1]) != 1 or total is None or total.op != "ReduceSum":
        return False
    allowed = _uncast(total.inputs[0])
    softmax = _softmax_behind(product.inputs[0])
    if [integers_in(axes) for axes in total.inputs[1:]] != [[-1]] or softmax is None:
        return False
    scores = producer_of(softmax.inputs[0])
    masks = [] if scores is None or scores.op != "Add" else scores.inputs
    return any(_masked_by(mask) is allowed for mask in masks)


def _masked_by(mask: gs.Tensor) -> gs.Tensor | None:
    """m of a mask that is `not m` times a large negative number."""
    product = producer_of(mask)
    if product is None or product.op != "Mul":
        return None
    value = constant_number(product.inputs[1])
    negated = producer_of(_uncast(product.inputs[0]))
    if value is None or value > _MASKED_BELOW or negated is None or negated.op != "Not":
        return None
    allowed: gs.Tensor = negated.inputs[0]
    return allowed


def _uncast(tensor: gs.Tensor) -> gs.Tensor:
    node = producer_of(tensor)
    return _uncast(node.inputs[0]) if node is not None and node.op in ("Cast", "Identity") else tensor
