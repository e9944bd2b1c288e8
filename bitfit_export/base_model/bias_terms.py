"""The definition of a bias term, and the paper's names for them.

A bias term is a parameter whose last name component is `bias` (DeBERTa v1's `q_bias` and `v_bias` count too).
`relative_attention_bias.weight` is an embedding table, not a bias term.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitfit_export.errors import UsageError

__all__ = ["PAPER_NAMES", "is_bias_term", "select_bias_terms"]

_RAW_BIAS_NAMES = frozenset({"bias", "q_bias", "v_bias"})

#: The paper's notation (appendix A.1, table 4) and the ends of the parameter names that it stands for, in BERT and in
#: the families that say it in other words. A model that fuses query, key and value has one term for the three, and one
#: that normalises first has other LayerNorms than the paper's equations: those terms have no name here.
PAPER_NAMES: dict[str, tuple[str, ...]] = {
    "b_q": (
        "attention.self.query.bias",
        "attention.query.bias",  # ALBERT
        "attention.q_lin.bias",  # DistilBERT
        "attention.attn.q.bias",  # MPNet
        "attention.self.q_bias",  # DeBERTa
        "attention.self.query_proj.bias",  # DeBERTa v2, v3
        "attention.q_proj.bias",  # ViT, wav2vec2
    ),
    "b_k": (
        "attention.self.key.bias",
        "attention.key.bias",
        "attention.k_lin.bias",
        "attention.attn.k.bias",
        "attention.self.key_proj.bias",
        "attention.k_proj.bias",
    ),
    "b_v": (
        "attention.self.value.bias",
        "attention.value.bias",
        "attention.v_lin.bias",
        "attention.attn.v.bias",
        "attention.self.v_bias",
        "attention.self.value_proj.bias",
        "attention.v_proj.bias",
    ),
    "b_m1": (
        "attention.output.dense.bias",
        "attention.dense.bias",
        "attention.out_lin.bias",
        "attention.attn.o.bias",
        "attention.o_proj.bias",
        "attention.out_proj.bias",
        "attn.c_proj.bias",  # GPT-2
    ),
    "b_LN1": ("attention.output.LayerNorm.bias", "attention.LayerNorm.bias", "sa_layer_norm.bias"),
    "b_m2": (
        "intermediate.dense.bias",
        "ffn.bias",
        "ffn.lin1.bias",
        "mlp.fc1.bias",
        "feed_forward.intermediate_dense.bias",
        "mlp.c_fc.bias",
    ),
    "b_m3": (
        "output.dense.bias",
        "ffn_output.bias",
        "ffn.lin2.bias",
        "mlp.fc2.bias",
        "feed_forward.output_dense.bias",
        "mlp.c_proj.bias",
    ),
    "b_LN2": ("output.LayerNorm.bias", "full_layer_layer_norm.bias", "output_layer_norm.bias"),
}

# The component that a Hugging Face name has in front of these ends when it means another of the paper's terms:
# `attention.output.dense.bias` ends in `output.dense.bias`, yet is b_m1 and not b_m3.
_NOT_AFTER = {"output.dense.bias": "attention", "output.LayerNorm.bias": "attention"}


def is_bias_term(name: str) -> bool:
    """Returns whether the parameter of this state-dict name is a bias term."""
    return name.rsplit(".", 1)[-1] in _RAW_BIAS_NAMES


def select_bias_terms(names: Iterable[str], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The bias terms among `names`, in their order; only the `wanted` ones where any are given.

    Each wanted word is one of the paper's names (`b_q`, `b_m2`, ...), or a run of whole components of a
    Hugging Face name (`query`, `intermediate`, `attention.output.dense`, `layer.3`), or `all`.

    Raises:
        UsageError: a word that selects nothing.
    """
    terms = tuple(name for name in names if is_bias_term(name))
    if not wanted or "all" in wanted:
        return terms
    chosen: set[str] = set()
    for word in wanted:
        matching = [name for name in terms if _matches(name, word)]
        if not matching:
            raise UsageError(
                f"--bias-terms {word} selects none of the model's {len(terms)} bias terms",
                hint=f"use {', '.join(PAPER_NAMES)}, or components of a parameter name such as query or intermediate",
            )
        chosen.update(matching)
    return tuple(name for name in terms if name in chosen)


def _matches(name: str, word: str) -> bool:
    if word in PAPER_NAMES:
        return any(_ends_with(name, end) for end in PAPER_NAMES[word])
    return f".{word}." in f".{name}."


def _ends_with(name: str, end: str) -> bool:
    if not f".{name}".endswith(f".{end}"):
        return False
    before = name[: -len(end)].rstrip(".").rsplit(".", 1)[-1]
    return before != _NOT_AFTER.get(end)
