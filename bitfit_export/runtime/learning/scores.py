"""Scores of logits, computed with NumPy alone. Higher is better, and the first one decides which epoch is the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfit_export.metrics.entities import count_entities, marks_entities
from bitfit_export.metrics.squad import answer_f1, best_over, exact_match

__all__ = ["score", "score_answers", "score_words"]


def score(problem_type: str, logits: NDArray[np.float32], labels: Sequence[Any]) -> dict[str, float]:
    """Returns the scores of a problem type by their names.

    single_label: `accuracy`, and for two labels `f1` of the second; multi_label: `micro_f1`; regression: `pearson`, 0
    where it is not defined.

    Args:
        logits: [examples, labels].
    """
    if problem_type == "regression":
        return {"pearson": _pearson(logits[:, 0].astype(np.float64), np.asarray(labels, np.float64))}
    if problem_type == "multi_label":
        return {"micro_f1": _f1(logits > 0, np.asarray(labels) == 1)}
    predicted, expected = logits.argmax(-1), np.asarray(labels)
    scores = {"accuracy": float(np.mean(predicted == expected))}
    return scores | ({"f1": _f1(predicted == 1, expected == 1)} if logits.shape[1] == 2 else {})


def score_words(
    labels: Sequence[str], predictions: Sequence[Sequence[str | None]], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Returns the scores of a token task: `entity_f1` where the labels mark entities, and the `accuracy` of its words.

    Args:
        predictions: label names; None for a word without one.
    """
    pairs = [pair for both in zip(predictions, references, strict=True) for pair in zip(*both, strict=True)]
    scores = {"accuracy": sum(found == expected for found, expected in pairs) / len(pairs)}
    if not marks_entities(labels):
        return scores
    right, predicted, there = count_entities(predictions, references)
    return {"entity_f1": 2 * right / (predicted + there) if right else 0.0} | scores


def score_answers(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Returns the scores of a span task, SQuAD's `f1` and `exact_match`, each from 0 to 1."""
    return {"f1": best_over(answer_f1, answers, references), "exact_match": best_over(exact_match, answers, references)}


def _f1(predicted: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    total = predicted.sum() + expected.sum()
    return float(2 * (predicted & expected).sum() / total) if total else 0.0


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else 0.0
