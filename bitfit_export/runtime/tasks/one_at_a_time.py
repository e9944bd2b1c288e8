"""The loaded tasks of a graph that runs one at a time: the layouts packed and named.

A row's arrays are made and bound once, when it is loaded, and never change. So a switch of task is another
mapping for the next run, and a row that is replaced or removed lives on in the leases that have it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any

from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.bundle.row_arrays import integer_biases, row_arrays
from bitfit_export.errors import InputError
from bitfit_export.runtime.tasks.task_store import Bind, Feeds, Lease, LoadedTask, TaskStore

__all__ = ["RowFeeds", "RowLease", "SaturationWarning"]

NO_SCALES: Mapping[str, Sequence[float]] = MappingProxyType({})


class SaturationWarning(UserWarning):
    """A row has values that the model's integers cannot represent: the nearest ones are taken."""


@dataclass(frozen=True)
class _LoadedRow:
    """A task and what runs it."""

    task: LoadedTask
    feeds: Feeds


class RowFeeds(TaskStore[_LoadedRow]):
    """One set of graph inputs for each loaded task.

    Args:
        layout: of the frozen model.
        layout_kind: `packed` or `named`.
        bind: the engine's; it may keep the arrays.
        labels: the number of labels that the graph's head inputs have, where it is fixed; rows have at most as many.
        bias_scales: of bias inputs that are int32, for each value its scale.
    """

    mixes_tasks = False

    def __init__(
        self,
        layout: Layout,
        layout_kind: str,
        bind: Bind,
        *,
        labels: int | None = None,
        bias_scales: Mapping[str, Sequence[float]] = NO_SCALES,
    ) -> None:
        super().__init__()
        self._layout = layout
        self._layout_kind = layout_kind
        self._bind = bind
        self._labels = labels
        self._bias_scales = bias_scales

    def reserve(self, rows: int, *, labels: int = 1) -> None:
        """Rows have arrays of their own, so there is nothing to reserve."""

    def lease(self, names: Sequence[str]) -> RowLease:
        return RowLease(self, names)

    def add(self, row: BiasRow, *, name: str | None = None, labels: Sequence[str] = ()) -> LoadedTask:
        task = self._task_of(row, name, labels)
        self._refuse_older(self.find(task.name), task)  # before anything of the row's size is made
        arrays: dict[str, NDArray[Any]] = row_arrays(row, self._layout, self._layout_kind, labels=self._labels)
        saturated = integer_biases(arrays, self._bias_scales)
        if saturated:
            name = max(saturated, key=lambda each: saturated[each])
            warnings.warn(
                f"the row of the task {task.name} has {sum(saturated.values())} values that saturate: as int32 they "
                f"are beyond what the model can add; most are in {name}",
                SaturationWarning,
                stacklevel=2,
            )
        loaded = _LoadedRow(task, Feeds(self._bind(arrays), {}))
        with self._lock:
            old = self._entries.get(task.name)
            self._refuse_older(old.task if old else None, task)
            self._entries[task.name] = loaded
        return task

    def remove(self, name: str) -> None:
        with self._lock:
            loaded = self._entries.pop(name, None)
        if loaded is None:
            raise self._unknown(name)


class RowLease(Lease):
    """Some loaded rows; they need no giving back."""

    __slots__ = ("_names", "_rows", "_store")

    def __init__(self, store: RowFeeds, names: Sequence[str]) -> None:
        self._store = store
        self._names = names
        self._rows: list[_LoadedRow] = []

    def feeds(self, places: Sequence[int] | None = None) -> Feeds:
        chosen = self._rows if places is None else [self._rows[place] for place in places]
        first = chosen[0]
        for each in chosen:
            if each is not first:
                raise InputError(
                    f"the items of the batch have the tasks {first.task.name} and {each.task.name}, expected one task: "
                    "the bundle's layout runs one at a time",
                    hint="export the bundle with --layout table to mix tasks in a batch",
                )
        return first.feeds

    def __enter__(self) -> RowLease:
        store = self._store
        with store._lock:  # the rows of these names at one moment
            try:
                self._rows = [*map(store._entries.__getitem__, self._names)]
                self.tasks = [row.task for row in self._rows]
                return self
            except KeyError as error:
                unknown = error.args[0]
        raise store._unknown(unknown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows = []
