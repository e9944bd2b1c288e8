"""The score of a constant answer, and whether a training ever did better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bitfit_export.training import metrics
from bitfit_export.training.examples import Examples
from bitfit_export.training.tasks import TaskSpec

__all__ = ["ConstantRun", "constant_scores", "find_constant_run"]

#: Standard errors by which a score must exceed a constant answer's for the difference not to be chance.
_ERRORS = 2.0
#: Metrics that are 0 for any answer that does not depend on the text, with a standard error of about
#: 1 / sqrt(examples).
_CORRELATIONS = ("matthews_correlation", "pearson", "spearman")


@dataclass(frozen=True)
class ConstantRun:
    """A training that never did clearly better than a constant answer.

    Attributes:
        metric: the task's first one, which chose the best epoch.
        constant: what the best constant answer scores.
        best: what the best epoch scored.
        examples: number of validation examples.
    """

    metric: str
    constant: float
    best: float
    examples: int


def constant_scores(spec: TaskSpec, examples: Examples) -> dict[str, float]:
    """Returns for each of the task's metrics what the best constant answer scores on these examples.

    It is the most frequent label, or for F1 also the positive one; of several labels the most frequent combination or
    all of them; of a regression the mean; of words their most frequent label; of a span an empty text.
    """
    references = _references(spec, examples)
    scores = [
        metrics.compute(spec.metrics, spec.problem_type, answers, references) for answers in _constants(spec, examples)
    ]
    return {name: max(each[name] for each in scores) for name in spec.metrics}


def _references(spec: TaskSpec, examples: Examples) -> Sequence[Any]:
    """The labels in the form in which `metrics` compares them."""
    if spec.problem_type == "token":
        return [[spec.labels[label] for label in labels] for labels in examples.labels]
    if spec.problem_type == "span":
        return [[text for _, text in answers] for answers in examples.labels]
    return examples.labels


def _constants(spec: TaskSpec, examples: Examples) -> Iterator[Sequence[Any]]:
    """The constant answers that may be the best ones."""
    count = len(examples)
    if spec.problem_type == "regression":
        yield [sum(examples.labels) / count] * count
    elif spec.problem_type == "span":
        yield [""] * count
    elif spec.problem_type == "multi_label":
        yield [list(_most_frequent(map(tuple, examples.labels)))] * count
        yield [[1] * len(spec.labels)] * count
    elif spec.problem_type == "token":
        label = spec.labels[_most_frequent(chain.from_iterable(examples.labels))]
        yield [[label] * len(labels) for labels in examples.labels]
    else:
        for label in {_most_frequent(examples.labels), 1}:
            yield [label] * count


def _most_frequent(values: Any) -> Any:
    return Counter(values).most_common(1)[0][0]


def find_constant_run(spec: TaskSpec, examples: Examples, history: Sequence[Mapping[str, float]]) -> ConstantRun | None:
    """Returns what is to be said of a training that no epoch of which was better than a constant answer; None for all
    others.

    Accuracy counts too where the task has it: F1 of a task that is mostly positive hardly exceeds that of "always
    positive", even where the answers are good. Differences that chance explains do not count.
    """
    constant = constant_scores(spec, examples)
    metric = spec.metrics[0]
    count = len(examples) if spec.problem_type != "token" else sum(map(len, examples.labels))
    for name in {metric, "accuracy"} & set(spec.metrics):
        best = max(epoch[name] for epoch in history)
        if best > constant[name] + _ERRORS * _standard_error(name, constant[name], count):
            return None
    return ConstantRun(metric, constant[metric], max(epoch[metric] for epoch in history), len(examples))


def _standard_error(metric: str, score: float, count: int) -> float:
    """Of a correlation that is 0, or of a share."""
    if metric in _CORRELATIONS:
        return 1 / math.sqrt(count)
    return math.sqrt(max(0.0, score * (1 - score)) / count)
