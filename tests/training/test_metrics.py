"""Metrics against values computed by hand from their definitions."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest

from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.training.metrics import METRICS, compute

PREDICTIONS = [1, 1, 1, 0, 0, 1, 0, 0, 1, 0]
REFERENCES = [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
# Of which: true positives 3, false positives 2, false negatives 1, true negatives 4.
TP, FP, FN, TN = 3, 2, 1, 4


def one(name: str, predictions, references, problem_type: str = "single_label") -> float:
    return compute([name], problem_type, predictions, references)[name]


def test_accuracy() -> None:
    assert one("accuracy", PREDICTIONS, REFERENCES) == pytest.approx((TP + TN) / 10)


def test_f1_is_that_of_label_1() -> None:
    assert one("f1", PREDICTIONS, REFERENCES) == pytest.approx(2 * TP / (2 * TP + FP + FN))


def test_macro_f1_is_the_mean_over_labels() -> None:
    positive, negative = 2 * TP / (2 * TP + FP + FN), 2 * TN / (2 * TN + FN + FP)
    assert one("macro_f1", PREDICTIONS, REFERENCES) == pytest.approx((positive + negative) / 2)


def test_macro_f1_of_three_labels() -> None:
    # Label 0: precision 1/2, recall 1; label 1: 0; label 2: precision 1, recall 1.
    assert one("macro_f1", [0, 0, 2], [0, 1, 2]) == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_matthews_correlation() -> None:
    expected = (TP * TN - FP * FN) / math.sqrt((TP + FP) * (TP + FN) * (TN + FP) * (TN + FN))
    assert one("matthews_correlation", PREDICTIONS, REFERENCES) == pytest.approx(expected)


def pearson_by_hand(xs, ys) -> float:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / math.sqrt(sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys))


def test_pearson() -> None:
    xs, ys = [0.5, 1.0, 4.0, 3.5, 2.0], [0.0, 2.0, 5.0, 3.0, 2.5]
    assert one("pearson", xs, ys, "regression") == pytest.approx(pearson_by_hand(xs, ys))


def test_spearman_without_ties() -> None:
    # Ranks 1 2 5 4 3 and 1 3 5 4 2, so the squared differences sum to 2; rho = 1 - 6*2 / (5*(25-1)).
    xs, ys = [0.5, 1.0, 4.0, 3.5, 2.0], [0.0, 2.5, 5.0, 3.0, 2.0]
    assert one("spearman", xs, ys, "regression") == pytest.approx(1 - 12 / 120)


def test_spearman_gives_ties_their_mean_rank() -> None:
    # The two 2.0 share the ranks 2 and 3.
    xs, ys = [1.0, 2.0, 2.0, 9.0], [3.0, 1.0, 2.0, 4.0]
    expected = pearson_by_hand([1, 2.5, 2.5, 4], [3, 1, 2, 4])
    assert one("spearman", xs, ys, "regression") == pytest.approx(expected)


def test_spearman_sees_order_only() -> None:
    xs = [0.1, 0.4, 0.2, 3.0]
    assert one("spearman", [math.exp(x) for x in xs], xs, "regression") == pytest.approx(1.0)
    assert one("spearman", [-x for x in xs], xs, "regression") == pytest.approx(-1.0)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(("predictions", "references"), [([2.0] * 3, [1.0, 2.0, 3.0]), ([1.0, 2.0], [4.0, 4.0])])
def test_correlation_with_a_constant_is_zero_and_silent(name: str, predictions, references) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one(name, predictions, references, "regression") == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlation_of_one_example_is_zero(name: str) -> None:
    assert one(name, [1.0], [1.0], "regression") == 0.0


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy", 0.5), ("f1", 0.0), ("macro_f1", 1 / 3), ("matthews_correlation", 0.0)]
)
def test_a_model_that_always_answers_0(name: str, expected: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one(name, [0, 0, 0, 0], [0, 1, 0, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS["single_label"])
def test_perfect_predictions_give_1(name: str) -> None:
    assert one(name, REFERENCES, REFERENCES) == pytest.approx(1.0)


def test_order_is_that_of_the_names_and_arrays_are_taken() -> None:
    values = compute(["f1", "accuracy"], "single_label", np.array(PREDICTIONS), np.array(REFERENCES))
    assert list(values) == ["f1", "accuracy"]
    assert all(type(value) is float for value in values.values())
    assert values == compute(["f1", "accuracy"], "single_label", PREDICTIONS, REFERENCES)


@pytest.mark.parametrize(
    ("names", "problem_type", "examples", "message"),
    [
        (["bleu"], "single_label", ([1], [1]), "unknown metric 'bleu'.*accuracy, f1, macro_f1, matthews_correlation"),
        (["accuracy"], "regression", ([1.0], [1.0]), "unknown metric 'accuracy'.*pearson, spearman"),
        (["accuracy"], "ranking", ([1], [1]), "unknown problem type 'ranking'"),
        (["accuracy"], "single_label", ([1, 0], [1]), "2 predictions for 1 references"),
        (["accuracy"], "single_label", ([], []), "no examples"),
    ],
)
def test_bad_arguments(names, problem_type, examples, message) -> None:
    with pytest.raises(UsageError, match=message):
        compute(names, problem_type, *examples)


@pytest.mark.parametrize(
    ("name", "problem_type", "module", "package"),
    [("accuracy", "single_label", "sklearn", "scikit-learn"), ("pearson", "regression", "scipy", "scipy")],
)
def test_missing_extra(monkeypatch, name, problem_type, module, package) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"(?s){package}.*train"):
        compute([name], problem_type, [1, 0], [1, 0])
