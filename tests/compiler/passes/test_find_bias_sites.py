"""A bias is lifted where that is safe, and refused with a reason anywhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from bitfit_export.compiler.passes.find_bias_sites import find_bias_sites
from tests.compiler.refusals import reason_of


def one_node(op: str, index: int, out_shape: list[int | str] | None, size: int = 4, **attrs: float) -> gs.Graph:
    """A graph of one node that has the bias `b` at input `index`."""
    bias = gs.Constant("b", np.ones(size, np.float32))
    inputs: list[gs.Tensor] = [gs.Variable(f"x{number}", np.float32) for number in range(index)]
    out = gs.Variable("y", np.float32, out_shape)
    return gs.Graph([gs.Node(op, "node", attrs, inputs=[*inputs, bias], outputs=[out])], inputs=inputs, outputs=[out])


@pytest.mark.parametrize(
    ("graph", "rank"),
    [
        (one_node("Add", 1, ["batch", "sequence", 4]), 3),
        (one_node("Add", 0, ["batch", "sequence", 4]), 3),
        (one_node("Add", 1, ["batch", 4]), 2),
        (one_node("LayerNormalization", 2, ["batch", "sequence", 4], axis=-1), 3),
        (one_node("Gemm", 2, ["batch", 4]), 2),
        (one_node("Add", 1, ["rows", 7, 4]), 3),
    ],
)
def test_a_bias_that_is_added_to_a_batch_is_a_site(graph: gs.Graph, rank: int) -> None:
    (site,) = find_bias_sites(graph, ["b"])
    assert (site.name, site.rank) == ("b", rank)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (one_node("Mul", 1, ["batch", "sequence", 4]), "input 1 of Mul node, expected Add"),
        (one_node("Gemm", 2, ["batch", 4], beta=0.5), "Gemm multiplies it by 0.5"),
        (one_node("LayerNormalization", 2, ["batch", "sequence", 4], axis=1), "more than the last axis"),
        (one_node("Add", 1, ["sequence", "batch", 4]), "first dimension of Add node is sequence"),
        (one_node("Add", 1, [2, 7, 4]), "first dimension of Add node is 2"),
        (one_node("Add", 1, ["batch", "sequence", 8]), "is not the last dimension"),
        (one_node("Add", 1, ["batch", "heads", "sequence", 4]), "expected rank 2 or 3"),
        (one_node("Add", 1, None), "shape None"),
    ],
)
def test_any_other_use_is_refused_with_its_reason(graph: gs.Graph, reason: str) -> None:
    assert reason in reason_of(find_bias_sites(graph, ["b"]))


def viewed(shape: list[int], out: list[int | str] | None, op: str = "Add") -> gs.Graph:
    """x + Reshape(b, shape), with a bias of 4."""
    bias, target = gs.Constant("b", np.ones(4, np.float32)), gs.Constant("shape", np.array(shape))
    x, view, y = gs.Variable("x", np.float32), gs.Variable("view", np.float32), gs.Variable("y", np.float32, out)
    nodes = [gs.Node("Reshape", "reshape", {}, [bias, target], [view]), gs.Node(op, "node", {}, [x, view], [y])]
    return gs.Graph(nodes, inputs=[x], outputs=[y])


@pytest.mark.parametrize("shape", [[-1, 4, 1], [-1, 1, 4], [-1, 2, 2]])
def test_a_reshape_that_keeps_the_batch_in_front_is_a_site(shape: list[int]) -> None:
    graph = viewed(shape, ["batch", "channels", "samples"])
    (site,) = find_bias_sites(graph, ["b"])
    assert (site.node, site.index, site.rank) == (graph.nodes[0], 0, 3)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(viewed([1, 4, 1], ["batch", 4, "samples"]), id="one item only"),
        pytest.param(viewed([-1, 2], ["batch", 2]), id="a part of the bias per item"),
        pytest.param(viewed([-1, 4], ["batch", "sequence", 4]), id="items where the sequence is"),
        pytest.param(viewed([-1, 4, 1], ["sequence", 4, "batch"]), id="the batch last"),
        pytest.param(viewed([-1, 4, 1], None), id="a sum of unknown shape"),
        pytest.param(viewed([-1, 4, 1], ["batch", 4, "samples"], "Mul"), id="a product"),
    ],
)
def test_any_other_reshape_of_a_bias_is_refused(graph: gs.Graph) -> None:
    assert "input 0 of Reshape" in reason_of(find_bias_sites(graph, ["b"]))


@pytest.mark.parametrize(
    "graph",
    [
        one_node("Mul", 1, ["batch", "sequence", 4]),
        one_node("Add", 1, ["batch*sequence", 4]),
        one_node("Conv", 2, ["batch", 4, "samples"]),
        one_node("Add", 1, None),
    ],
)
def test_biases_that_are_the_same_in_all_rows_may_go_anywhere(graph: gs.Graph) -> None:
    (site,) = find_bias_sites(graph, ["b"], by_row=False)
    assert site.node is graph.nodes[0]


def test_a_bias_of_two_dimensions_can_be_lifted_in_no_layout() -> None:
    graph = one_node("Add", 1, ["batch", 4, "sequence"])
    graph.nodes[0].inputs[1].values = np.ones((4, 1), np.float32)
    for by_row in (True, False):
        reason = reason_of(find_bias_sites(graph, ["b"], by_row=by_row))
        assert "takes it in its shape (4, 1), expected one dimension" in reason


@pytest.mark.parametrize("name", ["absent", "b"])
def test_a_bias_without_a_use_is_refused(name: str) -> None:
    graph = one_node("Add", 1, ["batch", 4])
    graph.nodes[0].inputs[1] = gs.Constant("c", np.ones(4, np.float32))
    assert f"{name} is used nowhere" in reason_of(find_bias_sites(graph, [name]))


def test_every_use_of_a_tied_bias_is_a_site() -> None:
    graph = one_node("Add", 1, ["batch", 4])
    bias = graph.nodes[0].inputs[1]
    second = gs.Variable("z", np.float32, ["batch", 4])
    graph.nodes.append(gs.Node("Add", "again", inputs=[graph.nodes[0].outputs[0], bias], outputs=[second]))
    assert [site.node.name for site in find_bias_sites(graph, ["b"])] == ["node", "again"]


def test_an_error_counts_what_it_does_not_show(make_many: Callable[[int], gs.Graph]) -> None:
    reason = reason_of(find_bias_sites(make_many(5), [f"b{number}" for number in range(5)]))
    assert reason.startswith("5 uses of bias terms cannot be lifted: ")
    assert reason.endswith("; and 2 more")


@pytest.fixture
def make_many() -> Callable[[int], gs.Graph]:
    def make(count: int) -> gs.Graph:
        x = gs.Variable("x", np.float32)
        nodes = [
            gs.Node(
                "Mul",
                f"mul{number}",
                inputs=[x, gs.Constant(f"b{number}", np.ones(4, np.float32))],
                outputs=[gs.Variable(f"y{number}", np.float32, ["batch", 4])],
            )
            for number in range(count)
        ]
        return gs.Graph(nodes, inputs=[x], outputs=[node.outputs[0] for node in nodes])

    return make
