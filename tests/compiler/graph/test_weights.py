"""Which matrices are weights."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.graph.weights import products_of_weights, weight_in

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def product(right: gs.Tensor, graph: gs.Graph | None = None, op: str = "MatMul", name: str = "product") -> gs.Node:
    return emit(graph or gs.Graph(), op, name, [gs.Variable("x", np.float32), right]).inputs[0]


@pytest.mark.parametrize(
    ("perm", "expected"), [(None, MATRIX.T), ([1, 0], MATRIX.T), ([0, 1], MATRIX)], ids=["default", "turned", "kept"]
)
def test_the_transpose_of_a_constant_is_a_weight(perm: list[int] | None, expected: np.ndarray) -> None:
    attrs = {} if perm is None else {"perm": perm}
    turned = emit(gs.Graph(), "Transpose", "turned", [gs.Constant("W", MATRIX)], **attrs)
    weight = weight_in(product(turned))
    assert weight is not None
    assert weight.shape == expected.shape
    np.testing.assert_array_equal(weight.values, expected)


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(product(gs.Variable("y", np.float32, [2, 3])), id="computed"),
        pytest.param(product(gs.Constant("W", MATRIX[0])), id="a vector"),
        pytest.param(product(gs.Constant("W", MATRIX[np.newaxis])), id="three dimensions"),
        pytest.param(product(gs.Constant("W", MATRIX.astype(np.int64))), id="integers"),
        pytest.param(product(gs.Constant("W", MATRIX), op="Mul"), id="not a matrix product"),
    ],
)
def test_anything_else_is_not_a_weight(node: gs.Node) -> None:
    assert weight_in(node) is None


def test_a_weight_that_layers_share_comes_with_all_its_products() -> None:
    graph, weight = gs.Graph(), gs.Constant("W", MATRIX)
    first, second = (product(weight, graph, name=name) for name in ("first", "second"))
    turned = product(emit(graph, "Transpose", "turned", [weight]), graph, name="third")
    found = [(each.transposed, nodes) for each, nodes in products_of_weights(graph)]
    assert [(transposed, [node.name for node in nodes]) for transposed, nodes in found] == [
        (False, [first.name, second.name]),
        (True, [turned.name]),
    ]
