"""Checks of what a caller passes besides arrays and texts: task names, label names, numbers, paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bitfit_export.bundle import TASK_NAME, BiasRow
from bitfit_export.bundle.fields import is_name
from bitfit_export.errors import InputError, UsageError, quoted

__all__ = ["as_names", "as_options", "as_path", "check_labels", "check_name", "check_positive"]

#: The largest number that ONNX Runtime takes for a count, a C int.
_INT_MAX = 2**31 - 1


def as_names(task: str | Sequence[str], *, items: int | None = None) -> list[str]:
    """Task names as a list; a list must have `items` of them, where that is given."""
    if isinstance(task, str):
        return [task]
    if not isinstance(task, Iterable):
        raise InputError(f"the task is {quoted(task)}, expected the name of a loaded task, or a list of names")
    names = list(task)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputError(f"a task is {quoted(wrong[0])}, expected the name of a loaded task")
    if items is not None and len(names) != items:
        raise InputError(f"there are {len(names)} tasks for {items} items, expected one task, or one for each item")
    return names


def as_options(options: Mapping[str, str | int | os.PathLike[str]] | None) -> dict[str, str]:
    """Options of an engine by name, as text.

    Raises:
        UsageError: a name that is not a string, or a value that is neither a string, a number nor a path.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise UsageError(f"engine_options is {quoted(options)}, expected a dictionary of values by name")
    return {name: _as_option(name, value) for name, value in options.items()}


def _as_option(name: str, value: str | int | os.PathLike[str]) -> str:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else str(value) if type(value) is int else None
    if not isinstance(text, str):
        raise UsageError(f"the engine option {name} is {quoted(value)}, expected a string, an integer or a path")
    return text


def as_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path as such; `what` names the argument.

    Raises:
        InputError: it is not one.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise InputError(f"{what} is {quoted(path)}, expected a path")
    return Path(name)


def check_labels(name: str, row: BiasRow, labels: Sequence[str]) -> tuple[str, ...]:
    count = 0 if row.problem_type == "regression" else row.labels
    names = (labels,) if isinstance(labels, str) or not isinstance(labels, Iterable) else tuple(labels)
    if len(names) != count or not all(map(is_name, names)) or len(set(names)) != count:
        raise InputError(f"the labels of {name} are {quoted(list(names))}, expected {count} different names")
    return names


def check_name(name: str) -> str:
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        raise InputError(f"the task name is {quoted(name)}, expected letters, digits, '.', '_' or '-'")
    return name


def check_positive(what: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise UsageError(f"{what} is {quoted(value)}, expected 1 or more")
    if value > _INT_MAX:
        raise UsageError(f"{what} is {quoted(value)}, expected at most {_INT_MAX}")
