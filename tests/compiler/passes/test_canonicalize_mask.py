"""What a family computes from its mask becomes the shortest form that is equal, or stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from bitfit_export.base_model.loading import BaseModel  # noqa: E402
from bitfit_export.compiler.passes.canonicalize_mask import canonicalize_mask  # noqa: E402
from tests.compiler.graph_runs import assert_pytorchs  # noqa: E402
from tests.compiler.traced import canonical_graph  # noqa: E402
from tests.families import TEXT_GRAPHS, quick_first, tiny_base  # noqa: E402

#: What a family's mask says, by the name of the form; what is not here says no more than which keys are padding.
FORMS = {
    "deberta": {"pairs"},
    "deberta-v2": {"pairs", "tokens"},
    "deberta-v2/v3": {"pairs"},
    "gpt2": {"causal"},
}
#: Operators of transformers' general mask that NPUs refuse.
REFUSED = {"GatherND", "NonZero"}


@pytest.mark.parametrize("family", quick_first(TEXT_GRAPHS))
def test_every_kind_of_mask_has_the_result_of_pytorch(family: str) -> None:
    base = tiny_base(family)
    graph = canonical_graph(base)
    assert canonicalize_mask(graph, base.max_positions) > 0
    names = {node.name for node in graph.nodes}
    for form in FORMS.get(family, {"keys"}):
        assert any(name.startswith(f"mask/{form}") for name in names)
    assert not REFUSED & {node.op for node in graph.nodes}
    assert_pytorchs(graph, base)


def test_the_mask_of_berts_keys_is_three_nodes(tiny_base: BaseModel) -> None:
    graph = canonical_graph(tiny_base)
    canonicalize_mask(graph, tiny_base.max_positions)
    ops = sorted(node.op for node in graph.nodes if node.name.startswith("mask/"))
    assert ops == ["Cast", "Unsqueeze", "Where"]


def graph_of(*nodes: gs.Node, output: gs.Variable) -> gs.Graph:
    inputs = {id(each): each for node in nodes for each in node.inputs if each.name in ("attention_mask", "scores")}
    return gs.Graph(list(nodes), list(inputs.values()), [output], opset=20, ir_version=10)


def windowed(width: int) -> tuple[gs.Graph, gs.Variable]:
    """Scores whose mask lets a token see the `width` tokens around it, built without a word of the pass."""
    mask = gs.Variable("attention_mask", np.int64, ["batch", "sequence"])
    scores = gs.Variable("scores", np.float32, ["batch", 1, "sequence", "sequence"])
    nodes: list[gs.Node] = []

    def add(op: str, inputs: list[gs.Tensor], dtype: type = np.int64, **attrs: object) -> gs.Variable:
        out = gs.Variable(f"{op}_{len(nodes)}", dtype)
        nodes.append(gs.Node(op, out.name, attrs, inputs, [out]))
        return out

    def number(value: object, dtype: type = np.int64) -> gs.Constant:
        return gs.Constant(f"number_{len(nodes)}_{value}", np.array(value, dtype))

    length = add("Squeeze", [add("Shape", [mask], start=1)])
    at = add("Range", [number(0), length, number(1)])
    distance = add("Abs", [add("Sub", [at, add("Unsqueeze", [at, number([1])])])])
    near = add("Less", [distance, number(width)], np.bool_)
    keys = add("Unsqueeze", [add("Cast", [mask], np.bool_, to=9), number([1, 2])], np.bool_)
    keep = add("And", [near, keys], np.bool_)
    added = add("Where", [keep, number(0, np.float32), number(-1e9, np.float32)], np.float32)
    added.shape = ["batch", 1, "sequence", "sequence"]
    out = gs.Variable("out", np.float32, scores.shape)
    nodes.append(gs.Node("Add", "add", {}, [scores, added], [out]))
    return graph_of(*nodes, output=out), added


@pytest.mark.parametrize(("width", "longest", "shorter"), [(16, 64, False), (64, 64, True), (8, 5000, False)])
def test_a_window_is_lost_only_where_no_text_reaches_beyond_it(width: int, longest: int, shorter: bool) -> None:
    graph, _ = windowed(width)
    assert canonicalize_mask(graph, longest) == shorter


def test_a_mask_that_a_graph_returns_stays() -> None:
    graph, added = windowed(64)
    graph.outputs.append(added)
    assert canonicalize_mask(graph, 64) == 0


def test_a_graph_without_a_mask_stays() -> None:
    scores = gs.Variable("scores", np.float32, ["batch", 4])
    out = gs.Variable("out", np.float32)
    assert canonicalize_mask(graph_of(gs.Node("Relu", "relu", {}, [scores], [out]), output=out), 64) == 0
