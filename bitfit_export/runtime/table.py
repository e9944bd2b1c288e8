"""The bias table: the rows of all loaded tasks, in the arrays that the frozen model reads.

Rows come and go while other threads run the model, and no run may see half of one. So:

- a row is written into a slot that nothing reads, and only then becomes the task's slot;
- a run takes a lease: it gets slots and arrays in one step, and holds both until it is over;
- a slot is used again when its task has left it and no lease holds it;
- the arrays are never resized. Growing makes larger ones; leases under way keep the old.

The arrays are bound as `OrtValue`s, which on a CPU use numpy's memory, so a run copies none of the table.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.errors import InputError

__all__ = ["BIAS_TABLE", "BiasTable", "Lease", "LoadedTask"]

#: The graph input that holds the bias values of all rows.
BIAS_TABLE = "bias_table"

Float32Array: TypeAlias = NDArray[np.float32]

# How many names a message lists.
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class LoadedTask:
    """What is known of a row in the table, apart from its values.

    Attributes:
        labels: label names in id order; empty where they have no names, as in a regression.
        label_count: the number of head outputs.
    """

    name: str
    problem_type: str
    labels: tuple[str, ...]
    label_count: int
    task_version: int


class _Slot:
    """A place in the arrays, for as long as one row fills it."""

    __slots__ = ("current", "holders", "index", "task")

    def __init__(self, index: int, task: LoadedTask) -> None:
        self.index = index
        self.task = task
        self.holders = 0
        self.current = True


class _Arrays:
    """One size of the table: `bias_table` float32 [capacity, N], then a tensor [capacity, ...] for each head entry."""

    def __init__(self, layout: Layout, capacity: int, labels: int, old: _Arrays | None = None) -> None:
        self.capacity = capacity
        self.labels = labels
        shapes = [(layout.bias_count,), *layout.head_shapes(labels)]
        previous: Sequence[Float32Array | None] = old.tensors if old else [None] * len(shapes)
        self.tensors: Sequence[Float32Array] = [
            _enlarged((capacity, *shape), each) for shape, each in zip(shapes, previous, strict=True)
        ]
        names = [BIAS_TABLE, *(entry.name for entry in layout.head)]
        # An OrtValue keeps its numpy array alive.
        self.values: Mapping[str, Any] = MappingProxyType(
            {name: ort.OrtValue.ortvalue_from_numpy(tensor) for name, tensor in zip(names, self.tensors, strict=True)}
        )

    def write(self, index: int, row: BiasRow) -> None:
        """Put a row into a slot, as float32; what its head lacks of the arrays' shape is zero."""
        for tensor, values in zip(self.tensors, (row.biases, *row.head), strict=True):
            slot = tensor[index]
            slot[...] = 0
            slot[tuple(slice(size) for size in values.shape)] = values


