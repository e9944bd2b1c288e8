"""The table of GLUE tasks, and the spec of a task of one's own."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from bitfit_export.errors import DataError, UsageError
from bitfit_export.training import metrics
from bitfit_export.training.tasks import (
    GLUE_TASKS,
    OWN_METRICS,
    TaskOptions,
    check_options,
    infer_spec,
    is_integer,
    is_number,
    label_name,
)


def test_all_of_glue_is_there() -> None:
    assert sorted(GLUE_TASKS) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
    assert all(name == spec.name for name, spec in GLUE_TASKS.items())


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("cola", ("unacceptable", "acceptable")),
        ("mnli", ("entailment", "neutral", "contradiction")),
        ("mrpc", ("not_equivalent", "equivalent")),
        ("qnli", ("entailment", "not_entailment")),
        ("qqp", ("not_duplicate", "duplicate")),
        ("rte", ("entailment", "not_entailment")),
        ("sst2", ("negative", "positive")),
        ("stsb", ()),
        ("wnli", ("not_entailment", "entailment")),
    ],
)
def test_labels_are_in_the_hub_s_order(task: str, labels: tuple[str, ...]) -> None:
    assert GLUE_TASKS[task].labels == labels


@pytest.mark.parametrize("spec", GLUE_TASKS.values(), ids=lambda spec: spec.name)
def test_specs_hang_together(spec) -> None:
    assert len(spec.columns) in (1, 2)
    assert spec.label_column == "label"
    assert (spec.problem_type == "regression") == (spec.labels == ())
    assert set(spec.metrics) <= metrics.METRICS[spec.problem_type].keys()
    with pytest.raises(FrozenInstanceError):
        spec.name = "other"


def test_metrics_that_choose_the_best_epoch() -> None:
    first = {name: spec.metrics[0] for name, spec in GLUE_TASKS.items()}
    others = {"cola": "matthews_correlation", "mrpc": "f1", "qqp": "f1", "stsb": "spearman"}
    assert first == {name: others.get(name, "accuracy") for name in GLUE_TASKS}


def test_metrics_of_own_tasks_are_known() -> None:
    for problem_type, names in OWN_METRICS.items():
        assert set(names) <= metrics.METRICS[problem_type].keys()


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("own", {"columns": ()}, "expected one or two"),
        ("own", {"columns": ("a", "b", "c")}, "expected one or two"),
        ("own", {"columns": ("a", "a")}, "expected one or two"),
        ("own", {"columns": ("label",)}, "other than the label column"),
        ("own", {"columns": ("a",), "label_column": "a"}, "other than the label column"),
        ("own", {"problem_type": "ranking"}, "unknown problem type 'ranking'"),
        ("own", {"problem_type": "token", "columns": ("a", "b")}, "expected one of words"),
        ("own", {"problem_type": "span", "columns": ("a",)}, "expected question and context"),
        ("own", {"problem_type": "span", "labels": ("a", "b")}, "labels given for a span task"),
        ("own", {"problem_type": "regression", "labels": ("a", "b")}, "labels given for a regression"),
        ("own", {"labels": ("a",)}, "two or more"),
        ("own", {"labels": ("a", "a")}, "all different"),
        ("own", {"labels": ("1", "01")}, "all different"),
        ("own", {"labels": ("a", "")}, "two or more"),
        ("rte", {"problem_type": "regression"}, "has the labels entailment, not_entailment"),
        ("rte", {"labels": ("not_entailment", "entailment")}, "other labels were given"),
        ("stsb", {"problem_type": "single_label"}, "a number as its label"),
    ],
)
def test_options_that_contradict(task: str, options: dict, message: str) -> None:
    given = {"columns": None, "label_column": None, "problem_type": None, "labels": None} | options
    with pytest.raises(UsageError, match=message):
        check_options(task, **given)


def test_options_that_agree_with_glue() -> None:
    options = check_options("rte", ["a", "b"], "gold", "single_label", ["entailment", "not_entailment"])
    assert options == TaskOptions(("a", "b"), "gold", "single_label", ("entailment", "not_entailment"))


def infer(values, **options):
    return infer_spec("own", TaskOptions(**options), ("sentence",), "label", values, "train.csv")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([10, 9, 2], ("2", "9", "10")),
        (["10", "9", "2"], ("2", "9", "10")),
        ([0, 1], ("0", "1")),
    ],
)
def test_labels_are_inferred_in_sorted_order(values, labels) -> None:
    spec = infer(values)
    assert (spec.problem_type, spec.labels, spec.metrics) == ("single_label", labels, OWN_METRICS["single_label"])


@pytest.mark.parametrize("values", [[0.5, 1.5], [1, 2.0], ["0.5", "1"], ["1e0", "2"]])
def test_a_fraction_makes_a_regression(values) -> None:
    spec = infer(values)
    assert (spec.problem_type, spec.labels, spec.metrics) == ("regression", (), OWN_METRICS["regression"])


def test_given_options_win_over_inference() -> None:
    assert infer([1, 2], problem_type="regression").problem_type == "regression"
    assert infer(["a", "b"], labels=("c", "b", "a")).labels == ("c", "b", "a")
    assert infer(["0.5", "1.5"], labels=("1.5", "0.5")).labels == ("1.5", "0.5")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1, 1], {}, "one label only, '1'"),
        (["", "a"], {}, "the label ''; expected names without control characters"),
        (["a\tb", "a"], {"labels": ("a", "a\tb")}, "the label 'a\\\\tb'; expected names"),
        ([-1, 1], {}, "the label -1, which often marks an example without a label"),
        ([0.5, 1], {"problem_type": "single_label"}, "the label 0.5; expected names or whole numbers"),
    ],
)
def test_labels_that_are_no_classes(values, options, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        infer(values, **options)
    assert "train.csv" in caught.value.message


@pytest.mark.parametrize(
    ("text", "integer", "number"),
    [
        ("0", True, True),
        ("-12", True, True),
        ("+3", True, True),
        ("9" * 18, True, True),
        ("9" * 19, False, True),
        ("3.", False, True),
        (".5", False, True),
        ("-1.5e-3", False, True),
        ("", False, False),
        (".", False, False),
        ("1_0", False, False),
        (" 1", False, False),
        ("nan", False, False),
        ("inf", False, False),
        ("\u0661", False, False),  # a digit, but no ASCII one
        ("1\n", False, False),
    ],
)
def test_numbers_in_text(text: str, integer: bool, number: bool) -> None:
    assert (is_integer(text), is_number(text)) == (integer, number)


def test_one_label_has_one_name() -> None:
    assert label_name(1) == label_name("1") == label_name("01") == label_name("+1") == "1"
    assert label_name("one") == "one"
    assert label_name(1.0) == "1.0"
