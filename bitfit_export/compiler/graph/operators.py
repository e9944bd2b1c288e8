"""Kinds of operators and of nodes that several passes treat alike."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.shapes import integers_in

__all__ = ["ELEMENTWISE", "SEQUENCE_AXIS", "gathers_first_token"]

#: Operators that compute each value of their result from the values at the same place of their inputs.
ELEMENTWISE = frozenset(
    {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
    | {"Dropout", "Where"}
)
#: The axis of the sequence in a hidden state [batch, sequence, hidden].
SEQUENCE_AXIS = 1


def gathers_first_token(node: gs.Node) -> bool:
    """Returns whether a node is a Gather of the first token of [batch, sequence, n]."""
    return node.op == "Gather" and node.attrs.get("axis", 0) == SEQUENCE_AXIS and integers_in(node.inputs[1]) == [0]
