"""Derivatives of matrix products and convolutions.

A weight gets no gradient, and is not stored a second time: its product with `dy` reads it transposed (`transB` of
Gemm).
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.tape import Tape, sizes_known
from bitfit_export.compiler.graph.shapes import producer_of

__all__ = ["of_conv", "of_gemm", "of_matmul"]


def of_matmul(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """da = dy b^T, db = a^T dy, each summed over the leading axes that were broadcast."""
    a, b = node.inputs
    if min(len(sizes_known(a)), len(sizes_known(b))) < 2:
        return None
    if index == 0 and len(sizes_known(b)) == 2 and _is_weight(b):
        return _times_transposed_weight(tape, dy, b, a)
    other = _transposed(tape, b if index == 0 else a)
    factors = (dy, other) if index == 0 else (other, dy)
    operand, result = node.inputs[index], node.outputs[0]
    product = tape.make("MatMul", *factors, shape=[*sizes_known(result)[:-2], *sizes_known(operand)[-2:]])
    return tape.summed_to(product, operand, product)


def _is_weight(tensor: gs.Tensor) -> bool:
    """Returns whether a matrix is a constant, or the Transpose of one."""
    node = producer_of(tensor)
    return isinstance(tensor if node is None or node.op != "Transpose" else node.inputs[0], gs.Constant)


def _times_transposed_weight(tape: Tape, dy: gs.Tensor, weight: gs.Tensor, like: gs.Tensor) -> gs.Tensor:
    flat = dy
    if len(sizes_known(like)) != 2:
        flat = tape.make("Reshape", dy, [-1, _known(weight, 1)], shape=[None, _known(weight, 1)])
    product = tape.make("Gemm", flat, weight, shape=[None, _known(weight, 0)], transB=1)
    return tape.like(product, like)


def _known(weight: gs.Tensor, axis: int) -> int:
    size = sizes_known(weight)[axis]
    assert isinstance(size, int)
    return size


def _transposed(tape: Tape, tensor: gs.Tensor) -> gs.Variable:
    """The tensor with its last two axes exchanged."""
    sizes = sizes_known(tensor)
    axes = [*range(len(sizes) - 2), len(sizes) - 1, len(sizes) - 2]
    return tape.make("Transpose", tensor, shape=[sizes[axis] for axis in axes], perm=axes)


def of_gemm(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """Of alpha a' b' + beta c: da' = alpha dy b'^T, db' = alpha a'^T dy, dc = beta dy; ' is a transposition or none.

    Where a' is a^T its gradient is transposed again: da = alpha b' dy^T.
    """
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    trans_a, trans_b = node.attrs.get("transA", 0), node.attrs.get("transB", 0)
    operand = node.inputs[index]
    if index == 2:
        return tape.scaled(tape.summed_to(dy, operand, node.outputs[0]), beta)
    if index == 0:
        flags = {"transA": trans_b, "transB": 1} if trans_a else {"transA": 0, "transB": 1 - trans_b}
        factors = (node.inputs[1], dy) if trans_a else (dy, node.inputs[1])
    else:
        flags = {"transA": 1, "transB": trans_a} if trans_b else {"transA": 1 - trans_a, "transB": 0}
        factors = (dy, node.inputs[0]) if trans_b else (node.inputs[0], dy)
    return tape.make("Gemm", *factors, shape=operand.shape, alpha=alpha, **flags)


def of_conv(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = the transposed convolution of dy with the same weight, which reads it as it is; d(bias) = dy summed."""
    if index == 2:
        axes = [axis for axis in range(len(sizes_known(node.outputs[0]))) if axis != 1]
        return tape.make("ReduceSum", dy, axes, shape=node.inputs[2].shape, keepdims=0)
    if index == 1 or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    names = ("dilations", "group", "kernel_shape", "pads", "strides")
    attrs = {name: node.attrs[name] for name in names if name in node.attrs}
    back = tape.make("ConvTranspose", dy, node.inputs[1], shape=None, **attrs)
    if set(node.attrs.get("strides", [1])) == {1}:
        back.shape = node.inputs[0].shape
        return back
    # A stride that does not divide the length leaves values at the end unread: their gradient is zero.
    x = node.inputs[0]
    missing = tape.make("Sub", tape.shape_of(x), tape.make("Shape", back, dtype=np.int64), dtype=np.int64)
    pads = tape.make("Concat", [0] * len(sizes_known(x)), missing, dtype=np.int64, axis=0)
    return tape.make("Pad", back, pads, shape=x.shape)
