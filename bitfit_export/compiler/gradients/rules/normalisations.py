"""Derivatives of softmax, layer normalisation and sums: operators that relate the values of an axis."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.tape import Tape, sizes_known
from bitfit_export.compiler.graph.shapes import known_integers

__all__ = ["of_layer_normalization", "of_log_softmax", "of_reduce_mean", "of_reduce_sum", "of_softmax"]


def of_softmax(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = y (dy - sum(dy y))."""
    y, shape = node.outputs[0], node.outputs[0].shape
    total = tape.make("ReduceSum", tape.make("Mul", dy, y, shape=shape), [node.attrs.get("axis", -1)], keepdims=1)
    return tape.make("Mul", y, tape.make("Sub", dy, total, shape=shape), shape=shape)


def of_log_softmax(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy - exp(y) sum(dy)."""
    y, shape = node.outputs[0], node.outputs[0].shape
    total = tape.make("ReduceSum", dy, [node.attrs.get("axis", -1)], keepdims=1)
    return tape.make("Sub", dy, tape.make("Mul", tape.make("Exp", y, shape=shape), total, shape=shape), shape=shape)


def of_layer_normalization(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = (g - mean(g) - c mean(g c) / sigma^2) / sigma, with c = x - mean(x) and g = dy gamma.

    Mean and 1 / sigma are further outputs of the same node.
    """
    if index == 2:
        return tape.summed_to(dy, node.inputs[2], node.outputs[0])
    rank = len(sizes_known(node.inputs[0]))
    if index == 1 or node.attrs.get("axis", -1) % rank != rank - 1:
        return None
    x, gamma = node.inputs[:2]
    mean, inverse = _statistics(node)

    def make(op: str, *inputs: gs.Tensor) -> gs.Variable:
        return tape.make(op, *inputs, shape=x.shape)

    def averaged(values: gs.Tensor) -> gs.Variable:
        return tape.make("ReduceMean", values, [rank - 1], shape=mean.shape, keepdims=1)

    def by_row(*factors: gs.Tensor) -> gs.Variable:
        return tape.make("Mul", *factors, shape=mean.shape)

    c, g = make("Sub", x, mean), make("Mul", dy, gamma)
    slope = by_row(averaged(make("Mul", g, c)), by_row(inverse, inverse))
    return make("Mul", make("Sub", make("Sub", g, averaged(g)), make("Mul", c, slope)), inverse)


def _statistics(node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    sizes = [*sizes_known(node.inputs[0])[:-1], 1]
    for name in ("mean", "inverse")[len(node.outputs) - 1 :]:
        node.outputs.append(gs.Variable(f"{node.outputs[0].name}/{name}", np.float32, sizes))
    return node.outputs[1], node.outputs[2]


def of_reduce_sum(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy, repeated over the axes of the sum."""
    spread = _kept_axes(tape, node, dy)
    return (
        None
        if spread is None
        else tape.make("Expand", spread, tape.shape_of(node.inputs[0]), shape=node.inputs[0].shape)
    )


def of_reduce_mean(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy / count, repeated over the axes of the mean."""
    axes, sizes = _axes(node), sizes_known(node.inputs[0])
    spread = _kept_axes(tape, node, dy)
    if axes is None or spread is None:
        return None
    counts = [size for axis in axes if isinstance(size := sizes[axis], int)]
    if len(counts) == len(axes):
        share = tape.scaled(spread, 1 / math.prod(counts))
    else:
        share = tape.make("Div", tape.make("Mul", spread, _count(tape, dy)), _count(tape, node.inputs[0]))
    return tape.make("Expand", share, tape.shape_of(node.inputs[0]), shape=node.inputs[0].shape)


def _count(tape: Tape, tensor: gs.Tensor) -> gs.Variable:
    """The number of values of a tensor, float32 []."""
    return tape.make("Cast", tape.make("Size", tensor, dtype=np.int64), to=onnx.TensorProto.FLOAT)


def _kept_axes(tape: Tape, node: gs.Node, dy: gs.Tensor) -> gs.Tensor | None:
    """dy with a size of 1 where the axes of the sum were."""
    axes = _axes(node)
    if axes is None or node.attrs.get("keepdims", 1):
        return None if axes is None else dy
    return tape.make("Unsqueeze", dy, axes)


def _axes(node: gs.Node) -> list[int] | None:
    """The axes of a sum, counted from the first; all of them where the node names none."""
    rank = len(sizes_known(node.inputs[0]))
    if len(node.inputs) < 2 or node.inputs[1].is_empty():
        return [*range(rank)]
    axes = known_integers(node.inputs[1])
    return None if axes is None else [axis % rank for axis in axes]
