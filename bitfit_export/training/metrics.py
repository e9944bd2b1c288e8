"""The metrics by which a task is judged, computed with scikit-learn and SciPy where these have them.

Every metric is a pure function of (predictions, references), one of each for an example, and by problem type these are

- single_label: label ids;
- multi_label: a 0 or a 1 for each label;
- regression: numbers;
- token: label names for each word, None for a word without a prediction, which is an error;
- span: a text, and the texts that are right.

Higher is better for all of them, and 1 is perfect.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.metrics.entities import count_entities
from bitfit_export.metrics.squad import answer_f1, best_over, exact_match

__all__ = ["METRICS", "compute"]

_Values = Any  # a sequence or an array; what it holds depends on the problem type, see above


def compute(
    metric_names: Sequence[str], problem_type: str, predictions: _Values, references: _Values
) -> dict[str, float]:
    """Each named metric's value, in the order of the names.

    `predictions` and `references` are of the same length and not empty. `f1` of a classification is that of the
    positive class, id 1. A correlation that is not defined, because all predictions or all references are the same,
    is 0.0: a model that always answers the same has learnt nothing.

    Raises UsageError for a name that is unknown or belongs to the other problem type, for lengths that differ and
    for no examples; MissingExtraError where scikit-learn or SciPy is missing.
    """
    for name in metric_names:
        _check_name(name, problem_type)
    if len(predictions) != len(references):
        raise UsageError(f"{len(predictions)} predictions for {len(references)} references; expected as many")
    if len(references) == 0:
        raise UsageError("no examples to compute a metric of; expected one at least")
    return {name: METRICS[problem_type][name](predictions, references) for name in metric_names}


def _check_name(name: str, problem_type: str) -> None:
    if problem_type not in METRICS:
        raise UsageError(f"unknown problem type {problem_type!r}; expected {' or '.join(METRICS)}")
    if name not in METRICS[problem_type]:
        known = ", ".join(METRICS[problem_type])
        raise UsageError(f"unknown metric {name!r} for problem type {problem_type}; expected one of {known}")


def _accuracy(predictions: _Values, references: _Values) -> float:
    return float(_sklearn().accuracy_score(references, predictions))


def _f1(predictions: _Values, references: _Values) -> float:
    # labels= and average="macro" over that one class, not average="binary", which refuses a third class that a
    # example may have been given. zero_division: no positives anywhere is 0, as scikit-learn has it, but in silence.
    return float(_sklearn().f1_score(references, predictions, labels=[1], average="macro", zero_division=0.0))


def _macro_f1(predictions: _Values, references: _Values) -> float:
    return float(_sklearn().f1_score(references, predictions, average="macro", zero_division=0.0))


def _micro_f1(predictions: _Values, references: _Values) -> float:
    return float(_sklearn().f1_score(references, predictions, average="micro", zero_division=0.0))


def _matthews_correlation(predictions: _Values, references: _Values) -> float:
    return _finite_or_zero(_sklearn().matthews_corrcoef(references, predictions))


def _pearson(predictions: _Values, references: _Values) -> float:
    return _correlation("pearsonr", predictions, references)


def _spearman(predictions: _Values, references: _Values) -> float:
    return _correlation("spearmanr", predictions, references)


def _correlation(function: str, predictions: _Values, references: _Values) -> float:
    if len(references) < 2:
        return 0.0  # SciPy refuses one example; a correlation of one point is as undefined as that of a constant
    stats = _scipy_stats()
    with warnings.catch_warnings():
        # The two warnings say that the correlation is not defined; the 0.0 below is our answer to that.
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return _finite_or_zero(getattr(stats, function)(predictions, references).statistic)


def _finite_or_zero(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0


def _word_accuracy(predictions: _Values, references: _Values) -> float:
    pairs = [pair for both in zip(predictions, references, strict=True) for pair in zip(*both, strict=True)]
    return float(np.mean([found == expected for found, expected in pairs]))


def _entity_precision(predictions: _Values, references: _Values) -> float:
    right, predicted, _ = count_entities(predictions, references)
    return right / predicted if predicted else 0.0


def _entity_recall(predictions: _Values, references: _Values) -> float:
    right, _, there = count_entities(predictions, references)
    return right / there if there else 0.0


def _entity_f1(predictions: _Values, references: _Values) -> float:
    right, predicted, there = count_entities(predictions, references)
    return 2 * right / (predicted + there) if right else 0.0


def _answers_match(predictions: _Values, references: _Values) -> float:
    return best_over(exact_match, predictions, references)


def _answers_f1(predictions: _Values, references: _Values) -> float:
    return best_over(answer_f1, predictions, references)


def _sklearn() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    return metrics


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    return stats


METRICS: dict[str, dict[str, Callable[[_Values, _Values], float]]] = {
    "single_label": {
        "accuracy": _accuracy,
        "f1": _f1,
        "macro_f1": _macro_f1,
        "matthews_correlation": _matthews_correlation,
    },
    # scikit-learn's accuracy of several labels is the share of examples whose labels are all right.
    "multi_label": {"micro_f1": _micro_f1, "macro_f1": _macro_f1, "exact_match": _accuracy},
    "regression": {"pearson": _pearson, "spearman": _spearman},
    "token": {
        "accuracy": _word_accuracy,
        "entity_f1": _entity_f1,
        "entity_precision": _entity_precision,
        "entity_recall": _entity_recall,
    },
    "span": {"f1": _answers_f1, "exact_match": _answers_match},
}
"""The metrics of each problem type, by name."""
