"""Logits to what a Hugging Face text-classification pipeline returns."""

from __future__ import annotations

from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from bitfit_export.runtime.table import LoadedTask

__all__ = ["Prediction", "rank_labels"]

FloatArray: TypeAlias = NDArray[np.floating[Any]]


class Prediction(TypedDict, total=False):
    """A label and its probability; a regression has no label, and its score is the value itself."""

    label: str
    score: float


def rank_labels(task: LoadedTask, logits: FloatArray) -> list[Prediction]:
    """The task's labels with their scores, best first; equal scores keep the order of the labels.

    Args:
        logits: [labels] of one text, of a sentence task.

    Returns:
        Softmax probabilities for `single_label`, sigmoids for `multi_label`, the one value for `regression`.
    """
    values = logits.astype(np.float64)
    if task.problem_type == "regression":
        return [{"score": float(values[0])}]
    scores = _sigmoid(values) if task.problem_type == "multi_label" else _softmax(values)
    order = np.argsort(-scores, kind="stable")
    return [{"label": task.labels[index], "score": float(scores[index])} for index in order]


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    halves: NDArray[np.float64] = np.tanh(0.5 * values)
    return 0.5 * (1.0 + halves)
