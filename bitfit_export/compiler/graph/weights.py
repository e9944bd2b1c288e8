"""Which matrices of a graph are weights, and which nodes multiply with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.shapes import producer_of

__all__ = ["Weight", "products_of_weights", "weight_in"]


@dataclass(frozen=True)
class Weight:
    """A float32 matrix [inputs, outputs] that is a constant, or the Transpose of one.

    Attributes:
        constant: what the graph stores.
        transposed: whether a Transpose stands between the constant and the product.
    """

    constant: gs.Constant
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """[inputs, outputs], without loading the values."""
        first, second = self.constant.shape
        return (second, first) if self.transposed else (first, second)

    @property
    def values(self) -> np.ndarray:
        """The matrix, a view of what the graph stores."""
        values: np.ndarray = self.constant.values
        return values.T if self.transposed else values


def weight_in(node: gs.Node) -> Weight | None:
    """Returns the weight that a node multiplies with; None where it is not a MatMul with one on its right."""
    if node.op != "MatMul":
        return None
    right = node.inputs[1]
    transpose = producer_of(right)
    if transpose is not None and transpose.op == "Transpose":
        right = transpose.inputs[0]
    if not isinstance(right, gs.Constant) or right.dtype != np.float32 or len(right.shape) != 2:
        return None
    return Weight(right, transpose is not None and list(transpose.attrs.get("perm", [1, 0])) == [1, 0])


def products_of_weights(graph: gs.Graph) -> list[tuple[Weight, list[gs.Node]]]:
    """Returns each weight with the products that read it, as layers may share one."""
    products: dict[tuple[str, bool], tuple[Weight, list[gs.Node]]] = {}
    for node in graph.nodes:
        weight = weight_in(node)
        if weight is not None:
            products.setdefault((weight.constant.name, weight.transposed), (weight, []))[1].append(node)
    return list(products.values())
