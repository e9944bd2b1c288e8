"""Writing files and folders so that nobody ever meets half of one.

Everything is written under a temporary name beside its target, synced, and renamed. When anything goes wrong
(an exception, a full disk, Ctrl-C) the temporary name is removed and what stood at the target stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitfit_export.errors import OutputError

__all__ = ["canonical_json", "new_folder", "sha256_of_file", "write_bytes"]

#: One of these is in every folder that may be replaced: a bundle, a delta, a merged checkpoint.
_MARKS = ("manifest.json", "bitfit_config.json", "config.json")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, two spaces and a final newline: the same value gives the same bytes."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically, replacing a file that is there.

    Raises:
        OutputError: the folder is missing, read-only or full; the old file is untouched.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `target` that becomes `target` when the block ends well.

    A folder that is already at `target` is an error unless `overwrite`, and then still where it is none that this
    package makes. It is moved aside before the rename and removed after it, so a crash leaves the old folder or the new
    one, under one name or the other.

    Raises:
        OutputError: `target` exists and may not be replaced, or can't be written; it is left as it was.
    """
    refuse_existing(target, overwrite=overwrite)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        os.chmod(temporary, 0o777 & ~_umask())
        yield temporary
        _sync_tree(temporary)
        refuse_existing(target, overwrite=overwrite)
        _swap_in(temporary, target)
        temporary = None
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(target: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError when something stands at `target` that may not be replaced."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputError(
            f"the output {target} exists already, expected a new name",
            hint="choose another --output, or pass --overwrite to replace it",
        )
    if not target.is_dir() or target.is_symlink():
        raise OutputError(f"the output {target} is not a folder, so it is not replaced", hint="choose another --output")
    if os.listdir(target) and not any((target / name).is_file() for name in _MARKS):
        raise OutputError(
            f"the output {target} holds other files than an output does, so it is not replaced",
            hint="choose another --output, or remove the folder",
        )


def _swap_in(temporary: Path, target: Path) -> None:
    """Rename `temporary` to `target`; a folder at `target` is put back if the rename fails."""
    old: Path | None = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        os.rename(target, old / target.name)
    try:
        os.rename(temporary, target)
    except OSError:
        if old is not None:
            os.rename(old / target.name, target)
        raise
    finally:
        if old is not None and target.exists():
            shutil.rmtree(old, ignore_errors=True)
    _sync_folder(target.parent)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as stream:
                os.fsync(stream.fileno())
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable; systems that can't open a folder skip it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    """The process's umask: mkstemp and mkdtemp make private names, a published output should not be."""
    value = os.umask(0)
    os.umask(value)
    return value


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} could not be written: {error.strerror or error}",
        hint="free some space or choose another --output; nothing was changed",
    )
