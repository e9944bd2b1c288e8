"""Checked examples: what a split's columns must hold for each problem type, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfit_export.errors import DataError
from bitfit_export.training.data_files import Table
from bitfit_export.training.tasks import GLUE_TASKS, TaskSpec, is_integer, is_number, label_name

__all__ = ["Examples", "check_columns", "check_label_kinds", "convert", "label_values"]

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: Problem types whose label column holds a list of labels.
_LIST_LABELS = ("multi_label", "token")


@dataclass(frozen=True)
class Examples:
    """One split.

    Attributes:
        texts: for each example one or two texts; of a token task its words; of a span task question and context.
        labels: for each example, by problem type
            single_label: a label id;
            multi_label: a 0 or a 1 for each label;
            regression: a number;
            token: a label id for each word;
            span: the answers, as (first character in the context, text).
    """

    texts: list[tuple[str, ...]]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)


# --- before the labels are known


def check_columns(table: Table, columns: tuple[str, ...], label_column: str, problem_type: str | None) -> None:
    """Each example has every column, and what stands for its label is there and of a type that can be one."""
    expected = (*columns, label_column)
    for number, example in table.examples:
        for name in expected:
            if name not in example:
                raise DataError(
                    f"{table.at(number)} has no column {name!r}; found {', '.join(example)}; "
                    f"needed {', '.join(expected)}",
                    hint="--columns and --label-column name other columns",
                )
        label = example[label_column]
        if problem_type in _LIST_LABELS:
            _check_label_list(table, number, label, label_column)
        elif problem_type != "span":
            _check_label(table, number, label, label_column)


def _check_label_list(table: Table, number: int, labels: object, label_column: str) -> None:
    if not isinstance(labels, list):
        raise DataError(
            f"{table.at(number)}: {label_column!r} is {labels!r}; expected a list of labels",
            hint="lists come from JSON lines or Parquet",
        )
    for label in labels:
        _check_label(table, number, label, label_column)


def _check_label(table: Table, number: int, label: object, label_column: str) -> None:
    if label is None or label == "":
        raise DataError(f"{table.at(number)} has no label; expected a value in {label_column!r}")
    if isinstance(label, bool):
        raise DataError(
            f"{table.at(number)}: the label is the boolean {str(label).lower()}, expected a number or a name",
            hint='write 0 and 1 for false and true, or names such as "no" and "yes"',
        )
    if not isinstance(label, int | float | str):
        raise DataError(f"{table.at(number)}: the label {label!r} is neither a number nor a name")
    if isinstance(label, str):
        _check_characters(table, number, label, "the label")


def label_values(table: Table, label_column: str) -> Iterator[tuple[int, Any]]:
    """Every label with the number of its example; those of a list one by one."""
    for number, example in table.examples:
        value = example[label_column]
        yield from ((number, each) for each in value) if isinstance(value, list) else [(number, value)]


def check_label_kinds(tables: Sequence[Table], label_column: str) -> None:
    """Labels are all numbers or all names, in all splits: a mixture is a broken file, not a task."""
    first: dict[bool, str] = {}
    for table in tables:
        for number, value in label_values(table, label_column):
            first.setdefault(not isinstance(value, str) or is_number(value), f"{value!r} ({table.at(number)})")
    if len(first) == 2:
        raise DataError(
            f"labels of two kinds: {first[True]} and {first[False]}; expected all numbers or all names",
            hint="--labels NAME,NAME,... where all of them are names",
        )


# --- what was read, to texts and labels


def convert(table: Table, spec: TaskSpec) -> Examples:
    """The examples of a table that `check_columns` has passed.

    Raises:
        DataError: with the place of the example, for a text, label or answer that is not what the spec says.
    """
    read_texts = _words if spec.problem_type == "token" else _texts
    texts = [read_texts(table, number, example, spec.columns) for number, example in table.examples]
    read_label = _label_reader(table, spec)
    labels = [
        read_label(number, example[spec.label_column], text)
        for (number, example), text in zip(table.examples, texts, strict=True)
    ]
    return Examples(texts, labels)


_LabelReader = Callable[[int, Any, tuple[str, ...]], Any]


def _label_reader(table: Table, spec: TaskSpec) -> _LabelReader:
    """A function from (example number, label, texts) to what `Examples.labels` has for the problem type."""
    if spec.problem_type == "regression":
        return lambda number, value, _: _regression_label(table, number, value)
    if spec.problem_type == "span":
        return lambda number, value, texts: _answers(table, number, value, texts[1])
    find = _label_finder(table, spec)
    if spec.problem_type == "single_label":
        return lambda number, value, _: find(number, value)

    def find_present(number: int, values: list[object], _: tuple[str, ...]) -> list[int]:
        present = {find(number, value) for value in values}
        return [int(label_id in present) for label_id in range(len(spec.labels))]

    def find_each(number: int, values: list[object], words: tuple[str, ...]) -> list[int]:
        if len(values) != len(words):
            raise DataError(f"{table.at(number)} has {len(words)} words and {len(values)} labels; expected as many")
        return [find(number, value) for value in values]

    return find_present if spec.problem_type == "multi_label" else find_each


def _texts(table: Table, number: int, example: Mapping[str, object], columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_text(table, number, example[name], name) for name in columns)


def _words(table: Table, number: int, example: Mapping[str, object], columns: tuple[str, ...]) -> tuple[str, ...]:
    words = example[columns[0]]
    if not isinstance(words, list) or not words:
        raise DataError(f"{table.at(number)}: {columns[0]!r} is {words!r}; expected a list of words")
    return tuple(_text(table, number, word, columns[0]) for word in words)


def _text(table: Table, number: int, text: object, column: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"{table.at(number)}: {column!r} is {text!r}; expected a string")
    _check_characters(table, number, text, repr(column))
    return text


def _check_characters(table: Table, number: int, text: str, what: str) -> None:
    """JSON can escape half of a surrogate pair, which no tokenizer takes and no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{table.at(number)}: {what} holds a lone surrogate at character {error.start + 1}") from error


