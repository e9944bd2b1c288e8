"""The definition of a task: the GLUE tasks' columns, labels in id order and metrics, and how other tasks get them.

The column and label names are those of `nyu-mll/glue` on the Hugging Face hub. The first metric of a task is the
one by which the best epoch is chosen; it is the one that the BitFit paper (Ben Zaken, Ravfogel, Goldberg 2022,
table 1) reports for the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bitfit_export.bundle.fields import is_name
from bitfit_export.errors import DataError, UsageError
from bitfit_export.metrics.entities import marks_entities

__all__ = [
    "ENTITY_METRICS",
    "GLUE_TASKS",
    "OWN_METRICS",
    "PROBLEM_TYPES",
    "SPAN_LABELS",
    "ProblemType",
    "TaskOptions",
    "TaskSpec",
    "check_options",
    "infer_spec",
    "is_integer",
    "is_number",
    "label_name",
]

ProblemType = Literal["single_label", "multi_label", "regression", "token", "span"]

PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)
#: The labels of a span task: each token is scored as the first and as the last one of the answer.
SPAN_LABELS = ("start", "end")


@dataclass(frozen=True)
class TaskSpec:
    """One task: what to read and how to judge it.

    columns:      one or two names of text columns; of a token task the column of words; of a span task question and
                  context
    label_column: the name of the label column; of a span task that of the answers
    labels:       the label names in id order; empty for a regression
    metrics:      names that `metrics.compute` knows; the first one chooses the best epoch
    """

    name: str
    problem_type: ProblemType
    columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]


OWN_METRICS: dict[ProblemType, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1"),
    "multi_label": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("spearman", "pearson"),
    "token": ("accuracy",),
    "span": ("f1", "exact_match"),
}
"""The metrics of a task that is not one of GLUE's."""

ENTITY_METRICS = ("entity_f1", "entity_precision", "entity_recall", "accuracy")
"""The metrics of a token task whose labels mark where entities begin and go on."""


def _classification(
    name: str, columns: tuple[str, ...], labels: tuple[str, ...], metrics: tuple[str, ...] = ("accuracy",)
) -> TaskSpec:
    return TaskSpec(name, "single_label", columns, "label", labels, metrics)


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")

