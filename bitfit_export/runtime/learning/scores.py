"""Scores of logits, computed with NumPy alone. Higher is better, and the first one decides which epoch is the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["score"]


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


def _f1(predicted: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    total = predicted.sum() + expected.sum()
    return float(2 * (predicted & expected).sum() / total) if total else 0.0


def _pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else 0.0
