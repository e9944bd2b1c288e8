"""The folder in which a service finds the rows of its tasks: `<task>.bias`, one file a task."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, TypeAlias

from bitfit_export.bundle import TASK_NAME
from bitfit_export.serving.failures import ServiceError

__all__ = ["RowChanges", "RowFolder"]

SUFFIX = ".bias"
#: What tells one state of a file from another: its inode, size and time of change in nanoseconds.
_Stamp: TypeAlias = tuple[int, int, int]


class RowChanges(NamedTuple):
    """What two looks at a folder differ by, as task names: rows that are new or changed, and rows that went."""

    changed: Collection[str]
    gone: Collection[str]


class RowFolder:
    """A folder that others write rows into, each by a rename of a complete file.

    It is looked at again and again, and not watched through the system's notices, which network file systems and mounts
    of containers lack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, _Stamp] = {}

    def __contains__(self, task: object) -> bool:
        return task in self._seen

    def row_file(self, task: str) -> Path:
        """Where the row of a task is, or would be."""
        return self.path / f"{task}{SUFFIX}"

    @property
    def tasks(self) -> list[str]:
        """The tasks whose rows the last look found."""
        return list(self._seen)

    def look(self) -> RowChanges:
        """Returns what has changed since the last look. Names that no task can have are not looked at.

        Raises:
            ServiceError: the folder cannot be read. What was seen before is kept.
        """
        try:
            with os.scandir(self.path) as entries:
                found = {
                    entry.name.removesuffix(SUFFIX): _stamp(entry)
                    for entry in entries
                    if entry.name.endswith(SUFFIX)
                    and TASK_NAME.fullmatch(entry.name.removesuffix(SUFFIX))
                    and entry.is_file()
                }
        except OSError as error:
            raise ServiceError(f"the folder of rows {self.path} cannot be read: {error.strerror}") from error
        before, self._seen = self._seen, found
        return RowChanges(
            changed=[task for task, stamp in found.items() if before.get(task) != stamp],
            gone=[task for task in before if task not in found],
        )


def _stamp(entry: os.DirEntry[str]) -> _Stamp:
    status = entry.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
