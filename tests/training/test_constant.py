"""A training that is no better than the same answer to every example is found; one that is better is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from bitfit_export.training.constant import constant_scores, find_constant_run
from bitfit_export.training.data import Examples
from bitfit_export.training.tasks import GLUE_TASKS, OWN_METRICS, TaskSpec


def spec(problem_type: str, labels: tuple[str, ...] = ("no", "yes"), metrics: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec("own", problem_type, ("text",), "label", labels, metrics or OWN_METRICS[problem_type])


def examples(labels: list[Any]) -> Examples:
    return Examples([("some text",)] * len(labels), labels)


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (spec("single_label"), [0] * 6 + [1] * 4, {"accuracy": 0.6, "macro_f1": 0.375}),
        (GLUE_TASKS["cola"], [0] * 3 + [1] * 7, {"matthews_correlation": 0.0}),
        # F1 is that of label 1: "always 1" has it, also where 0 is the more frequent label.
        (GLUE_TASKS["mrpc"], [0] * 3 + [1] * 7, {"f1": 14 / 17, "accuracy": 0.7}),
        (GLUE_TASKS["mrpc"], [0] * 7 + [1] * 3, {"f1": 6 / 13, "accuracy": 0.7}),
        (GLUE_TASKS["stsb"], [0.5, 2.0, 4.5], {"spearman": 0.0, "pearson": 0.0}),
        (spec("multi_label"), [[1, 0]] * 3 + [[0, 1]], {"micro_f1": 0.75, "exact_match": 0.75}),
        (
            spec("token", ("B-X", "O"), ("entity_f1", "accuracy")),
            [[1, 1, 1], [0]],
            {"entity_f1": 0.0, "accuracy": 0.75},
        ),
        (spec("span", ("start", "end")), [[(0, "a cat")], [(3, "it")]], {"f1": 0.0, "exact_match": 0.0}),
    ],
)
def test_what_a_constant_answer_scores(task: TaskSpec, labels: list[Any], expected: dict[str, float]) -> None:
    found = constant_scores(task, examples(labels))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


BALANCED = examples([0, 1] * 500)


@pytest.mark.parametrize("accuracies", [[0.5, 0.5, 0.5], [0.5, 0.515], [0.46, 0.49], [0.53]])
def test_a_training_that_never_leaves_it_is_found(accuracies: list[float]) -> None:
    found = find_constant_run(
        spec("single_label"), BALANCED, [{"accuracy": value, "macro_f1": 0.6} for value in accuracies]
    )
    assert found is not None
    assert (found.metric, found.constant, found.best, found.examples) == ("accuracy", 0.5, max(accuracies), 1000)


@pytest.mark.parametrize("accuracies", [[0.5, 0.535], [0.751, 0.5]])
def test_one_epoch_that_is_better_is_enough(accuracies: list[float]) -> None:
    history = [{"accuracy": value, "macro_f1": 0.3} for value in accuracies]
    assert find_constant_run(spec("single_label"), BALANCED, history) is None


@pytest.mark.parametrize(
    ("task", "labels", "scores", "is_constant"),
    [
        # 1,043 examples as CoLA has: two standard errors are 0.062.
        (GLUE_TASKS["cola"], [0] * 322 + [1] * 721, {"matthews_correlation": 0.05}, True),
        (GLUE_TASKS["cola"], [0] * 322 + [1] * 721, {"matthews_correlation": 0.07}, False),
        (GLUE_TASKS["stsb"], [0.0, 1.0] * 750, {"spearman": 0.05, "pearson": 0.3}, True),
        (GLUE_TASKS["stsb"], [0.0, 1.0] * 750, {"spearman": 0.06, "pearson": 0.3}, False),
        # MRPC: "always equivalent" has an F1 of 0.812 and an accuracy of 0.684.
        (GLUE_TASKS["mrpc"], [0] * 129 + [1] * 279, {"f1": 0.82, "accuracy": 0.69}, True),
        (GLUE_TASKS["mrpc"], [0] * 129 + [1] * 279, {"f1": 0.84, "accuracy": 0.76}, False),
        # A rare label: 0.97 is right in every second of the examples where "always 0" is wrong.
        (spec("single_label"), [0] * 940 + [1] * 60, {"accuracy": 0.97, "macro_f1": 0.8}, False),
        (spec("single_label"), [0] * 940 + [1] * 60, {"accuracy": 0.94, "macro_f1": 0.48}, True),
        (spec("token", ("NOUN", "VERB")), [[0, 0, 0, 1]] * 100, {"accuracy": 0.76}, True),
        (spec("token", ("NOUN", "VERB")), [[0, 0, 0, 1]] * 100, {"accuracy": 0.9}, False),
        (spec("span", ("start", "end")), [[(0, "a cat")]] * 10, {"f1": 0.0, "exact_match": 0.0}, True),
        (spec("span", ("start", "end")), [[(0, "a cat")]] * 10, {"f1": 0.2, "exact_match": 0.0}, False),
    ],
)
def test_each_metric_is_compared_with_its_own_constant(
    task: TaskSpec, labels: list[Any], scores: dict[str, float], is_constant: bool
) -> None:
    assert (find_constant_run(task, examples(labels), [scores]) is not None) == is_constant
