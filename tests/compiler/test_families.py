"""Each family of models, from PyTorch to a graph in which every row of a batch has its own biases."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.passes.find_bias_sites import find_bias_sites
from tests.compiler.by_row import Biases, ByRow
from tests.compiler.refusals import reason_of
from tests.compiler.traced import canonical_graph
from tests.families import FAMILIES, SAME_GRAPHS, quick_first, tiny_base
from tests.traces import traced

TOLERANCE = 1e-4
LONGEST = 33

_BERT_LIKE = FAMILIES["bert"]
#: A second layer would repeat the first one's graph.
_ONE_LAYER = _BERT_LIKE | {"num_hidden_layers": 1}
#: Families that the compiler has no word about, and settings that change a family's graph.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip_text_model": ("clip_text_model", _ONE_LAYER),
    "convbert": ("convbert", {**_ONE_LAYER, "embedding_size": 32, "conv_kernel_size": 3}),
    "deberta with a norm of its table": ("deberta", {"norm_rel_ebd": "layer_norm", "num_hidden_layers": 1}),
    "deberta without relative attention": (
        "deberta",
        {"relative_attention": False, "position_biased_input": True, "num_hidden_layers": 1},
    ),
    "deberta-v2 with token types": ("deberta-v2", {"type_vocab_size": 2, "embedding_size": 16, "num_hidden_layers": 1}),
    "dinov2": ("dinov2", {**_ONE_LAYER, "image_size": 16, "patch_size": 4}),
    "nystromformer": ("nystromformer", {**_ONE_LAYER, "num_landmarks": 4, "segment_means_seq_len": 4}),
    "qwen2": ("qwen2", {**_ONE_LAYER, "num_key_value_heads": 2}),
    "roformer": ("roformer", {**_ONE_LAYER, "embedding_size": 32}),
    "squeezebert": (
        "squeezebert",
        {**_ONE_LAYER, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2}
        | {"intermediate_groups": 2, "output_groups": 2},
    ),
    "wav2vec2 that norms layers": ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
}


def feeds_of(base: BaseModel, batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs. Each row of text but the first is shorter than the one before."""
    random = np.random.default_rng(seed)
    config: Any = base.module.config
    if base.modality == "image":
        size = (batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": random.normal(size=size).astype(np.float32)}
    if base.modality == "audio":
        return {"input_values": random.normal(size=(batch, 100 + 10 * length)).astype(np.float32)}
    ids = random.integers(200, 2000, (batch, length))
    mask = (np.arange(length) < np.maximum(length - 3 * np.arange(batch), 1)[:, None]).astype(np.int64)
    types = random.integers(0, 2, ids.shape)
    feeds = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}
    return {name: feeds[name] for name in base.input_names}


def random_biases(base: BaseModel, seed: int) -> Biases:
    random = np.random.default_rng(seed)
    return {n: b + random.normal(0, 0.3, b.shape).astype(np.float32) for n, b in base.biases.items()}


def pytorch_outputs(base: BaseModel, feeds: dict[str, np.ndarray], biases: Biases) -> dict[str, np.ndarray]:
    """What the PyTorch model gives with these biases."""
    module = copy.deepcopy(base.module)
    state = module.state_dict()
    with torch.no_grad():
        for name, value in biases.items():
            state[name].copy_(torch.from_numpy(value))
        outputs = module(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    return {name: value.numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def assert_rows_are_pytorchs(base: BaseModel, lifted: ByRow, feeds: dict[str, np.ndarray], rows: list[Biases]) -> None:
    """Row i of every output is PyTorch's with the biases of row i, at every token that the mask keeps."""
    got = lifted.run(feeds, rows)
    batch = len(next(iter(feeds.values())))
    kept = feeds.get("attention_mask")
    for row in range(batch):
        expected = pytorch_outputs(base, feeds, rows[row if len(rows) > 1 else 0])
        tokens = slice(None) if kept is None else kept[row] > 0
        hidden = expected["last_hidden_state"][row][tokens]
        np.testing.assert_allclose(got["last_hidden_state"][row][tokens], hidden, atol=TOLERANCE)
        if "pooler_output" in expected:
            np.testing.assert_allclose(got["pooler_output"][row], expected["pooler_output"][row], atol=TOLERANCE)


def check_family(base: BaseModel) -> ByRow:
    lifted = ByRow(canonical_graph(base), base.biases)
    assert not lifted.constants & set(base.biases)
    tasks = [random_biases(base, seed) for seed in range(4)]
    shortest = 1 if base.modality == "text" else 5
    for batch, length, rows in ((4, 11, tasks), (3, LONGEST, tasks[:1]), (1, 6, tasks[1:2]), (2, shortest, tasks[2:])):
        assert_rows_are_pytorchs(base, lifted, feeds_of(base, batch, length), rows)
    return lifted


@pytest.mark.parametrize("family", quick_first(list(FAMILIES)))
def test_each_row_of_a_batch_has_its_own_biases(family: str) -> None:
    check_family(tiny_base(family))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "same"), SAME_GRAPHS.items())
