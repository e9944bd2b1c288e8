"""Writing files and folders so that nobody ever meets half of one.

While the output `<name>` is written, hidden names stand beside it:

    .<name>.bitfit-lock   locked by the process that writes; a second one is refused
    .<name>.bitfit-new    what is written; it takes the place of <name> in one step, and is synced before
    .<name>.bitfit-old    what stood there, between two renames, where a system can't exchange two names in one step

They go when the write ends, well or not (an exception, a full disk, Ctrl-C). A process that is killed leaves them.
Whoever writes the same output next puts `old` back if the output is missing, and removes the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitfit_export.errors import OutputError
from bitfit_export.files.locks import locked
from bitfit_export.files.outputs import OutputKind, refuse_existing, refuse_overlap

__all__ = [
    "canonical_json",
    "check_output",
    "new_folder",
    "scratch_folder",
    "sha256_of_file",
    "write_bytes",
]

#: How long a file waits for another process that writes the same one, in seconds. A folder does not wait.
_PATIENCE = 10
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_INTERRUPTS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, two spaces and a final newline: the same value gives the same bytes."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically, replacing a file that is there; wait while another process writes it.

    Raises:
        OutputError: the folder is missing, read-only or full; the old file is untouched.
        BusyError: another process has been writing the file for a long time.
    """
    with _output_errors(path), _writing(path, patience=_PATIENCE) as new:
        with open(new, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(target: Path, *, replaces: OutputKind | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `target` that becomes `target` when the block ends well.

    Args:
        replaces: a folder of this kind that is at `target`, or an empty one, is replaced. The old folder is there until
            the new one is; a system that can't exchange two names in one step has neither for a moment.

    Raises:
        OutputError: `target` exists and may not be replaced, or cannot be written; it is left as it was.
        BusyError: another process is writing `target`.
    """
    target = _named(target)
    _refuse_before_lock(target, replaces)
    made: os.stat_result | None = None
    try:
        with _output_errors(target), _writing(target, parents=True) as new:
            refuse_existing(target, replaces=replaces)
            os.mkdir(new)
            made = os.stat(new)
            yield new
            _sync_tree(new)
            refuse_existing(target, replaces=replaces)
            _publish(new, target)
    except KeyboardInterrupt as error:
        published = made is not None and target.exists() and os.path.samestat(target.stat(), made)
        error.add_note(f"{target} is complete" if published else f"{target} was not changed")
        raise


@contextlib.contextmanager
def scratch_folder(name: Path) -> Iterator[Path]:
    """Give an empty hidden folder beside `name`, for one process at a time, that goes when the block ends.

    Raises:
        BusyError: another process has it.
    """
    with _writing(name, parents=True) as new:
        os.mkdir(new)
        yield new


def check_output(target: Path, *, inputs: Iterable[Path | str | None] = (), replaces: OutputKind | None = None) -> None:
    """Find out before any work whether `new_folder` may write `target`; put right what a killed process left there.

    Args:
        inputs: what the command reads, see `refuse_overlap`.

    Raises:
        OutputError: `target` exists and may not be replaced, or overlaps with an input.
        BusyError: another process is writing it.
    """
    target = _named(target)
    refuse_overlap(target, inputs)
    if any(os.path.lexists(_beside(target, what)) for what in ("lock", "new", "old")):
        with _output_errors(target), _writing(target):
            pass
    _refuse_before_lock(target, replaces)


def _refuse_before_lock(target: Path, replaces: OutputKind | None) -> None:
    """`refuse_existing` where the lock is not held: what another process is removing just then is no reason."""
    try:
        refuse_existing(target, replaces=replaces)
    except OutputError:
        # While somebody writes, only the check under the lock counts. A writer who has just ended left it whole.
        if not os.path.lexists(_beside(target, "lock")):
            refuse_existing(target, replaces=replaces)


# --- the hidden names


def _named(target: Path) -> Path:
    """The output by a path that ends with its name, so that there is something beside it."""
    return target.resolve() if target.name in ("", "..") else target


def _beside(target: Path, what: str) -> Path:
    return target.parent / f".{target.name}.bitfit-{what}"


@contextlib.contextmanager
def _writing(target: Path, *, parents: bool = False, patience: float = 0) -> Iterator[Path]:
    """Hold the output's lock, give the name under which to write, and leave nothing beside the output."""
    if parents:
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(_beside(target, "lock"), f"another process is writing {target}", patience=patience):
        try:
            _tidy(target)
            yield _beside(target, "new")
        finally:
            with _interrupts_held():
                _tidy(target)


def _tidy(target: Path) -> None:
    """Put back what was moved aside, and remove what was not published. The caller holds the lock."""
    new, old = _beside(target, "new"), _beside(target, "old")
    if os.path.lexists(old) and not os.path.lexists(target):
        os.rename(old, target)
    for path in (new, old):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _publish(new: Path, target: Path) -> None:
    """Let `new` take the place of `target`; a folder that was there stands beside it then."""
    if not os.path.lexists(target):
        os.rename(new, target)
    elif not _exchange(new, target):
        with _interrupts_held():
            os.rename(target, _beside(target, "old"))
            try:
                os.rename(new, target)
            except OSError:
                os.rename(_beside(target, "old"), target)
                raise
    _sync_folder(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; returns False where the system or the file system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let signals that would end the process wait until the block has ended.

    Handlers are replaced, since a blocked signal goes to another thread. Python runs them in the main thread alone, and
    only there can they be replaced.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _INTERRUPTS}
    handlers = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    held: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)


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


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}",
            hint="free some space or choose another --output; existing files were not changed",
        ) from error
