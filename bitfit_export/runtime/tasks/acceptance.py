"""Which tasks a session takes: those that it is asked for, as far as the model can run them, and their label names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitfit_export.bundle import BiasRow, Manifest, TaskRecord
from bitfit_export.bundle.interface import TOKEN_LOGITS
from bitfit_export.errors import InputError, quoted
from bitfit_export.runtime.arguments import as_names
from bitfit_export.runtime.frozen_model import FrozenModel
from bitfit_export.runtime.tasks.task_store import LoadedTask

__all__ = ["check_runs", "choose_records", "default_labels"]


def choose_records(manifest: Manifest, tasks: Sequence[str] | None) -> list[TaskRecord]:
    """Returns the bundle's tasks of these names, each once; by default all of them.

    Raises:
        InputError: the bundle lacks one.
    """
    if tasks is None:
        return list(manifest.tasks.values())
    unknown = [name for name in as_names(tasks) if name not in manifest.tasks]
    if unknown:
        known = ", ".join(sorted(manifest.tasks)) or "none"
        raise InputError(f"the bundle has no task {quoted(unknown[0])}, expected one of {known}")
    return [manifest.tasks[name] for name in dict.fromkeys(as_names(tasks))]


def check_runs(row: BiasRow, name: str, model: FrozenModel) -> None:
    """Check that the model can run a row of its layout: not every graph has every output, or room for every label.

    Raises:
        InputError: it cannot.
    """
    if row.problem_type in ("token", "span") and TOKEN_LOGITS not in model.outputs:
        raise InputError(
            f"the task {name} is a {row.problem_type} task, but the model has no output {TOKEN_LOGITS}",
            hint=f"export the bundle together with {name}",
        )
    if model.labels is not None and row.labels > model.labels:
        raise InputError(
            f"the task {name} has {row.labels} labels, expected at most {model.labels}: the model's shapes are fixed",
            hint=f"export the bundle together with {name}",
        )


def default_labels(row: BiasRow, known: Iterable[LoadedTask | TaskRecord | None]) -> tuple[str, ...]:
    """Returns the label names of the first known task of the row's type and size, or else LABEL_0, LABEL_1, ..."""
    if row.problem_type == "regression":
        return ()
    for each in known:
        if each and each.problem_type == row.problem_type and len(each.labels) == row.labels:
            return each.labels
    return tuple(f"LABEL_{index}" for index in range(row.labels))