def _answers(table: Table, number: int, value: Any, context: str) -> list[tuple[int, str]]:
    """SQuAD's list of {text, answer_start}, or the hub's {text: [...], answer_start: [...]}."""
    try:
        if isinstance(value, Mapping):
            pairs = list(zip(value["answer_start"], value["text"], strict=True))
        else:
            pairs = [(each["answer_start"], each["text"]) for each in value]
        found = [(text, start, context[start : start + len(text)]) for start, text in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{table.at(number)}: the answers are {value!r}; expected a list of objects with text and answer_start"
        ) from error
    if not pairs:
        raise DataError(
            f"{table.at(number)} has no answer; expected one at least",
            hint="leave questions without an answer out; span tasks always answer",
        )
    for text, start, there in found:
        if not text or start < 0 or there != text:
            raise DataError(
                f"{table.at(number)}: the answer {text!r} does not stand at character {start} of the context"
            )
    return pairs


def _regression_label(table: Table, number: int, value: object) -> float:
    if isinstance(value, int | float) or (isinstance(value, str) and is_number(value)):
        # The comparison is false for NaN, and for an int too large for a float it is exact.
        parsed = float(value) if isinstance(value, str) else value
        if abs(parsed) <= _MAX_FLOAT32:
            # The shortest decimal of the float32, so that 3.8 from a text file and from the hub's float32 are equal.
            return float(str(np.float32(parsed)))
    raise DataError(f"{table.at(number)}: the label {value!r} is not a finite number, as a regression's must be")


def _label_finder(table: Table, spec: TaskSpec) -> Callable[[int, object], int]:
    """A function from (example number, label) to the label's id: by name, or by the id itself.

    Where the names are numbers themselves, a number is a name and never an id.
    """
    ids = {label_name(name): label_id for label_id, name in enumerate(spec.labels)}
    if not any(is_integer(name) for name in ids):
        ids |= {str(label_id): label_id for label_id in range(len(spec.labels))}

    def find(number: int, value: object) -> int:
        label_id = ids.get(label_name(value))
        if label_id is not None:
            return label_id
        known = ", ".join(f"{name} ({label_id})" for label_id, name in enumerate(spec.labels))
        hint = None
        if label_name(value) == "-1":
            hint = "-1 marks an example without a label, as in GLUE's test split: use the validation split"
        elif isinstance(value, float):
            hint = "write label ids as whole numbers; --problem-type regression where they are not ids"
        elif spec.name not in GLUE_TASKS:
            hint = "--labels names all of them, those too that no training example has"
        raise DataError(f"{table.at(number)}: the label {value!r} is none of {spec.name}'s labels: {known}", hint=hint)

    return find
