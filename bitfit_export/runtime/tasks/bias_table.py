"""The bias table: the rows of all loaded tasks, in the arrays that the frozen model reads.

Rows come and go while other threads run the model, and no run may see half of one. So:

- a row is written into a slot that nothing reads, and only then becomes the task's slot;
- a run takes a lease: it gets slots and arrays in one step, and holds both until it is over;
- a slot is used again when its task has left it and no lease holds it;
- the arrays are never resized. Larger and smaller ones take their place; leases under way keep the old.

All heads in the arrays are as wide as the loaded task with the most labels needs. They become narrower when it leaves.

The arrays are bound once: an engine on a CPU uses numpy's memory, so a run copies none of the table.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from types import TracebackType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.bundle.interface import BIAS_TABLE, TASK_IDS
from bitfit_export.bundle.row_arrays import fill_shape
from bitfit_export.runtime.engines.base import Bound
from bitfit_export.runtime.forks import hold_during_forks
from bitfit_export.runtime.tasks.task_store import Bind, Feeds, Lease, LoadedTask, TaskStore

__all__ = ["BiasTable", "TableLease"]

Float32Array: TypeAlias = NDArray[np.float32]

_TASK, _INDEX = attrgetter("task"), attrgetter("index")


class _Slot:
    """A place in the arrays, for as long as one row fills it.

    Attributes:
        ids: its index as the model reads it for a batch of its task alone, int64 [1].
    """

    __slots__ = ("current", "holders", "ids", "index", "task")

    def __init__(self, index: int, task: LoadedTask) -> None:
        self.index = index
        self.ids = np.array([index], np.int64)
        self.task = task
        self.holders = 0
        self.current = True


class _Arrays:
    """One size of the table: `bias_table` float32 [capacity, N], then a tensor [capacity, ...] for each head entry."""

    def __init__(self, layout: Layout, capacity: int, labels: int, bind: Bind, old: _Arrays | None = None) -> None:
        self.capacity = capacity
        self.labels = labels
        shapes = [(layout.bias_count,), *layout.head_shapes(labels)]
        previous: Sequence[Float32Array | None] = old.tensors if old else [None] * len(shapes)
        self.tensors: Sequence[Float32Array] = [
            _resized((capacity, *shape), each) for shape, each in zip(shapes, previous, strict=True)
        ]
        names = [BIAS_TABLE, *(entry.name for entry in layout.head)]
        self.bound = bind(dict(zip(names, self.tensors, strict=True)))

    def write(self, index: int, row: BiasRow) -> None:
        """Put a row into a slot, as float32; what its head lacks of the arrays' shape is zero."""
        for tensor, values in zip(self.tensors, (row.biases, *row.head), strict=True):
            slot = tensor[index]
            slot[...] = 0
            slot[tuple(slice(size) for size in values.shape)] = values


class BiasTable(TaskStore[_Slot]):
    """The rows of the loaded tasks. Any number of threads may use one table.

    Args:
        layout: of the frozen model.
        bind: the engine's; it may keep the arrays, and sees what is written into them later.
        rows: how many rows to make room for.
        labels: the most labels of those rows.
    """

    mixes_tasks = True

    def __init__(self, layout: Layout, bind: Bind, *, rows: int = 1, labels: int = 1) -> None:
        super().__init__()
        self._layout = layout
        self._bind = bind
        self._writing = threading.Lock()  # one writer at a time; rows and whole tables are copied under it
        hold_during_forks(self, self._writing, self._lock)
        # The store's lock guards these, too.
        self._arrays = _Arrays(layout, max(rows, 1), max(labels, 1), bind)
        self._free = list(range(self._arrays.capacity))
        self._reserved_labels = 1

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._arrays.capacity

    @property
    def free(self) -> float:
        with self._lock:
            return len(self._free)

    def lease(self, names: Sequence[str]) -> TableLease:
        return TableLease(self, names)

    def reserve(self, rows: int, *, labels: int = 1) -> None:
        """As `TaskStore.reserve`. The room stays when tasks leave."""
        with self._writing:
            self._reserved_labels = max(labels, self._reserved_labels)
            self._grow(rows, labels)

    def add(self, row: BiasRow, *, name: str | None = None, labels: Sequence[str] = ()) -> LoadedTask:
        task = self._task_of(row, name, labels)
        with self._writing:
            self._refuse_older(self.find(task.name), task)
            self._grow(self._arrays.capacity, row.labels)
            index = self._take_free()
            try:
                self._arrays.write(index, row)
            except BaseException:
                with self._lock:
                    self._free.append(index)
                raise
            with self._lock:
                old = self._entries.get(task.name)
                self._entries[task.name] = _Slot(index, task)
                self._leave(old)
            self._narrow(old)
        return task

    def remove(self, name: str) -> None:
        with self._writing:
            with self._lock:
                slot = self._entries.pop(name, None)
                self._leave(slot)
            self._narrow(slot)
        if slot is None:
            raise self._unknown(name)

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

    def _narrow(self, left: _Slot | None) -> None:
        """Swap in narrower arrays where the widest task has left; the writer's lock is held."""
        old = self._arrays
        if left is None or left.task.label_count < old.labels:
            return
        labels = max((task.label_count for task in self.tasks), default=1)
        labels = max(labels, self._reserved_labels)
        if labels < old.labels:
            with suppress(MemoryError):  # wider arrays do as well
                new = _Arrays(self._layout, old.capacity, labels, self._bind, old)
                with self._lock:
                    self._arrays = new

    def _grow(self, capacity: int, labels: int) -> None:
        """Swap in larger arrays where these are too small; the writer's lock is held."""
        old = self._arrays
        if capacity <= old.capacity and labels <= old.labels:
            return
        new = _Arrays(self._layout, max(capacity, old.capacity), max(labels, old.labels), self._bind, old)
        with self._lock:
            self._arrays = new
            self._free.extend(range(old.capacity, new.capacity))


class TableLease(Lease):
    """Slots of the table, which nothing overwrites until the lease ends.

    Attributes:
        slots: the slot of each name, int64 [names].
        bound: the arrays as the engine holds them.
    """

    __slots__ = ("_held", "_names", "_table", "bound", "slots")

    slots: NDArray[np.int64]
    bound: Bound

    def __init__(self, table: BiasTable, names: Sequence[str]) -> None:
        self._table = table
        self._names = names
        self._held: list[_Slot] = []

    def feeds(self, places: Sequence[int] | None = None) -> Feeds:
        slots = self.slots if places is None else self.slots[list(places)]
        return Feeds(self.bound, {TASK_IDS: slots})

    def __enter__(self) -> TableLease:
        table = self._table
        with table._lock:  # slots and arrays as one consistent state
            try:
                held = [*map(table._entries.__getitem__, self._names)]
            except KeyError as error:
                unknown = error.args[0]
            else:
                for slot in held:
                    slot.holders += 1
                self._held, self.bound = held, table._arrays.bound
                self.tasks = [*map(_TASK, held)]
                self.slots = held[0].ids if len(held) == 1 else np.array([*map(_INDEX, held)], np.int64)
                return self
        raise table._unknown(unknown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table._release(self._held)


def _resized(shape: tuple[int, ...], old: Float32Array | None) -> Float32Array:
    """Zeros of this shape with those of the old values that fit; the old array itself where it has the shape."""
    if old is None:
        return np.zeros(shape, np.float32)
    if old.shape == shape:
        return old
    return fill_shape(shape, old[tuple(slice(size) for size in shape)])
