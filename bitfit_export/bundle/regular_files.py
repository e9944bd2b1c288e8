"""Reading files that others made: regular ones only, without waiting, and never beyond a limit.

A FIFO without a writer, a device or a file that grows would keep a reader for ever, a sparse one fill the memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np

from bitfit_export.errors import BundleError

__all__ = ["COPY_AGAIN", "OPEN_AGAIN", "CheckBytes", "Checksums", "Stamp", "checksum_file", "read_file", "stamp_file"]

#: Looks at the bytes of a file and its path before anything of them is used, and raises a `BundleError` to refuse them.
CheckBytes: TypeAlias = Callable[[bytes, Path], None]

COPY_AGAIN = "copy the bundle again, or export it again"
OPEN_AGAIN = "open the bundle again when nothing writes into it any more"

# Some systems lack some of these flags.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """The identity of a file at a path, and the time of its last change."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @staticmethod
    def of(status: os.stat_result) -> Stamp:
        return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Checksums:
    """The facts about a file's bytes: size, CRC-32C, and SHA-256 where it was asked for."""

    size: int
    crc32c: int
    sha256: str | None

    @staticmethod
    def of(data: bytes, *, sha256: bool) -> Checksums:
        """Returns those of bytes that were read."""
        return Checksums(len(data), google_crc32c.value(data), hashlib.sha256(data).hexdigest() if sha256 else None)


def read_file(path: Path, *, limit: int, size: int | None = None) -> bytes:
    """Returns a regular file's bytes.

    Raises:
        BundleError: more than `limit` bytes, or not the `size` that it should have; none of them is read then.
        OSError: the file cannot be read, or is not a regular file.
    """
    with _open(path) as (descriptor, status):
        if status.st_size > limit:
            raise BundleError(f"{path} has {status.st_size} bytes, expected at most {limit}")
        if size is not None:
            _check_size(path, status, size)
        parts, left = [], limit + 1
        # Some files of the system have a size of 0 and bytes all the same, so the end counts and not the size.
        while left and (part := os.read(descriptor, min(left, max(status.st_size + 1, _CHUNK)))):
            parts.append(part)
            left -= len(part)
    if not left:
        raise BundleError(f"{path} has more than {limit} bytes, expected at most {limit}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def stamp_file(path: Path, *, size: int) -> Stamp:
    """Returns the identity of a regular file, none of which is read.

    Raises:
        BundleError: it has another size than `size`.
        OSError: the file cannot be opened, or is not a regular file.
    """
    with _open(path) as (_, status):
        _check_size(path, status, size)
        return Stamp.of(status)


def checksum_file(path: Path, *, size: int, sha256: bool) -> tuple[Checksums, Stamp]:
    """Returns the checksums of a regular file that may be larger than memory, and which file it was.

    Raises:
        BundleError: it has another size than `size`; it is not read then, unless it changes meanwhile.
        OSError: the file cannot be read, or is not a regular file.
    """
    crc, hasher, left = 0, hashlib.sha256(), size
    buffer = memoryview(bytearray(_CHUNK))
    array = np.frombuffer(buffer, np.uint8)  # google_crc32c takes bytes or arrays, and no other buffers
    with _open(path) as (descriptor, status), os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
        _check_size(path, status, size)
        while left and (count := stream.readinto(buffer[:left])):
            crc = google_crc32c.extend(crc, array[:count])
            if sha256:
                hasher.update(buffer[:count])
            left -= count
        before, after = Stamp.of(status), Stamp.of(os.fstat(descriptor))
    if left or before != after:
        raise BundleError(f"{path} changed while it was read", hint=OPEN_AGAIN)
    return Checksums(size, crc, hasher.hexdigest() if sha256 else None), after


@contextmanager
def _open(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file's descriptor and status."""
    try:
        _check_kind(os.stat(path).st_mode)  # before opening it, which is more than looking at some devices
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a path with a zero byte
        raise OSError(None, str(error)) from error
    try:
        status = os.fstat(descriptor)
        _check_kind(status.st_mode)
        yield descriptor, status
    finally:
        os.close(descriptor)


def _check_size(path: Path, status: os.stat_result, expected: int) -> None:
    if status.st_size != expected:
        raise BundleError(f"{path} has {status.st_size} bytes, expected {expected}", hint=COPY_AGAIN)


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(None, "it is not a regular file")
