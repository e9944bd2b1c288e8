"""Entities in BIO tags, and their precision, recall and F1 as CoNLL's evaluation counts them.

A tag is `O` (outside), or a prefix and a type: `B-PER` begins an entity, `I-PER` goes on with one. `E-` (its end) and
`S-` (one of a single word) are taken too. As in CoNLL's script an `I-` after another type, or after nothing, begins an
entity as well, so IOB1, IOB2 and IOBES tags are all read rightly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Entity", "count_entities", "entities_of", "marks_entities"]

#: Its type, its first word and the word after its last.
Entity = tuple[str, int, int]

_TAG = re.compile(r"([BIES])-(.+)")


def marks_entities(labels: Sequence[str]) -> bool:
    """Returns whether a set of labels is one of BIO tags: `O`, and for all others a prefix and a type."""
    return "O" in labels and len(labels) > 1 and all(label == "O" or _TAG.fullmatch(label) for label in labels)


def entities_of(tags: Sequence[str | None]) -> set[Entity]:
    """The entities of one sentence. None, a word without a prediction, is outside of all."""
    found: set[Entity] = set()
    open_type, start = "", 0
    previous = "O"
    for position, tag in enumerate([*tags, "O"]):
        match = _TAG.fullmatch(tag or "O")
        prefix, kind = (match[1], match[2]) if match else ("O", "")
        begins = prefix in ("B", "S") or kind != open_type or previous in ("E", "S")
        if open_type and begins:
            found.add((open_type, start, position))
        if begins:
            open_type, start = kind, position
        previous = prefix
    return found


def count_entities(
    predictions: Sequence[Sequence[str | None]], references: Sequence[Sequence[str]]
) -> tuple[int, int, int]:
    """Returns the numbers of right (type, first and last word), predicted and actual entities, over all sentences."""
    right = predicted = there = 0
    for tags, gold in zip(predictions, references, strict=True):
        found, expected = entities_of(tags), entities_of(gold)
        right += len(found & expected)
        predicted += len(found)
        there += len(expected)
    return right, predicted, there