GLUE_TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        _classification("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
        _classification("sst2", ("sentence",), ("negative", "positive")),
        _classification("mrpc", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
        TaskSpec("stsb", "regression", _PAIR, "label", (), ("spearman", "pearson")),
        _classification("rte", _PAIR, _ENTAILMENT),
        _classification("qnli", ("question", "sentence"), _ENTAILMENT),
        _classification("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
        _classification("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        # The one inference task whose ids are the other way round.
        _classification("wnli", _PAIR, ("not_entailment", "entailment")),
    )
}


@dataclass(frozen=True)
class TaskOptions:
    """The user's options of a task; None for an option that was not given. `check_options` makes it."""

    columns: tuple[str, ...] | None = None
    label_column: str | None = None
    problem_type: ProblemType | None = None
    labels: tuple[str, ...] | None = None


#: How many text columns a problem type has, where it is not one or two.
_COLUMN_COUNTS = {"token": ((1,), "one of words"), "span": ((2,), "question and context")}
_NO_LABELS = ("regression", "span")


def check_options(
    task: str,
    columns: Sequence[str] | None,
    label_column: str | None,
    problem_type: str | None,
    labels: Sequence[str] | None,
) -> TaskOptions:
    """The options, once they agree with each other and with what is known of the task; else UsageError."""
    if problem_type is not None and problem_type not in PROBLEM_TYPES:
        raise UsageError(f"unknown problem type {problem_type!r}; expected {' or '.join(PROBLEM_TYPES)}")
    if columns is not None:
        names = {*columns, label_column or "label"}
        allowed, words = _COLUMN_COUNTS.get(problem_type or "", ((1, 2), "one or two"))
        if len(columns) not in allowed or len(names) != len(columns) + 1:
            raise UsageError(f"text columns {', '.join(columns)}; expected {words}, other than the label column")
    if labels is not None:
        if problem_type in _NO_LABELS:
            raise UsageError(f"labels given for a {problem_type} task, which has none of its own")
        if len(labels) < 2 or len({label_name(name) for name in labels}) != len(labels) or "" in labels:
            raise UsageError(f"labels {', '.join(labels)!r}; expected two or more names, all different")
    known = GLUE_TASKS.get(task)
    if known is not None:
        same_labels = labels is None or tuple(labels) == known.labels
        if problem_type not in (None, known.problem_type) or not same_labels:
            what = f"the labels {', '.join(known.labels)}" if known.labels else "a number as its label"
            raise UsageError(f"the GLUE task {task} has {what}, and other labels were given", hint="name the task anew")
    return TaskOptions(
        None if columns is None else tuple(columns),
        label_column,
        problem_type,
        None if labels is None else tuple(labels),
    )


def infer_spec(
    task: str,
    options: TaskOptions,
    columns: tuple[str, ...],
    label_column: str,
    values: Sequence[object],
    where: str,
) -> TaskSpec:
    """The spec of a task that is not one of GLUE's, from the options and the training examples' labels.

    It is a regression where a label is not a whole number (3.5, and 3.0 too), unless the options say otherwise. The
    labels are the options', else those in `values`: names sorted by code point, numbers by value. A token task whose
    labels mark entities is judged by those. `where` names the examples in errors.

    Raises DataError for fewer than two labels, for negative ones, which elsewhere mark examples without one, and for
    fractions that are to be classes.
    """
    problem_type = options.problem_type
    if problem_type is None:
        fractional = options.labels is None and any(_is_fractional(value) for value in values)
        problem_type = "regression" if fractional else "single_label"
    if problem_type in _NO_LABELS:
        labels: tuple[str, ...] = SPAN_LABELS if problem_type == "span" else ()
    else:
        labels = options.labels or _infer_labels(values, where)
        for label in labels:
            if not is_name(label):
                raise DataError(f"{where} has the label {label!r}; expected names without control characters")
    metrics = ENTITY_METRICS if problem_type == "token" and marks_entities(labels) else OWN_METRICS[problem_type]
    return TaskSpec(task, problem_type, columns, label_column, labels, metrics)


def _infer_labels(values: Sequence[object], where: str) -> tuple[str, ...]:
    fractional = next((value for value in values if _is_fractional(value)), None)
    if fractional is not None:
        raise DataError(f"{where} has the label {fractional!r}; expected names or whole numbers")
    names = {label_name(value) for value in values}
    if not names:
        raise DataError(f"{where} has no label at all; expected two or more")
    numeric = all(is_integer(name) for name in names)
    if numeric and min(map(int, names)) < 0:
        raise DataError(
            f"{where} has the label {min(map(int, names))}, which often marks an example without a label",
            hint="leave those examples out, or name all labels in their order: --labels=-1,1",
        )
    if len(names) < 2:
        raise DataError(f"{where} has one label only, {names.pop()!r}; expected two or more")
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _is_fractional(value: object) -> bool:
    if isinstance(value, str):
        return is_number(value) and not is_integer(value)
    return isinstance(value, float)


def is_integer(text: str) -> bool:
    """Returns whether the text is a whole number of at most 18 decimal digits, with or without a sign."""
    return re.fullmatch(r"[+-]?[0-9]{1,18}", text) is not None


def is_number(text: str) -> bool:
    """Returns whether the text is a decimal number, with or without a fraction and an exponent; not `nan` or `inf`."""
    return re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is not None


def label_name(value: object) -> str:
    """A label as a name: `1`, `"1"` and `"01"` are the same one."""
    text = str(value)
    return str(int(text)) if is_integer(text) else text