class BiasTable:
    """The rows of the loaded tasks. Any number of threads may use one table.

    Args:
        layout: of the frozen model.
        rows: how many rows to make room for.
        labels: the most labels of those rows.
    """

    def __init__(self, layout: Layout, *, rows: int = 1, labels: int = 1) -> None:
        self._layout = layout
        self._writing = threading.Lock()  # one writer at a time; rows and whole tables are copied under it
        self._lock = threading.Lock()  # guards the fields below; held for some lookups, never while copying
        self._slots: dict[str, _Slot] = {}
        self._arrays = _Arrays(layout, max(rows, 1), max(labels, 1))
        self._free = list(range(self._arrays.capacity))

    @property
    def tasks(self) -> tuple[LoadedTask, ...]:
        """The loaded tasks, in the order in which their names came first."""
        with self._lock:
            return tuple(slot.task for slot in self._slots.values())

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._arrays.capacity

    def find(self, name: str) -> LoadedTask | None:
        """The loaded task of this name, if there is one."""
        with self._lock:
            slot = self._slots.get(name)
        return slot.task if slot else None

    def get(self, name: str) -> LoadedTask:
        """The loaded task of this name.

        Raises:
            InputError: the task is not loaded.
        """
        task = self.find(name)
        if task is None:
            raise self._unknown(name)
        return task

    def lease(self, names: Sequence[str]) -> Lease:
        """A context manager that gives one slot a name and holds the slots and the arrays until its block ends.

        Raises:
            InputError: on entering, a task that is not loaded. Nothing is held then.
        """
        return Lease(self, names)

    def reserve(self, rows: int, *, labels: int = 1) -> None:
        """Make room for `rows` rows in all, of up to `labels` labels, so that adding them copies nothing but them."""
        with self._writing:
            self._grow(rows, labels)

    def add(self, row: BiasRow, *, name: str | None = None, labels: Sequence[str] = ()) -> LoadedTask:
        """Load a row, or replace the one of the same name: leases taken from now on get it.

        Args:
            row: one that `read_row` or `decode_row` compared with this table's layout.
            name: the task's name in this table; by default the row's own.
            labels: the label names.

        Raises:
            InputError: the loaded row of this name has a higher version. The table is as it was.
        """
        task = LoadedTask(name or row.task, row.problem_type, tuple(labels), row.labels, row.task_version)
        with self._writing:
            self._refuse_older(task)
            self._grow(self._arrays.capacity, row.labels)
            index = self._take_free()
            try:
                self._arrays.write(index, row)
            except BaseException:
                with self._lock:
                    self._free.append(index)
                raise
            with self._lock:
                old = self._slots.get(task.name)
                self._slots[task.name] = _Slot(index, task)
                self._leave(old)
        return task

    def remove(self, name: str) -> None:
        """Unload a task. Leases that hold its slot keep it.

        Raises:
            InputError: the task is not loaded.
        """
        with self._lock:
            slot = self._slots.pop(name, None)
            self._leave(slot)
        if slot is None:
            raise self._unknown(name)

    def _hold(self, names: Sequence[str]) -> tuple[list[_Slot], Mapping[str, Any]]:
        """Slots and arrays as one consistent state."""
        with self._lock:
            slots = self._slots
            try:
                held = [slots[name] for name in names]
            except KeyError as error:
                unknown = error.args[0]
            else:
                for slot in held:
                    slot.holders += 1
                return held, self._arrays.values
        raise self._unknown(unknown)

    def _release(self, held: Sequence[_Slot]) -> None:
        with self._lock:
            for slot in held:
                slot.holders -= 1
                if not slot.holders and not slot.current:
                    self._free.append(slot.index)

    def _leave(self, slot: _Slot | None) -> None:
        """The slot's task has gone elsewhere; the lock is held."""
        if slot is None:
            return
        slot.current = False
        if not slot.holders:
            self._free.append(slot.index)

    def _take_free(self) -> int:
        with self._lock:
            if self._free:
                return self._free.pop()
        # Only writers take slots and this is the only writer, so the new ones are still there.
        self._grow(2 * self._arrays.capacity, 1)
        with self._lock:
            return self._free.pop()

    def _grow(self, capacity: int, labels: int) -> None:
        """Swap in larger arrays where these are too small; the writer's lock is held."""
        old = self._arrays
        if capacity <= old.capacity and labels <= old.labels:
            return
        new = _Arrays(self._layout, max(capacity, old.capacity), max(labels, old.labels), old)
        with self._lock:
            self._arrays = new
            self._free.extend(range(old.capacity, new.capacity))

    def _refuse_older(self, task: LoadedTask) -> None:
        loaded = self.find(task.name)
        if loaded is not None and task.task_version < loaded.task_version:
            raise InputError(
                f"the task {task.name} has version {task.task_version}, expected {loaded.task_version} or more, "
                "the version that is loaded",
                hint="unload the task first to go back to an older version",
            )

    def _unknown(self, name: str) -> InputError:
        with self._lock:
            names = sorted(self._slots)
        if not names:
            return InputError(f"the task {name!r} is not loaded, and no other is")
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return InputError(f"the task {name!r} is not loaded, expected one of {', '.join(names[:_NAMES_SHOWN])}{more}")


class Lease:
    """What one run reads, from entering to leaving the `with` block.

    Attributes:
        tasks: the task of each name.
        slots: its slot, int64 [names].
        values: the arrays as OrtValues, by the name of their graph input.
    """

    __slots__ = ("_held", "_names", "_table", "slots", "tasks", "values")

    tasks: list[LoadedTask]
    slots: NDArray[np.int64]
    values: Mapping[str, Any]

    def __init__(self, table: BiasTable, names: Sequence[str]) -> None:
        self._table = table
        self._names = names
        self._held: list[_Slot] = []

    def __enter__(self) -> Lease:
        self._held, self.values = self._table._hold(self._names)
        self.tasks = [slot.task for slot in self._held]
        self.slots = np.array([slot.index for slot in self._held], np.int64)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table._release(self._held)


def _enlarged(shape: tuple[int, ...], old: Float32Array | None) -> Float32Array:
    """Zeros of this shape with the old values in their old places; the old array itself where the shape is the same."""
    if old is not None and old.shape == shape:
        return old
    new = np.zeros(shape, np.float32)
    if old is not None:
        new[tuple(slice(size) for size in old.shape)] = old
    return new
