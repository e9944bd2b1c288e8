"""Exact match and F1 of answers, as SQuAD's official script has them; the expected values are made by hand."""

from __future__ import annotations

import pytest

from bitfit_export.metrics.squad import answer_f1, exact_match, normalise
from bitfit_export.training.metrics import compute


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("an  apple,\ta day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("24\u201310", "24\u201310"),  # an en dash is no ASCII punctuation, and stays
        ("the", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "reference", "match", "f1"),
    [
        ("Denver Broncos", "the Denver Broncos.", 1.0, 1.0),
        ("Broncos", "Denver Broncos", 0.0, 2 / 3),
        ("red red blue", "red blue blue", 0.0, 2 / 3),  # as bags: one red and one blue are shared
        ("Carolina", "Denver", 0.0, 0.0),
        ("", "Denver", 0.0, 0.0),
    ],
)
def test_one_answer(prediction: str, reference: str, match: float, f1: float) -> None:
    assert exact_match(prediction, reference) == match
    assert answer_f1(prediction, reference) == pytest.approx(f1)


def test_the_best_reference_of_each_question_counts() -> None:
    values = compute(["f1", "exact_match"], "span", ["Santa Clara", "x"], [["Levi's Stadium", "Santa Clara"], ["y"]])
    assert values == {"f1": 0.5, "exact_match": 0.5}
