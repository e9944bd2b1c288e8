"""Derivatives of operators that move values: each gradient goes back to where its value came from."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.tape import Tape, sizes_known
from bitfit_export.compiler.graph.shapes import known_integers

__all__ = [
    "of_concat",
    "of_expand",
    "of_gather",
    "of_gather_elements",
    "of_reshape",
    "of_slice",
    "of_split",
    "of_tile",
    "of_transpose",
]


def of_reshape(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy in the shape of x; so for Flatten, Squeeze and Unsqueeze."""
    return tape.like(dy, node.inputs[0])


def of_transpose(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy, transposed back."""
    rank = len(sizes_known(node.inputs[0]))
    perm = node.attrs.get("perm", [*reversed(range(rank))])
    return tape.make("Transpose", dy, shape=node.inputs[0].shape, perm=[perm.index(axis) for axis in range(rank)])


def of_expand(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy, summed over what was repeated."""
    return tape.summed_to(dy, node.inputs[0], node.outputs[0])


def of_tile(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = the sum over all copies: dy as [repeats, size, repeats, size, ...], summed over each repeats."""
    x, repeats = node.inputs
    pairs = [tape.make("Unsqueeze", each, [1], dtype=np.int64) for each in (repeats, tape.shape_of(x))]
    split = tape.make("Reshape", tape.make("Concat", *pairs, dtype=np.int64, axis=1), [-1], dtype=np.int64)
    copies = [*range(0, 2 * len(sizes_known(x)), 2)]
    return tape.make("ReduceSum", tape.make("Reshape", dy, split), copies, shape=x.shape, keepdims=0)


def of_concat(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """Each input gets its part of dy."""
    axis = node.attrs["axis"] % len(sizes_known(node.outputs[0]))
    sizes = [tape.size_of(each, axis) for each in node.inputs]
    start = _sum(tape, sizes[:index])
    end = tape.make("Add", start, sizes[index], dtype=np.int64)
    return tape.make("Slice", dy, start, end, [axis], shape=node.inputs[index].shape)


def _sum(tape: Tape, sizes: list[gs.Tensor]) -> gs.Tensor:
    total: gs.Tensor | None = None
    for size in sizes:
        total = size if total is None else tape.make("Add", total, size, dtype=np.int64)
    return tape.make("Identity", [0], dtype=np.int64) if total is None else total


def of_split(tape: Tape, node: gs.Node, parts: list[gs.Tensor | None]) -> gs.Tensor:
    """dx = the gradients of all parts side by side, zeros for a part that the loss does not depend on."""
    whole = [
        tape.zeros(tape.shape_of(output)) if part is None else part
        for part, output in zip(parts, node.outputs, strict=True)
    ]
    return tape.make("Concat", *whole, shape=node.inputs[0].shape, axis=node.attrs.get("axis", 0))


def of_slice(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy between zeros, for a slice whose first indices are numbers of the graph and whose steps are 1."""
    x, rank = node.inputs[0], len(sizes_known(node.inputs[0]))
    starts = known_integers(node.inputs[1])
    axes = known_integers(node.inputs[3]) if len(node.inputs) > 3 else [*range(len(starts or []))]
    steps = known_integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if starts is None or axes is None or steps is None or set(steps) != {1} or min(starts) < 0:
        return None
    before = [0] * rank
    for axis, start in zip(axes, starts, strict=True):
        before[axis % rank] = start
    read = tape.make("Add", tape.make("Shape", node.outputs[0], dtype=np.int64), before, dtype=np.int64)
    after = tape.make("Sub", tape.shape_of(x), read, dtype=np.int64)
    pads = tape.make("Concat", before, after, dtype=np.int64, axis=0)
    return tape.make("Pad", dy, pads, shape=x.shape)


def of_gather(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy added up by index: along the first axis for any indices, along another one for a single index."""
    if index != 0:
        return None
    x, indices = node.inputs
    axis = node.attrs.get("axis", 0) % len(sizes_known(x))
    if axis == 0 and len(sizes_known(indices)) == 1:
        # A product, for ONNX Runtime adds [indices, n] row by row in one thread.
        chosen = tape.make("OneHot", indices, tape.size_of(x, 0), _off_on(tape), axis=0)
        flat = tape.make("Reshape", dy, tape.make("Concat", tape.size_of(indices, 0), [-1], dtype=np.int64, axis=0))
        return tape.like(tape.make("MatMul", chosen, flat), x)
    if sizes_known(indices) not in ([], [1]):
        return None
    rank = len(sizes_known(x))
    one_hot = tape.make(
        "OneHot", tape.make("Reshape", indices, [1], dtype=np.int64), tape.size_of(x, axis), _off_on(tape)
    )
    column = tape.make("Reshape", one_hot, [-1, *[1] * (rank - 1 - axis)])
    kept = tape.make("Unsqueeze", dy, [axis]) if sizes_known(indices) == [] else dy
    return tape.make("Mul", kept, column, shape=x.shape)


def _off_on(tape: Tape) -> gs.Constant:
    values = tape.number(0)
    values.values = np.array([0, 1], np.float32)
    return values


def of_gather_elements(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy added up by index."""
    x, indices = node.inputs
    axis = node.attrs.get("axis", 0)
    zeros = tape.zeros(tape.shape_of(x))
    return tape.make("ScatterElements", zeros, indices, dy, shape=x.shape, axis=axis, reduction="add")
