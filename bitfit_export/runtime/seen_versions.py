"""The highest version of each task that a host has used, in a file: an old row is refused after a restart too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bitfit_export.bundle import TASK_NAME
from bitfit_export.bundle.json_dialect import parse_json
from bitfit_export.bundle.regular_files import read_file
from bitfit_export.errors import BundleError, InputError, OutputError, UsageError, quoted
from bitfit_export.files import canonical_json, locked, write_bytes

__all__ = ["SeenVersions"]

_FORMAT = 1
_LARGEST_FILE = 1 << 24
#: Seconds to wait for another process that writes the file.
_PATIENCE = 10.0


class SeenVersions:
    """The file, which several processes may share.

    Args:
        path: of the file, which is made when there is something to write.

    Raises:
        UsageError: the file is there and cannot be read, or is not one of these. It is never begun anew by itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._versions = self._read()

    def take(self, versions: Mapping[str, int]) -> None:
        """Note versions that are about to be used.

        Args:
            versions: task -> version.

        Raises:
            InputError: a task's is lower than one that was seen; nothing is noted.
            OutputError: the file cannot be written.
        """
        if all(self._versions.get(task) == version for task, version in versions.items()):
            return
        with self._locked():
            seen = self._read()
            for task, version in versions.items():
                if version < seen.get(task, 0):
                    raise InputError(
                        f"the task {task} has version {version}, expected {seen[task]} or more, the version that "
                        f"{self._path} has seen",
                        hint=f"take {task} out of that file to go back to an older version",
                    )
            if not versions.items() <= seen.items():
                write_bytes(self._path, canonical_json({"format_version": _FORMAT, "tasks": {**seen, **versions}}))
            self._versions = {**seen, **versions}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path.with_name(f".{self._path.name}.lock")
        try:
            busy = f"{self._path} is in use by another process"
            with locked(lock, busy, patience=_PATIENCE, hint="wait for it to end, or name another file"):
                yield
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def _read(self) -> dict[str, int]:
        try:
            data = read_file(self._path, limit=_LARGEST_FILE)
        except FileNotFoundError:
            return {}
        except (OSError, BundleError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"the versions in {self._path} cannot be read: {reason}") from error
        try:
            value = parse_json(data)
            tasks = value["tasks"]
            if value["format_version"] != _FORMAT or not all(map(_is_entry, tasks.items())):
                raise ValueError(f"format {quoted(value['format_version'])}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self._path} does not have the versions of tasks: {error}",
                hint="restore it; without it older rows are accepted again",
            ) from error
        return dict(tasks)


def _is_entry(entry: tuple[object, object]) -> bool:
    task, version = entry
    return isinstance(task, str) and bool(TASK_NAME.fullmatch(task)) and type(version) is int and version >= 1
