"""Views of a bias term: nodes that arrange its values before they are added to anything."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.dimensions import BATCH, ROWS
from bitfit_export.compiler.graph.edit import uses_of
from bitfit_export.compiler.graph.shapes import known_integers, sizes_of

__all__ = ["VIEWS", "is_batch_view"]

#: Operators that neither change a value of their first input nor leave one out.
VIEWS = frozenset({"Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def is_batch_view(node: gs.Node, bias: gs.Constant) -> bool:
    """Returns whether a node is a view that takes the bias as [n] and, one per item of the batch, as [b, 1, n].

    Such a view is a Reshape to [-1, ...] whose result is only added to tensors that have the batch in front, and as
    many dimensions.
    """
    if node.op != "Reshape" or node.inputs[0] is not bias:
        return False
    sizes = known_integers(node.inputs[1])
    if not sizes or sizes[0] != -1 or min(sizes[1:], default=0) < 1 or math.prod(sizes[1:]) != math.prod(bias.shape):
        return False
    readers = [reader for reader, _ in uses_of(node.outputs[0])]
    return bool(readers) and all(_adds_to_batch(reader, len(sizes)) for reader in readers)


def _adds_to_batch(node: gs.Node, rank: int) -> bool:
    sizes = sizes_of(node.outputs[0])
    return node.op == "Add" and sizes is not None and len(sizes) == rank and sizes[0] in (BATCH, ROWS)
