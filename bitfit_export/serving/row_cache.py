"""The rows that are in memory, of all that a folder has: loaded on first use, the least recently used ones out first.

A row's memory is a slot of the session's bias table, which is as large as it will be from the start. Who needs tasks
holds them, and a row that is held is not dropped. A row that is read for one request keeps no other waiting: the file
is read outside of the lock.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from bitfit_export.bundle import BiasRow
from bitfit_export.errors import BitfitError, UsageError, quoted
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.session import parts_of
from bitfit_export.serving.failures import BusyServiceError, RefusedRowError, ServiceError, UnknownTaskError
from bitfit_export.serving.row_folder import RowFolder

__all__ = ["DEFAULT_MEMORY", "RowCache", "RowEvent", "TaskState"]

#: Bytes for rows, by default.
DEFAULT_MEMORY = 1 << 30
#: Labels of a task, at most, where the bundle has none with more.
DEFAULT_LABELS = 8
#: Slots beyond those of rows that are kept: a new row is written elsewhere while runs hold the old one.
_SPARE = 16
#: How long a full table is asked again for.
_SECONDS_UNTIL_FREE = 1

#: Told of what happens to rows: `loaded`, `missed`, `dropped`, `unloaded` or `refused`; the task; why.
RowEvent: TypeAlias = Callable[[str, str, str], None]


class TaskState(NamedTuple):
    """A task of the service.

    Attributes:
        ready: whether requests are answered, if need be after reading its row.
        in_memory: whether its row is in memory now.
        reason: why it is not ready.
    """

    name: str
    ready: bool
    in_memory: bool
    reason: str


class RowCache:
    """The tasks of a service: those of its bundle, which stay in memory, and those of a folder. Threads may share it.

    Args:
        session: of the bundle. Tasks come and go through this object alone.
        folder: of rows; without it the service has the bundle's tasks.
        memory: bytes for rows, at most.
        labels: the most labels that a row of the folder may have, as memory is for the widest.
        on_event: is told what happens to rows.

    Raises:
        UsageError: the memory does not hold the bundle's own rows.
    """

    def __init__(
        self,
        session: BiasSession,
        folder: RowFolder | None = None,
        *,
        memory: int = DEFAULT_MEMORY,
        labels: int = DEFAULT_LABELS,
        on_event: RowEvent = lambda event, task, reason: None,
    ) -> None:
        self._session = session
        self._folder = folder
        self._on_event = on_event
        self._parts = parts_of(session)
        self._store = self._parts.store
        self._own = frozenset(session.tasks)
        self._labels = max([labels, *(task.label_count for task in self._store.tasks)])
        self._limit = self._reserve(memory)
        self._changed = threading.Condition()
        # The condition's lock guards these.
        self._kept: OrderedDict[str, None] = OrderedDict((name, None) for name in session.tasks)  # last used last
        self._held: Counter[str] = Counter()
        self._reading: set[str] = set()
        self._withdrawn: set[str] = set()
        self._leaving: set[str] = set()  # to be dropped when nobody holds them any more
        self._refused: dict[str, str] = {}
        self._postponed: set[str] = set()  # changed rows that found no room
        self._versions: dict[str, int] = {task.name: task.task_version for task in self._store.tasks}
        if folder is not None:
            folder.look()  # rows are read when they are needed

    @property
    def limit(self) -> int:
        """How many rows are in memory at most."""
        return self._limit

    @property
    def size(self) -> int:
        """How many rows are in memory."""
        return len(self._kept)

    def states(self) -> list[TaskState]:
        """All tasks by name, those that are not ready as well."""
        with self._changed:
            names = {
                *(self._kept.keys() - self._leaving),
                *self._refused,
                *self._withdrawn,
                *(self._folder.tasks if self._folder else ()),
            }
            return [self._state(name) for name in sorted(names)]

    def state(self, task: str) -> TaskState:
        """One task.

        Raises:
            UnknownTaskError: the service does not have it.
        """
        with self._changed:
            if not self._knows(task):
                raise _unknown(task)
            return self._state(task)

    @contextmanager
    def hold(self, tasks: Collection[str]) -> Iterator[None]:
        """Bring the rows of these tasks into memory, and keep them there until the block ends.

        Raises:
            UnknownTaskError: the service lacks one.
            RefusedRowError: the row of one cannot be used.
            BusyServiceError: all rows that are in memory are held, and there is room for no other.
        """
        names = set(tasks)
        with self._changed:
            self._held.update(names)
        try:
            for name in names:
                self._bring(name)
            yield
        finally:
            with self._changed:
                self._held.subtract(names)
                for name in names:
                    if not self._held[name]:
                        del self._held[name]
                        if name in self._leaving:
                            self._drop(name)

    def load(self, task: str) -> None:
        """Take a task in, or its row anew from the folder. A task that was unloaded is answered again.

        Raises:
            UnknownTaskError, RefusedRowError, BusyServiceError: as `hold`.
        """
        with self._changed:
            if not self._knows(task):
                raise _unknown(task)
            self._withdrawn.discard(task)
            if task in self._own and not self._in_folder(task):
                return
        self._read(task)

    def unload(self, task: str) -> None:
        """Answer a task no more, until it is loaded. Requests under way are answered.

        Raises:
            UnknownTaskError: the service lacks it.
            ServiceError: it is one of the bundle's own.
        """
        with self._changed:
            if not self._knows(task):
                raise _unknown(task)
            if task in self._own:
                raise ServiceError(f"the task {task} is one of the bundle's own, which stay")
            self._withdrawn.add(task)
            self._let_go(task)
        self._on_event("unloaded", task, "asked to")

    def look(self) -> None:
        """Take over what has changed in the folder. A row that cannot be used is reported, and changes nothing.

        A row that is new is loaded where there is room, and else only checked: it is loaded when it is needed.

        Raises:
            ServiceError: the folder cannot be read; all stays as it was.
        """
        if self._folder is None:
            return
        changes = self._folder.look()
        for task in changes.gone:
            self._forget(task)
        changed = {*changes.changed, *(task for task in self._postponed if task in self._folder)}
        self._postponed.clear()
        for task in changed:
            with self._changed:
                self._refused.pop(task, None)
                if task in self._withdrawn:
                    continue
                to_load = task in self._kept or len(self._kept) < self._limit
            try:
                if to_load:
                    self._read(task)
                else:  # rows that nobody asked for yet must not drive out those that are in use
                    self._judge(task)
            except BusyServiceError:
                self._postponed.add(task)
            except RefusedRowError:
                pass  # reported by then

    def _reserve(self, memory: int) -> int:
        """Make room for rows; returns how many."""
        size = 4 * self._session.manifest.layout.value_count(self._labels)
        slots = memory // size
        need = len(self._own) + 1 + (_SPARE if self._folder else 0)
        if slots < need:
            raise UsageError(
                f"the memory for rows is {memory} bytes, expected at least {need * size}: "
                f"{need} rows of {size} bytes, each with room for {self._labels} labels",
                hint="give more memory, or allow fewer labels",
            )
        if self._folder is not None:
            self._store.reserve(slots, labels=self._labels)
        return slots - _SPARE if self._folder else len(self._own)

    def _bring(self, task: str) -> None:
        """See to it that the row of a task that is held is in memory."""
        with self._changed:
            while task in self._reading:
                self._changed.wait()
            if not self._knows(task) or task in self._withdrawn:
                raise _unknown(task)
            if task in self._kept:
                self._kept.move_to_end(task)
                return
        self._on_event("missed", task, "")
        self._read(task)

    def _read(self, task: str) -> None:
        """Read a row from the folder and put it into the table, one thread a task at a time."""
        with self._changed:
            while task in self._reading:
                self._changed.wait()
            self._reading.add(task)
        try:
            row = self._judge(task)
            with self._refusing(task), self._changed:
                self._make_room(task)
                self._parts.load_row(row, None, None)
                self._kept[task] = None
                self._kept.move_to_end(task)
                self._leaving.discard(task)
                self._versions[task] = row.task_version
                self._refused.pop(task, None)
            self._on_event("loaded", task, "")
        finally:
            with self._changed:
                self._reading.discard(task)
                self._changed.notify_all()

    def _judge(self, task: str) -> BiasRow:
        """Read a row and decide whether it may be used."""
        assert self._folder is not None, task
        with self._refusing(task):
            row = self._parts.read_row(self._folder.row_file(task))
            self._check(task, row)
            return row

    @contextmanager
    def _refusing(self, task: str) -> Iterator[None]:
        """Report what is wrong with the row of a task; a table that is full says nothing of it."""
        try:
            yield
        except BusyServiceError:
            raise
        except BitfitError as error:
            self._refuse(task, error.message)
            raise RefusedRowError(f"the row of the task {task} cannot be used: {error.message}") from error

    def _check(self, task: str, row: BiasRow) -> None:
        if row.task != task:
            raise RefusedRowError(f"it is a row of the task {row.task}", hint="name the file as its task is named")
        if row.labels > self._labels:
            raise RefusedRowError(f"it has {row.labels} labels, expected at most {self._labels}")
        newest = self._versions.get(task, 0)
        if row.task_version < newest:
            raise RefusedRowError(
                f"it has version {row.task_version}, expected {newest} or more, the version seen before"
            )

    def _refuse(self, task: str, reason: str) -> None:
        with self._changed:
            self._refused[task] = reason
        self._on_event("refused", task, reason)

    def _make_room(self, task: str) -> None:
        """Drop rows until there is room for that of a task; the lock is held."""
        others = 1 if task in self._kept else 0
        while len(self._kept) - others >= self._limit or self._store.free < 1:
            free = (name for name in self._kept if name not in self._own and not self._held[name] and name != task)
            victim = next(free, None)
            if victim is None:
                raise BusyServiceError(
                    f"all {len(self._kept)} rows that are in memory are in use", retry_after=_SECONDS_UNTIL_FREE
                )
            self._drop(victim)
            self._on_event("dropped", victim, "")

    def _let_go(self, task: str) -> None:
        """Drop a row when nobody holds it any more; the lock is held."""
        if self._held[task]:
            self._leaving.add(task)
        else:
            self._drop(task)

    def _drop(self, task: str) -> None:
        """The lock is held."""
        self._leaving.discard(task)
        if task in self._kept:
            del self._kept[task]
            self._session.unload_task(task)

    def _forget(self, task: str) -> None:
        """The folder lacks the row of a task now. Of the bundle's own tasks what is loaded stays."""
        with self._changed:
            self._refused.pop(task, None)
            self._withdrawn.discard(task)
            if task in self._own:
                return
            self._let_go(task)
        self._on_event("unloaded", task, "its file is gone")

    def _in_folder(self, task: str) -> bool:
        return self._folder is not None and task in self._folder

    def _knows(self, task: str) -> bool:
        return (task in self._kept and task not in self._leaving) or self._in_folder(task)

    def _state(self, task: str) -> TaskState:
        kept = task in self._kept
        if task in self._withdrawn:
            return TaskState(task, False, kept, "unloaded")
        # What is in memory answers, whatever the folder has by now.
        return TaskState(task, kept or task not in self._refused, kept, self._refused.get(task, ""))


def _unknown(task: str) -> UnknownTaskError:
    return UnknownTaskError(
        f"the service does not have the task {quoted(task)}", hint="POST /v2/repository/index lists the tasks"
    )
