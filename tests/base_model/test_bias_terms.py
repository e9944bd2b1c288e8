"""What counts as a bias term, and how terms are chosen by the paper's names and by Hugging Face's."""

from __future__ import annotations

import pytest

from bitfit_export.base_model.bias_terms import PAPER_NAMES, is_bias_term, select_bias_terms
from bitfit_export.errors import UsageError
from tests.families import tiny_base

LAYER = [
    f"encoder.layer.0.{name}"
    for name in (
        "attention.self.query.weight",
        "attention.self.query.bias",
        "attention.self.key.bias",
        "attention.self.value.bias",
        "attention.output.dense.bias",
        "attention.output.LayerNorm.bias",
        "intermediate.dense.bias",
        "output.dense.bias",
        "output.LayerNorm.bias",
    )
]
NAMES = ["embeddings.LayerNorm.bias", *LAYER, "pooler.dense.bias"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encoder.layer.0.output.dense.bias", True),
        ("encoder.layer.0.attention.self.q_bias", True),
        ("encoder.layer.0.output.dense.weight", False),
        ("encoder.relative_attention_bias.weight", False),
        ("encoder.bias.weight", False),
    ],
)
def test_a_bias_term_is_known_by_its_last_component(name: str, expected: bool) -> None:
    assert is_bias_term(name) is expected


def test_all_bias_terms_are_chosen_in_order_unless_some_are_wanted() -> None:
    assert select_bias_terms(NAMES) == tuple(name for name in NAMES if name.endswith("bias"))
    assert select_bias_terms(NAMES, ["all"]) == select_bias_terms(NAMES)


def test_each_of_the_papers_names_chooses_one_term_a_layer() -> None:
    # Table 4 of the paper: in this order, the eight bias terms of a layer.
    for paper_name, expected in zip(PAPER_NAMES, [n for n in LAYER if n.endswith("bias")], strict=True):
        assert select_bias_terms(NAMES, [paper_name]) == (expected,)


@pytest.mark.parametrize(
    ("family", "lacks"),
    [
        ("roberta", ()),
        ("electra", ()),
        ("distilbert", ()),
        ("albert", ()),
        ("mpnet", ()),
        ("deberta", ("b_k",)),
        ("deberta-v2", ()),
        ("vit", ("b_LN1", "b_LN2")),  # normalises first
        ("wav2vec2", ("b_LN1", "b_LN2")),
        ("gpt2", ("b_q", "b_k", "b_v", "b_LN1", "b_LN2")),  # fuses query, key and value
    ],
)
def test_a_name_of_the_paper_chooses_one_term_a_layer_in_other_families(family: str, lacks: tuple[str, ...]) -> None:
    pytest.importorskip("transformers", reason="needs bitfit-export[export]")
    names = list(tiny_base(family).biases)
    layers = 1 if family == "albert" else 2  # its layers share their parameters
    chosen = []
    for paper_name in PAPER_NAMES:
        if paper_name in lacks:
            with pytest.raises(UsageError):
                select_bias_terms(names, [paper_name])
        else:
            terms = select_bias_terms(names, [paper_name])
            assert len(terms) == layers, (paper_name, terms)
            chosen += terms
    assert len(set(chosen)) == len(chosen)


def test_hugging_face_components_choose_what_contains_them_whole() -> None:
    assert select_bias_terms(NAMES, ["query", "intermediate"]) == (LAYER[1], LAYER[6])
    assert select_bias_terms(NAMES, ["layer.0"]) == tuple(n for n in LAYER if n.endswith("bias"))


def test_a_word_that_chooses_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="--bias-terms quer selects none"):
        select_bias_terms(NAMES, ["quer"])
