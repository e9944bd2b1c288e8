"""Sizes are constants or read once, and no node stands twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from bitfit_export.base_model.loading import BaseModel  # noqa: E402
from bitfit_export.compiler.passes.canonicalize_mask import canonicalize_mask  # noqa: E402
from bitfit_export.compiler.passes.canonicalize_shapes import canonicalize_shapes  # noqa: E402
from tests.compiler.graph_runs import assert_pytorchs  # noqa: E402
from tests.compiler.traced import canonical_graph  # noqa: E402
from tests.families import TEXT_GRAPHS, quick_first, tiny_base  # noqa: E402


@pytest.mark.parametrize("family", quick_first(TEXT_GRAPHS))
def test_the_results_are_pytorchs_with_fewer_nodes(family: str) -> None:
    base = tiny_base(family)
    graph = canonical_graph(base)
    canonicalize_mask(graph, base.max_positions)
    before = len(graph.nodes)
    saved = canonicalize_shapes(graph)
    assert saved == before - len(graph.nodes) > 10
    assert_pytorchs(graph, base)


def test_a_bert_reads_one_size_and_reshapes_by_constants(tiny_base: BaseModel) -> None:
    graph = canonical_graph(tiny_base)
    canonicalize_mask(graph, tiny_base.max_positions)
    canonicalize_shapes(graph)
    ops = Counter(node.op for node in graph.nodes)
    assert ops["Shape"] == 1  # of the sequence, for the positions
    assert not {"Concat", "Squeeze", "Identity", "Expand", "Range"} & set(ops)
    targets = {tuple(node.inputs[1].values.tolist()) for node in graph.nodes if node.op == "Reshape"}
    assert targets == {(0, 0, 4, 8), (0, 0, 32)}


def vector(name: str, *values: float) -> gs.Constant:
    return gs.Constant(name, np.array(values, np.float32))


def test_equal_biases_keep_their_own_nodes() -> None:
    x = gs.Variable("x", np.float32, ["batch", "sequence", 2])
    outs = [gs.Variable(name, np.float32, x.shape) for name in ("one", "two")]
    adds = [gs.Node("Add", out.name, {}, [x, vector(f"{out.name}.bias", 0, 0)], [out]) for out in outs]
    total = gs.Variable("total", np.float32, x.shape)
    graph = gs.Graph([*adds, gs.Node("Mul", "mul", {}, outs, [total])], [x], [total], opset=20)
    canonicalize_shapes(graph)
    assert [node.op for node in graph.nodes] == ["Add", "Add", "Mul"]


def test_equal_nodes_become_one_and_a_slice_of_everything_none() -> None:
    x = gs.Variable("x", np.float32, ["batch", "sequence", 2])
    outs = [gs.Variable(name, np.float32, x.shape) for name in ("one", "two")]
    relus = [gs.Node("Relu", out.name, {}, [x], [out]) for out in outs]
    part, total = gs.Variable("part", np.float32, x.shape), gs.Variable("total", np.float32, x.shape)
    bounds = [gs.Constant(f"bound_{index}", np.array([value])) for index, value in enumerate((0, 2**63 - 1, 1))]
    everything = gs.Node("Slice", "slice", {}, [outs[1], *bounds], [part])
    graph = gs.Graph([*relus, everything, gs.Node("Mul", "mul", {}, [outs[0], part], [total])], [x], [total], opset=20)
    assert canonicalize_shapes(graph) == 2
    assert [node.op for node in graph.nodes] == ["Relu", "Mul"]


def test_a_size_of_zero_that_is_meant_stays() -> None:
    x = gs.Variable("x", np.float32, ["batch", "sequence", 2])
    out = gs.Variable("out", np.float32, [0, 2])
    source = gs.Variable("target", np.int64, [2])
    cast = gs.Node("Cast", "cast", {"to": 7}, [gs.Constant("zero", np.array([0, 2], np.int32))], [source])
    reshape = gs.Node("Reshape", "reshape", {"allowzero": 1}, [x, source], [out])
    graph = gs.Graph([cast, reshape], [x], [out], opset=20)
    canonicalize_shapes(graph)
    assert graph.nodes[-1].attrs["allowzero"] == 1
