"""Attention becomes one kernel where it is plain attention, and its results stay PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from bitfit_export.base_model.loading import BaseModel  # noqa: E402
from bitfit_export.compiler.passes.canonicalize_mask import canonicalize_mask  # noqa: E402
from bitfit_export.compiler.passes.canonicalize_shapes import canonicalize_shapes  # noqa: E402
from bitfit_export.compiler.passes.fuse_attention import fuse_attention  # noqa: E402
from bitfit_export.compiler.passes.merge_projections import merge_projections  # noqa: E402
from tests.compiler.graph_runs import assert_pytorchs, batch, run  # noqa: E402
from tests.compiler.traced import canonical_graph  # noqa: E402
from tests.families import TEXT_GRAPHS, quick_first, tiny_base  # noqa: E402

LAYERS = 2


def canonical(base: BaseModel) -> gs.Graph:
    graph = canonical_graph(base)
    canonicalize_mask(graph, base.max_positions)
    canonicalize_shapes(graph)
    return graph


def kernels(graph: gs.Graph) -> list[gs.Node]:
    return [node for node in graph.nodes if node.op == "MultiHeadAttention"]


@pytest.mark.parametrize("family", quick_first(TEXT_GRAPHS))
def test_the_results_are_pytorchs(family: str) -> None:
    base = tiny_base(family)
    graph = canonical(base)
    # DeBERTa adds what depends on the query and on the distance of the key, and masks with a Where.
    assert fuse_attention(graph) == (0 if family.startswith("deberta") else LAYERS)
    assert_pytorchs(graph, base)


def test_bert_gives_its_mask_of_keys_and_nothing_else(tiny_base: BaseModel) -> None:
    graph = canonical(tiny_base)
    fuse_attention(graph)
    for node in kernels(graph):
        assert len(node.inputs) == 5
        assert node.attrs["num_heads"] == 4
        assert node.attrs["scale"] == pytest.approx(8**-0.5)
        assert node.attrs["mask_filter_value"] == np.finfo(np.float32).min
    assert len({id(node.inputs[4]) for node in kernels(graph)}) == 1
    assert not {"Softmax", "Where"} & {node.op for node in graph.nodes}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "inputs"), [("mpnet", 6), ("gpt2", 6)])
def test_what_is_added_to_the_scores_is_an_input(family: str, inputs: int) -> None:
    graph = canonical(tiny_base(family))
    fuse_attention(graph)
    assert [len(node.inputs) for node in kernels(graph)] == [inputs] * LAYERS


def test_scores_that_something_else_reads_stay(tiny_base: BaseModel) -> None:
    graph = canonical(tiny_base)
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    graph.outputs.append(softmax.outputs[0])
    assert fuse_attention(graph) == LAYERS - 1


@pytest.mark.parametrize("family", quick_first(["bert", "albert", "deberta-v2", "mpnet"]))
def test_merged_projections_have_the_same_results(family: str) -> None:
    base = tiny_base(family)
    graph = canonical(base)
    feeds = batch(9)
    before = run(graph, feeds)
    assert merge_projections(graph) > 0
    np.testing.assert_allclose(run(graph, feeds), before, atol=1e-6)


def test_query_key_and_value_are_one_product(tiny_base: BaseModel) -> None:
    graph = canonical(tiny_base)
    assert merge_projections(graph) == 2 * LAYERS
    split = next(node for node in graph.nodes if node.op == "Split")
    names = [use.inputs[1].name.split(".")[-2] for out in split.outputs for use in out.outputs]
    assert names == ["query", "key", "value"]


@pytest.mark.slow
def test_layers_that_share_weights_share_the_merged_one() -> None:
    graph = canonical(tiny_base("albert"))
    merge_projections(graph)
    merged = {id(node.inputs[1]) for node in graph.nodes if node.op == "MatMul" and "merged" in node.inputs[1].name}
    assert len(merged) == 1
