"""The last layer computes the first token alone, where nothing reads another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from bitfit_export.compiler.passes.slice_first_token import slice_first_token  # noqa: E402
from tests import traces  # noqa: E402

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

SHAPE = ["batch", "sequence", 6]


def run(graph: gs.Graph, **feeds: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in names})


def constant(name: str, *values: int) -> gs.Constant:
    return gs.Constant(name, np.array(values))


def take(tensor: gs.Tensor, index: int, name: str = "token") -> tuple[gs.Node, gs.Variable]:
    """The node that reads one token [batch, n] of a tensor [batch, sequence, n], and its output."""
    out = gs.Variable(name, np.float32)
    return gs.Node(
        "Gather", f"{name}/take", {"axis": 1}, [tensor, gs.Constant(f"{name}/at", np.array(index))], [out]
    ), out


@pytest.fixture(scope="module")
def traced(tiny_base: BaseModel) -> bytes:
    return traces.traced(tiny_base).SerializeToString()


def encoder(traced: bytes) -> tuple[gs.Graph, gs.Tensor]:
    """The traced encoder without outputs, and its last hidden state."""
    import onnx

    graph = gs.import_onnx(onnx.ModelProto.FromString(traced))
    hidden = next(each for each in graph.outputs if each.name == "last_hidden_state")
    graph.outputs = []
    return graph, hidden


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(1000, 2000, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (np.arange(9) > 4) * np.ones_like(ids)}


def first_vectors(base: BaseModel, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return base.module(**{name: torch.from_numpy(value) for name, value in batch.items()})[0][:, 0].numpy()


def test_the_first_token_is_the_one_that_pytorch_computes(
    traced: bytes, tiny_base: BaseModel, batch: dict[str, np.ndarray]
) -> None:
    graph, hidden = encoder(traced)
    node, token = take(hidden, 0)
    graph.nodes.append(node)
    graph.outputs = [token]
    assert slice_first_token(graph) > 0
    (found,) = run(graph, **batch)
    np.testing.assert_allclose(found, first_vectors(tiny_base, batch), atol=1e-5)


def test_only_the_last_layers_feed_forward_loses_its_other_tokens(traced: bytes, batch: dict[str, np.ndarray]) -> None:
    graph, hidden = encoder(traced)
    node, token = take(hidden, 0)
    graph.nodes.append(node)
    graph.outputs = [token]
    slice_first_token(graph)
    activations = [each.outputs[0] for each in graph.nodes if each.op == "Gelu"]
    for each in activations:
        each.dtype = np.float32
    graph.outputs = [token, *activations]
    assert [each.shape for each in run(graph, **batch)[1:]] == [(3, 9, 64), (3, 1, 64)]


def test_a_reader_of_all_tokens_keeps_the_graph_as_it_is(traced: bytes) -> None:
    graph, hidden = encoder(traced)
    node, token = take(hidden, 0)
    mean = gs.Variable("mean", np.float32)
    graph.nodes += [node, gs.Node("ReduceMean", "mean_all", {}, [hidden, constant("axes", 1)], [mean])]
    graph.outputs = [token, mean]
    before = [each.name for each in graph.nodes]
    assert slice_first_token(graph) == 0
    assert sorted(each.name for each in graph.nodes) == sorted(before)


def chain(
    *nodes: tuple[str, Sequence[gs.Tensor], dict[str, object], list[int | str] | None], index: int = 0
) -> gs.Graph:
    """x [batch, sequence, 6] through nodes (operator, other inputs, attributes, shape of result), then one token."""
    tensor = x = gs.Variable("x", np.float32, SHAPE)
    graph = gs.Graph(inputs=[x], opset=20, ir_version=10)
    for number, (op, others, attributes, shape) in enumerate(nodes):
        out = gs.Variable(f"t{number}", np.float32, shape)
        graph.nodes.append(gs.Node(op, f"n{number}", attributes, [tensor, *others], [out]))
        tensor = out
    node, token = take(tensor, index)
    graph.nodes.append(node)
    graph.outputs = [token]
    return graph


RELU: tuple[str, list[gs.Tensor], dict[str, object], list[int | str]] = ("Relu", [], {}, SHAPE)
X = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("graph", "narrowed"),
    [
        (lambda: chain(("Relu", [], {}, SHAPE)), 1),
        (lambda: chain(("Relu", [], {}, SHAPE), index=1), 0),
        (lambda: chain(("Softmax", [], {"axis": -1}, SHAPE)), 1),
        (lambda: chain(("Softmax", [], {"axis": 1}, SHAPE)), 0),
        (lambda: chain(("CumSum", [gs.Constant("axis", np.array(1))], {"reverse": 1}, SHAPE)), 0),
        (lambda: chain(("MatMul", [gs.Constant("w", X[0, :3].T.copy())], {}, None)), 1),
        (lambda: chain(("Add", [gs.Constant("positions", X[0].copy())], {}, ["batch", 5, 6])), 1),
        (lambda: chain(RELU, ("Reshape", [constant("to", 2, 5, 2, 3)], {}, [*SHAPE[:2], 2, 3])), 2),
        (lambda: chain(RELU, ("Reshape", [constant("to", 0, -1, 3)], {}, ["batch", "more", 3])), 0),
        (lambda: chain(RELU, ("Transpose", [], {"perm": [0, 2, 1]}, ["batch", 6, "sequence"])), 2),
        (lambda: chain(("Transpose", [], {"perm": [0, 2, 1]}, ["batch", 6, "sequence"])), 0),
        (lambda: chain(("Sigmoid", [], {}, None)), 0),
    ],
    ids=[
        "elementwise", "another token", "softmax of a token", "softmax over tokens", "sum over tokens", "product",
        "a constant for each token", "heads", "tokens cut up", "transposed", "only moved", "unknown shape",
    ],
)  # fmt: skip
def test_a_rule_narrows_what_it_may_and_never_changes_the_result(graph: object, narrowed: int) -> None:
    before, after = graph(), graph()  # type: ignore[operator]
    assert slice_first_token(after) == narrowed
    np.testing.assert_array_equal(run(after, x=X)[0], run(before, x=X)[0])


def test_a_tensor_whose_shape_is_read_keeps_it() -> None:
    graph = chain(("Relu", [], {}, SHAPE))
    shape = gs.Variable("shape", np.int64, [3])
    graph.nodes.append(gs.Node("Shape", "shape", {}, [graph.nodes[0].outputs[0]], [shape]))
    graph.outputs.append(shape)
    assert slice_first_token(graph) == 0
    assert run(graph, x=X)[1].tolist() == [2, 5, 6]


def test_a_tensor_that_is_an_output_stays_whole() -> None:
    graph = chain(("Relu", [], {}, SHAPE))
    graph.outputs.append(graph.nodes[0].outputs[0])
    assert slice_first_token(graph) == 0
    assert run(graph, x=X)[1].shape == X.shape
