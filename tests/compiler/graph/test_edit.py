"""Changes to a graph: every node stays in order, every reader finds what it read."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from bitfit_export.compiler.graph.edit import bypass, detach, emit, remove_unused, replace_uses, uses_of


@pytest.fixture
def chain() -> gs.Graph:
    """y = Relu(x + x), z = Neg(x + x)."""
    x = gs.Variable("x", np.float32, ["batch", 2])
    graph = gs.Graph(inputs=[x], opset=20, ir_version=9)
    total = emit(graph, "Add", "total", [x, x], shape=["batch", 2])
    graph.outputs = [emit(graph, op, name, [total], shape=["batch", 2]) for op, name in (("Relu", "y"), ("Neg", "z"))]
    return graph


def run(graph: gs.Graph) -> list[list[float]]:
    """The outputs for x = [-1, 2]; the nodes must be in order as they are."""
    model = gs.export_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [each[0].tolist() for each in session.run(None, {"x": np.array([[-1, 2]], np.float32)})]


def node(graph: gs.Graph, op: str) -> gs.Node:
    return next(each for each in graph.nodes if each.op == op)


def test_a_node_that_reads_a_tensor_twice_is_two_uses(chain: gs.Graph) -> None:
    add = node(chain, "Add")
    assert [(each is add, index) for each, index in uses_of(chain.inputs[0])] == [(True, 0), (True, 1)]


def test_numbers_become_constants_of_the_node(chain: gs.Graph) -> None:
    out = emit(chain, "Slice", "part", [node(chain, "Add").outputs[0], [0], [1], [-1]])
    assert [each.values.tolist() for each in out.inputs[0].inputs[1:]] == [[0], [1], [-1]]
    scalar = emit(chain, "Gather", "first", [out, 0], axis=1).inputs[0].inputs[1]
    assert (scalar.values.shape, scalar.dtype) == ((), np.int64)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_node_goes_where_it_is_needed(chain: gs.Graph, where: str) -> None:
    relu, add = node(chain, "Relu"), node(chain, "Add")
    beside = {"before": relu} if where == "before" else {"after": add}
    relu.inputs[0] = emit(chain, "Neg", "negative", [add.outputs[0]], **beside)
    assert run(chain) == [[2, 0], [2, -4]]


def test_a_node_can_be_put_behind_another_under_the_name_of_its_output(chain: gs.Graph) -> None:
    y, relu = chain.outputs[0], node(chain, "Relu")
    emit(chain, "Neg", "again", [detach(y, "positive")], out=y, after=relu)
    assert run(chain)[0] == [0, -4]
    assert [each.name for each in chain.outputs] == ["y", "z"]


def test_all_readers_read_another_tensor(chain: gs.Graph) -> None:
    replace_uses(node(chain, "Add").outputs[0], chain.inputs[0])
    assert run(chain) == [[0, 2], [1, -2]]


def test_a_node_that_is_bypassed_leaves_the_graph(chain: gs.Graph) -> None:
    bypass(chain, node(chain, "Add"), chain.inputs[0])
    assert [each.op for each in chain.nodes] == ["Relu", "Neg"]
    assert run(chain) == [[0, 2], [1, -2]]


def test_an_output_that_is_bypassed_stays_an_output(chain: gs.Graph) -> None:
    bypass(chain, node(chain, "Relu"), chain.inputs[0])
    assert run(chain)[0] == [-1, 2]
    assert chain.outputs[0].name == "y"


def test_what_nothing_reads_is_removed_with_what_it_needed(chain: gs.Graph) -> None:
    relu = node(chain, "Relu")
    unused = emit(chain, "Abs", "b", [emit(chain, "Neg", "a", [relu.inputs[0]])])
    remove_unused(chain, unused)
    assert [each.op for each in chain.nodes] == ["Add", "Relu", "Neg"]
    remove_unused(chain, relu.outputs[0])
    assert node(chain, "Relu") is relu  # an output of the graph
