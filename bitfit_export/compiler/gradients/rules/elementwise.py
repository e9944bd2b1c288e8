"""Derivatives of operators that compute each value from the values at the same place, with broadcasts.

`y` is the node's result and `dy` the gradient of the loss by it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.tape import Tape
from bitfit_export.compiler.graph.shapes import constant_number

__all__ = [
    "of_add",
    "of_cast",
    "of_div",
    "of_erf",
    "of_exp",
    "of_gelu",
    "of_identity",
    "of_log",
    "of_mul",
    "of_neg",
    "of_pow",
    "of_relu",
    "of_sigmoid",
    "of_softplus",
    "of_sqrt",
    "of_sub",
    "of_tanh",
    "of_where",
]

_TANH_GELU_SCALE, _TANH_GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def of_identity(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy."""
    return dy


def of_cast(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy between two tensors of float32, which is what a graph's own casts are where a gradient flows."""
    return dy if index == 0 and node.inputs[0].dtype == node.outputs[0].dtype == np.float32 else None


def of_add(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """da = dy and db = dy, each summed over what was broadcast."""
    return tape.summed_to(dy, node.inputs[index], node.outputs[0])


def of_sub(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """da = dy, db = -dy."""
    summed = tape.summed_to(dy, node.inputs[index], node.outputs[0])
    return summed if index == 0 else tape.make("Neg", summed, shape=summed.shape)


def of_mul(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """da = dy b, db = dy a."""
    product = tape.make("Mul", dy, node.inputs[1 - index], shape=node.outputs[0].shape)
    return tape.summed_to(product, node.inputs[index], node.outputs[0])


def of_div(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """da = dy / b, db = -dy y / b."""
    quotient = tape.make("Div", dy, node.inputs[1], shape=node.outputs[0].shape)
    if index == 1:
        product = tape.make("Mul", quotient, node.outputs[0], shape=node.outputs[0].shape)
        quotient = tape.make("Neg", product, shape=node.outputs[0].shape)
    return tape.summed_to(quotient, node.inputs[index], node.outputs[0])


def of_neg(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = -dy."""
    return tape.make("Neg", dy, shape=dy.shape)


def of_pow(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor | None:
    """dx = dy p x^(p - 1), for an exponent that is one number of the graph."""
    power = constant_number(node.inputs[1])
    if power is None or index == 1:
        return None
    base = node.inputs[0]
    lower = base if power == 2 else tape.make("Pow", base, tape.number(power - 1), shape=base.shape)
    return tape.scaled(tape.make("Mul", dy, lower, shape=base.shape), power)


def of_sqrt(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy / (2 y)."""
    return tape.scaled(tape.make("Div", dy, node.outputs[0], shape=dy.shape), 0.5)


def of_exp(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy y."""
    return tape.make("Mul", dy, node.outputs[0], shape=dy.shape)


def of_log(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy / x."""
    return tape.make("Div", dy, node.inputs[0], shape=dy.shape)


def of_tanh(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy (1 - y^2)."""
    square = tape.make("Mul", node.outputs[0], node.outputs[0], shape=dy.shape)
    return tape.make("Mul", dy, tape.make("Sub", tape.number(1), square, shape=dy.shape), shape=dy.shape)


def of_sigmoid(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy y (1 - y)."""
    rest = tape.make("Sub", tape.number(1), node.outputs[0], shape=dy.shape)
    return tape.make("Mul", dy, tape.make("Mul", node.outputs[0], rest, shape=dy.shape), shape=dy.shape)


def of_softplus(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy sigmoid(x)."""
    return tape.make("Mul", dy, tape.make("Sigmoid", node.inputs[0], shape=dy.shape), shape=dy.shape)


def of_relu(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy where x > 0, else 0."""
    positive = tape.make("Greater", node.inputs[0], tape.number(0), dtype=np.bool_, shape=dy.shape)
    return tape.make("Where", positive, dy, tape.number(0), shape=dy.shape)


def of_erf(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy 2 / sqrt(pi) exp(-x^2)."""
    x = node.inputs[0]
    square = tape.make("Mul", x, x, shape=x.shape)
    bell = tape.make("Exp", tape.make("Neg", square, shape=x.shape), shape=x.shape)
    return tape.make("Mul", dy, tape.scaled(bell, 2 / math.sqrt(math.pi)), shape=dy.shape)


def of_gelu(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """dx = dy (Phi(x) + x phi(x)), with the distribution and the density of the normal distribution; or, for the
    approximation by tanh, dy (1/2 (1 + t) + 1/2 x (1 - t^2) s (1 + 3 c x^2)) with t = tanh(s (x + c x^3)).
    """
    x, shape = node.inputs[0], node.outputs[0].shape
    if node.attrs.get("approximate", "none") == "tanh":
        return tape.make("Mul", dy, _tanh_slope(tape, x), shape=shape)
    return _of_erf_gelu(tape, node, dy)


def _of_erf_gelu(tape: Tape, node: gs.Node, dy: gs.Tensor) -> gs.Tensor:
    """With u = x / sqrt(2) and w = 1 + erf(u): y = u w / sqrt(2), dx = dy (w + 2 / sqrt(pi) u / exp(u^2)) / 2.

    The node computes w itself, so that it is computed once. exp(u^2) overflows where the quotient is zero anyway.
    """
    x = node.inputs[0]

    def make(op: str, *inputs: gs.Tensor) -> gs.Variable:
        return tape.make(op, *inputs, shape=x.shape)

    u = tape.scaled(x, math.sqrt(0.5))
    w = make("Add", make("Erf", u), tape.number(1))
    node.op, node.attrs, node.inputs = "Mul", {}, [make("Mul", u, w), tape.number(math.sqrt(0.5))]
    bell = make("Div", u, make("Exp", make("Mul", u, u)))
    slope = make("Add", w, tape.scaled(bell, 2 / math.sqrt(math.pi)))
    return make("Mul", tape.scaled(dy, 0.5), slope)


def _tanh_slope(tape: Tape, x: gs.Tensor) -> gs.Variable:
    def make(op: str, *inputs: gs.Tensor) -> gs.Variable:
        return tape.make(op, *inputs, shape=x.shape)

    one, square = tape.number(1), make("Mul", x, x)
    cubic = make("Add", one, tape.scaled(square, _TANH_GELU_CUBE))
    t = make("Tanh", tape.scaled(make("Mul", x, cubic), _TANH_GELU_SCALE))
    inner = tape.scaled(make("Add", one, tape.scaled(square, 3 * _TANH_GELU_CUBE)), _TANH_GELU_SCALE)
    bend = make("Mul", make("Mul", x, inner), make("Sub", one, make("Mul", t, t)))
    return make("Mul", make("Add", make("Add", one, t), bend), tape.number(0.5))


def of_where(tape: Tape, node: gs.Node, dy: gs.Tensor, index: int) -> gs.Tensor:
    """da = dy where the condition holds, else 0; db the other way round."""
    condition, zero = node.inputs[0], tape.number(0)
    chosen = (dy, zero) if index == 1 else (zero, dy)
    kept = tape.make("Where", condition, *chosen, shape=node.outputs[0].shape)
    return tape.summed_to(kept, node.inputs[index], node.outputs[0])
