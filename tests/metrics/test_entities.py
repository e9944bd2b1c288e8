"""Entities are read from tags and counted as CoNLL's evaluation does."""

from __future__ import annotations

import pytest

from bitfit_export.metrics.entities import count_entities, entities_of, marks_entities
from bitfit_export.training.metrics import compute


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("", []),
        ("O O", []),
        ("B-PER", [("PER", 0, 1)]),
        ("O B-PER I-PER O B-LOC", [("PER", 1, 3), ("LOC", 4, 5)]),
        # Two of one type, one right after the other.
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        # I- begins an entity after nothing and after another type: IOB1, and a model's mistakes.
        ("I-PER I-PER O I-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        # IOBES.
        ("S-PER B-LOC I-LOC E-LOC S-LOC", [("PER", 0, 1), ("LOC", 1, 4), ("LOC", 4, 5)]),
        ("E-PER I-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        # A type may have a hyphen.
        ("B-work-of-art I-work-of-art", [("work-of-art", 0, 2)]),
    ],
)
def test_entities_of_tags(tags: str, entities: list[tuple[str, int, int]]) -> None:
    assert entities_of(tags.split()) == set(entities)


def test_a_word_without_a_prediction_is_outside() -> None:
    assert entities_of(["B-PER", None, "I-PER"]) == {("PER", 0, 1), ("PER", 2, 3)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("B-LOC", "I-LOC", "O"), True),
        (("O", "S-LOC", "E-LOC"), True),
        (("NOUN", "O", "VERB"), False),
        (("B-LOC", "I-LOC"), False),
        (("O",), False),
        (("O", "B-"), False),
    ],
)
def test_which_labels_mark_entities(labels: tuple[str, ...], expected: bool) -> None:
    assert marks_entities(labels) is expected


PREDICTED = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"], ["O"]]
GOLD = [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "I-LOC"], ["B-PER"]]


def test_counts_are_of_whole_entities_with_their_type() -> None:
    """Right: PER of the first sentence alone. LOC has another type there, and another end in the second sentence."""
    assert count_entities(PREDICTED, GOLD) == (1, 3, 4)


def test_the_metrics_come_from_those_counts() -> None:
    names = ("entity_precision", "entity_recall", "entity_f1", "accuracy")
    values = compute(names, "token", PREDICTED, GOLD)
    assert values == pytest.approx(
        {"entity_precision": 1 / 3, "entity_recall": 1 / 4, "entity_f1": 2 / 7, "accuracy": 4 / 7}
    )


def test_without_entities_the_metrics_are_zero() -> None:
    names = ("entity_precision", "entity_recall", "entity_f1")
    assert compute(names, "token", [["O"]], [["O"]]) == dict.fromkeys(names, 0.0)


def test_a_word_without_a_prediction_is_an_error_for_accuracy() -> None:
    assert compute(["accuracy"], "token", [["X", None], ["Y"]], [["X", "O"], ["Y"]]) == {"accuracy": 2 / 3}
