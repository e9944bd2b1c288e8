"""How well predictions agree with what was expected, in NumPy alone; 0 where a metric is not defined."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["binary_f1", "matthews_correlation", "pearson", "spearman"]


def binary_f1(predicted: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Returns the harmonic mean of precision and recall."""
    total = predicted.sum() + expected.sum()
    return float(2 * (predicted & expected).sum() / total) if total else 0.0


def matthews_correlation(predicted: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Returns Pearson's correlation of two answers, each yes or no."""
    return pearson(predicted.astype(np.float64), expected.astype(np.float64))


def spearman(predicted: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Returns Pearson's correlation of the ranks; values that are equal share the mean of theirs."""
    return pearson(_ranks(predicted), _ranks(expected))


def pearson(predicted: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Returns the correlation of two lists of numbers."""
    one, other = predicted - predicted.mean(), expected - expected.mean()
    size = math.sqrt(float(one @ one)) * math.sqrt(float(other @ other))
    return float(one @ other) / size if size else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks
