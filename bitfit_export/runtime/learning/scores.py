"""Scores of logits, computed with NumPy alone. Higher is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfit_export.metrics.agreement import binary_f1, matthews_correlation, pearson, spearman
from bitfit_export.metrics.entities import count_entities, marks_entities
from bitfit_export.metrics.squad import answer_f1, best_over, exact_match

__all__ = ["metric_names", "score", "score_answers", "score_words"]


def metric_names(problem_type: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the scores of a task, in the order in which they are computed.

    The first one is that by which `bitfit-train` chooses the best epoch of such a task by default.
    """
    if problem_type == "single_label":
        return ("accuracy", "f1", "matthews_correlation") if len(labels) == 2 else ("accuracy",)
    if problem_type == "token":
        return ("entity_f1", "accuracy") if marks_entities(labels) else ("accuracy",)
    return {"multi_label": ("micro_f1",), "regression": ("spearman", "pearson"), "span": ("f1", "exact_match")}[
        problem_type
    ]


def score(problem_type: str, logits: NDArray[np.float32], labels: Sequence[Any]) -> dict[str, float]:
    """Returns the scores of a sentence task by their names, those of `metric_names`.

    `f1` is that of the second of two labels. A correlation is 0 where it is not defined.

    Args:
        logits: [examples, labels].
    """
    if problem_type == "regression":
        found, values = logits[:, 0].astype(np.float64), np.asarray(labels, np.float64)
        return {"spearman": spearman(found, values), "pearson": pearson(found, values)}
    if problem_type == "multi_label":
        return {"micro_f1": binary_f1(logits > 0, np.asarray(labels) == 1)}
    predicted, expected = logits.argmax(-1), np.asarray(labels)
    scores = {"accuracy": float(np.mean(predicted == expected))}
    if logits.shape[1] != 2:
        return scores
    second = predicted == 1, expected == 1
    return scores | {"f1": binary_f1(*second), "matthews_correlation": matthews_correlation(*second)}


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
