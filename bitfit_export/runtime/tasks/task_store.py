"""The common part of the two stores of loaded tasks: `BiasTable` and `RowFeeds`.

A store has a row for each loaded task. A run takes a lease, which gives it what the model needs besides the text; rows
may come and go meanwhile, the lease keeps what it has.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from bitfit_export.bundle import BiasRow
from bitfit_export.bundle.interface import LOGITS, TOKEN_LOGITS
from bitfit_export.errors import InputError, quoted
from bitfit_export.runtime.engines.base import Arrays, Bound
from bitfit_export.runtime.forks import hold_during_forks

__all__ = ["Bind", "Feeds", "Lease", "LoadedTask", "TaskStore"]

#: What an engine makes of arrays that stay, `Program.bind`.
Bind: TypeAlias = Callable[[Arrays], Bound]


class Feeds(NamedTuple):
    """The graph inputs that bring biases and heads to a run.

    Attributes:
        bound: those that stay from run to run, as the engine holds them.
        arrays: those that are new in this run.
    """

    bound: Bound
    arrays: Arrays


# How many names a message lists.
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class LoadedTask:
    """A loaded row without its values.

    Attributes:
        labels: label names in id order; empty where they have no names, as in a regression.
        label_count: the number of head outputs.
        output: the graph output that the task's answers are in.
    """

    name: str
    problem_type: str
    labels: tuple[str, ...]
    label_count: int
    task_version: int
    output: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", TOKEN_LOGITS if self.problem_type in ("token", "span") else LOGITS)


class Lease(ABC):
    """The tasks and inputs that one run reads, from entering to leaving the `with` block.

    Attributes:
        tasks: the task of each name.
    """

    __slots__ = ("tasks",)

    tasks: list[LoadedTask]

    @abstractmethod
    def feeds(self, places: Sequence[int] | None = None) -> Feeds:
        """The graph inputs that bring biases and heads.

        Args:
            places: which of the names the batch's items have, by their positions; by default all, one per item. A lease
                of one name serves a batch of any size.

        Raises:
            InputError: the items have different tasks, and the layout runs one at a time.
        """

    @abstractmethod
    def __enter__(self) -> Lease: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _HasTask(Protocol):
    @property
    def task(self) -> LoadedTask: ...


EntryT = TypeVar("EntryT", bound=_HasTask)


class TaskStore(ABC, Generic[EntryT]):
    """The loaded tasks. Any number of threads may use one store.

    Attributes:
        mixes_tasks: whether one run can serve items of different tasks.
    """

    mixes_tasks: bool

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the entries; held for some lookups, never while values are copied
        self._entries: dict[str, EntryT] = {}
        hold_during_forks(self, self._lock)

    @abstractmethod
    def lease(self, names: Sequence[str]) -> Lease:
        """A context manager that gives each name its task, and what the model needs to run it.

        Raises:
            InputError: on entering, a task that is not loaded. Nothing is held then.
        """

    @abstractmethod
    def add(self, row: BiasRow, *, name: str | None = None, labels: Sequence[str] = ()) -> LoadedTask:
        """Load a row, or replace the one of the same name: leases taken from now on get it.

        Args:
            row: one that `read_row` or `decode_row` compared with this store's layout.
            name: the task's name in this store; by default the row's own.
            labels: the label names.

        Raises:
            InputError: the loaded row of this name has a higher version. The store is as it was.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Unload a task. Leases that hold it keep it.

        Raises:
            InputError: the task is not loaded.
        """

    @abstractmethod
    def reserve(self, rows: int, *, labels: int = 1) -> None:
        """Make room for `rows` rows in all, of up to `labels` labels, so that adding them copies nothing but them."""

    @property
    def free(self) -> float:
        """How many rows can be added without more memory than was reserved; infinity where nothing is reserved."""
        return math.inf

    @property
    def tasks(self) -> tuple[LoadedTask, ...]:
        """The loaded tasks, in the order in which their names came first."""
        with self._lock:
            return tuple(entry.task for entry in self._entries.values())

    def find(self, name: str) -> LoadedTask | None:
        """The loaded task of this name, if there is one."""
        with self._lock:
            entry = self._entries.get(name)
        return entry.task if entry else None

    def get(self, name: str) -> LoadedTask:
        """The loaded task of this name.

        Raises:
            InputError: the task is not loaded.
        """
        task = self.find(name)
        if task is None:
            raise self._unknown(name)
        return task

    @staticmethod
    def _task_of(row: BiasRow, name: str | None, labels: Sequence[str]) -> LoadedTask:
        return LoadedTask(name or row.task, row.problem_type, tuple(labels), row.labels, row.task_version)

    @staticmethod
    def _refuse_older(loaded: LoadedTask | None, task: LoadedTask) -> None:
        if loaded is not None and task.task_version < loaded.task_version:
            raise InputError(
                f"the task {task.name} has version {task.task_version}, expected {loaded.task_version} or more, "
                "the version that is loaded",
                hint="unload the task first to go back to an older version",
            )

    def _unknown(self, name: str) -> InputError:
        names = sorted(task.name for task in self.tasks)
        if not names:
            return InputError(f"the task {quoted(name)} is not loaded, and no other is")
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return InputError(
            f"the task {quoted(name)} is not loaded, expected one of {', '.join(names[:_NAMES_SHOWN])}{more}"
        )
