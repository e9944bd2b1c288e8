"""What a bias term is, and the paper's names for them.

A bias term is a parameter whose last name component is `bias` (DeBERTa v1's `q_bias` and `v_bias` count too).
`relative_attention_bias.weight` is an embedding table, not a bias term.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitfit_export.errors import UsageError

__all__ = ["PAPER_NAMES", "is_bias_term", "select_bias_terms"]

_RAW_BIAS_NAMES = frozenset({"bias", "q_bias", "v_bias"})

#: The paper's notation (appendix A.1, table 4) and the ends of the parameter names that it stands for.
PAPER_NAMES: dict[str, tuple[str, ...]] = {
    "b_q": ("attention.self.query.bias",),
    "b_k": ("attention.self.key.bias",),
    "b_v": ("attention.self.value.bias",),
    "b_m1": ("attention.output.dense.bias",),
    "b_LN1": ("attention.output.LayerNorm.bias",),
    "b_m2": ("intermediate.dense.bias",),
    "b_m3": ("output.dense.bias",),
    "b_LN2": ("output.LayerNorm.bias",),
}

# The component that a Hugging Face name has in front of these ends when it means another of the paper's terms:
# `attention.output.dense.bias` ends in `output.dense.bias`, yet is b_m1 and not b_m3.
_NOT_AFTER = {"output.dense.bias": "attention", "output.LayerNorm.bias": "attention"}


def is_bias_term(name: str) -> bool:
    """Whether the parameter of this state-dict name is a bias term."""
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
