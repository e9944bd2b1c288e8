"""A lock that goes with its process, however that ends. Needs nothing but the operating system.

The lock is a file that its holder has locked and removes when it is done. Whoever opened the file before it was removed
holds a lock of a file without a name, which keeps nobody out: so the file is compared with the name once it is locked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bitfit_export.errors import BusyError

try:
    import fcntl
except ImportError:  # not a POSIX system: there, the file's existence is the lock
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked"]

_PAUSE_SECONDS = 0.01


@contextlib.contextmanager
def locked(
    path: Path, busy: str, *, patience: float = 0, hint: str = "wait for it to end, or choose another --output"
) -> Iterator[None]:
    """Keep every other process and thread that locks `path` out while the block runs.

    Args:
        path: the lock's file, in an existing folder. It is there only while the lock is held, or after a kill.
        busy: the message where another process holds the lock.
        patience: for how many seconds to wait for it.
        hint: what to do then.

    Raises:
        BusyError: another process or thread holds the lock.
        OSError: the file cannot be made.
    """
    deadline = time.monotonic() + patience
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise BusyError(busy, hint=hint)
        time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        _unlock(path, descriptor)


def _try_lock(path: Path) -> int | None:
    """Returns a descriptor that holds the lock, or None while another process or thread does."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            descriptor, is_new = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, is_new = os.open(path, flags), False
            except FileNotFoundError:
                continue  # its holder has just removed it
        if not _take(path, descriptor, is_new):
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _take(path: Path, descriptor: int, is_new: bool) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    if is_new:
        return True
    os.close(descriptor)
    raise BusyError(
        f"{path} says that another process is at work, and this file system cannot tell whether it still is",
        hint=f"remove {path} if none is",
    )


def _unlock(path: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        # Only the holder removes the file; one that is another's was made after this one's whole folder was removed.
        if _is_at(path, descriptor):
            os.unlink(path)
    os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
