"""Correlations and F1 in NumPy are those of SciPy and scikit-learn, with ties and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest

from bitfit_export.metrics.agreement import binary_f1, matthews_correlation, pearson, spearman
from bitfit_export.training.metrics import compute

RANDOM = np.random.default_rng(0)
NUMBERS = {
    "no ties": (RANDOM.normal(size=40), RANDOM.normal(size=40)),
    "ties": (RANDOM.integers(0, 5, 40).astype(float), RANDOM.integers(0, 3, 40).astype(float)),
    "always the same": (np.ones(5), np.arange(5.0)),
    "in the same order": (np.array([1.0, 2, 4, 8]), np.array([0.0, 1, 2, 3])),
}
ANSWERS = {
    "any": (RANDOM.random(50) < 0.7, RANDOM.random(50) < 0.4),
    "all right": (np.array([True, False, True]), np.array([True, False, True])),
    "always yes": (np.ones(4, bool), np.array([True, False, False, True])),
    "never yes": (np.zeros(4, bool), np.zeros(4, bool)),
}


@pytest.mark.parametrize(("predicted", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_correlations_are_scipys(predicted: np.ndarray, expected: np.ndarray) -> None:
    theirs = compute(["spearman", "pearson"], "regression", predicted, expected)
    ours = {"spearman": spearman(predicted, expected), "pearson": pearson(predicted, expected)}
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("predicted", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_agreement_of_two_classes_is_scikit_learns(predicted: np.ndarray, expected: np.ndarray) -> None:
    names = ["f1", "matthews_correlation"]
    theirs = compute(names, "single_label", predicted.astype(int), expected.astype(int))
    ours = {"f1": binary_f1(predicted, expected), "matthews_correlation": matthews_correlation(predicted, expected)}
    assert ours == pytest.approx(theirs, abs=1e-12)