def test_families_with_the_same_graph(family: str, same: str) -> None:
    """Node by node; so a pass that is tested with one of them is tested with the other."""
    found, expected = (nodes_of(traced(tiny_base(each))) for each in (family, same))
    assert len(expected) > 100
    assert found == expected


def nodes_of(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    """The nodes without the names of Python's classes, which the exporter notes beside them."""
    return [
        (node.op_type, *node.input, *node.output, *(each.SerializeToString() for each in node.attribute))
        for node in model.graph.node
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "config"), OTHERS.values(), ids=OTHERS)
def test_families_that_nobody_listed_work(family: str, config: dict[str, Any]) -> None:
    check_family(tiny_base(family, **config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "value"), [("bert", 0.0), ("bert", 0.5), ("deberta-v2/v3", 0.0), ("gpt2", 0.5), ("wav2vec2", 0.0)]
)
def test_biases_that_are_equal_in_the_base_stay_apart(family: str, value: float) -> None:
    base = tiny_base(family)
    for name in base.biases:
        base.module.get_parameter(name).fill_(value)
    equal = dataclasses.replace(base)
    assert {float(each.min()) for each in equal.biases.values()} == {value}
    check_family(equal)


@pytest.mark.slow
def test_layers_that_share_a_bias_share_its_values() -> None:
    albert = check_family(tiny_base("albert"))
    ffn = [site for site in albert.sites if site.name.endswith(".ffn.bias")]
    assert len(ffn) == 2  # one use in each of the two layers


@pytest.mark.slow
def test_a_bias_with_two_names_is_one_term() -> None:
    base = tiny_base("bert")
    first, second = (layer.output.dense for layer in base.module.encoder.layer)
    second.bias = first.bias
    tied = dataclasses.replace(base)
    assert [name for name in tied.biases if name.endswith("1.output.dense.bias")] == []
    assert len([site for site in check_family(tied).sites if site.name == "encoder.layer.0.output.dense.bias"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("family", "linear_layers"), [("modernbert", 4), ("llama", 7)])
def test_added_biases_are_bias_terms_like_others(family: str, linear_layers: int) -> None:
    lifted = check_family(tiny_base(family, add_biases=True, pad_token_id=0, **_BERT_LIKE))
    assert len(lifted.names) == 2 * linear_layers


REFUSED = {
    "rows that windows cut": (
        "swin",
        {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [1, 1]}
        | {"num_heads": [2, 2], "window_size": 2},
        "is 16*batch, expected the batch",
    ),
    "tokens without rows": (
        "opt",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
        | {"max_position_embeddings": 64, "word_embed_proj_dim": 32},
        r"is batch\*sequence, expected the batch",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_bias_that_meets_no_batch_is_refused_by_row_only(family: str, config: dict[str, Any], reason: str) -> None:
    base = tiny_base(family, **config)
    graph = canonical_graph(base)
    refused = find_bias_sites(graph, base.biases)
    assert re.search(reason.replace("16*", r"16\*"), reason_of(refused))
    assert "--layout packed" in str(refused)
    assert {site.name for site in find_bias_sites(graph, base.biases, by_row=False)} == set(base.biases)


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    family=st.sampled_from(["bert", "roberta", "distilbert"]),
    layers=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 3]),
    head_size=st.sampled_from([4, 5]),
    inner=st.sampled_from([1, 16, 30]),
    activation=st.sampled_from(["gelu", "relu", "gelu_new", "silu"]),
    constant=st.lists(st.tuples(st.integers(0, 15), st.sampled_from([0.0, 0.25])), max_size=8),
    seed=st.integers(0, 9),
)
def test_any_configuration_gives_each_row_its_own_biases(
    family: str,
    layers: int,
    heads: int,
    head_size: int,
    inner: int,
    activation: str,
    constant: list[tuple[int, float]],
    seed: int,
) -> None:
    hidden = heads * head_size
    config: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": activation,
    }
    if family == "distilbert":
        names = ("dim", "n_layers", "n_heads", "hidden_dim", "activation")
        config = dict(zip(names, config.values(), strict=True))
    base = tiny_base(family, seed, **config)
    names = list(base.biases)
    for index, value in constant:
        base.module.get_parameter(names[index % len(names)]).fill_(value)
    check_family(dataclasses.replace(base))
