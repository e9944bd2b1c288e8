"""The rule for what may be replaced: a folder of this package, with nothing else in it, and that no command reads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfit_export.errors import BitfitError, OutputError

__all__ = ["OutputKind", "refuse_existing", "refuse_overlap"]

_LARGEST_MARK = 2**24


@dataclass(frozen=True)
class OutputKind:
    """A kind of folder that this package writes, and how one is told from every other folder.

    Attributes:
        name: what messages call it, with its article.
        mark: the JSON file that says that a folder is of this kind.
        files: takes the mark's object and returns the path of every file that belongs to the folder, with its SHA-256
            where a changed file is somebody else's work, or None. Raises any exception where the mark is not valid.
    """

    name: str
    mark: str
    files: Callable[[Any], Mapping[str, str | None]]


def refuse_overlap(target: Path, inputs: Iterable[Path | str | None]) -> None:
    """Refuse an output that is an input, or is above or below one, by whatever links and names.

    Args:
        inputs: files and folders that are read; None and what does not exist are skipped.

    Raises:
        OutputError: see above.
    """
    for given in inputs:
        source = None if given is None else Path(given)
        if source is None or not source.exists():
            continue
        around, own = _identities(source), _identities(target)
        if around[0] in own:
            where = "is" if target.exists() and os.path.samefile(target, source) else "is inside"
        elif target.exists() and own[0] in around:
            where = "contains"
        else:
            continue
        raise OutputError(
            f"the output {target} {where} {source}, which this command reads, expected another folder",
            hint="choose another --output",
        )


def refuse_existing(target: Path, *, replaces: OutputKind | None = None) -> None:
    """Raise OutputError when something stands at `target` that may not be replaced."""
    if not os.path.lexists(target):
        return
    if replaces is None:
        raise OutputError(
            f"the output {target} exists already, expected a new name",
            hint="choose another --output, or pass --overwrite to replace it",
        )
    if not target.is_dir() or target.is_symlink():
        raise OutputError(f"the output {target} is not a folder, so it is not replaced", hint="choose another --output")
    try:
        reason = _why_kept(target, replaces)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    if reason is not None:
        raise OutputError(
            f"the output {target} {reason}, so it is not replaced", hint="choose another --output, or remove the folder"
        )


def _why_kept(target: Path, kind: OutputKind) -> str | None:
    """Returns what a folder has that an output of the kind has not, or None where it may be replaced."""
    if not os.listdir(target):
        return None
    try:
        known = kind.files(json.loads(_read_mark(target / kind.mark)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, BitfitError):
        return f"is not {kind.name} (it has no valid {kind.mark})"
    for name in _files_below(target):
        if name not in known:
            return f"holds {name!r:.100}, which is not part of {kind.name}"
        expected = known[name]
        if expected is not None and _sha256(target / name) != expected:
            return f"holds {name!r:.100}, which was changed since it was written"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_mark(path: Path) -> bytes:
    """The content of a small regular file; a link, a pipe or a device is none."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_MARK:
            raise ValueError("not a small regular file")
        return stream.read(_LARGEST_MARK)


def _files_below(folder: Path) -> Iterator[str]:
    """The relative path of every file and link, and of every folder that is empty, in order."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(13, "read-only", root)
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in sorted([*files, *links]):
            yield (Path(root) / name).relative_to(folder).as_posix()
        if not files and not folders:
            yield Path(root).relative_to(folder).as_posix()


def _identities(path: Path) -> list[tuple[int, int]]:
    """Returns the identities of a path and of the folders above it, upwards; what does not exist has none."""
    found = []
    resolved = path.resolve()
    for each in (resolved, *resolved.parents):
        with contextlib.suppress(OSError):
            status = each.stat()
            found.append((status.st_dev, status.st_ino))
    return found
