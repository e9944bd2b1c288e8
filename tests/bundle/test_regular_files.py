"""Files that others made are read without waiting, and never beyond a limit."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from bitfit_export.bundle import MANIFEST_FILE, read_manifest, read_row
from bitfit_export.bundle import regular_files as module
from bitfit_export.bundle.regular_files import Checksums, checksum_file, read_file
from bitfit_export.errors import BundleError


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


#: What may stand at a path in place of a file.
OTHERS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "socket": listen,
    "link in a circle": lambda path: path.symlink_to(path.name),
    "terabyte of zeros": sparse,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
class TestOtherThanFiles:
    def test_reading(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        make(Path("x"))
        with pytest.raises((OSError, BundleError)):
            read_file(Path("x"), limit=100)
        with pytest.raises((OSError, BundleError)):
            checksum_file(Path("x"), size=100, sha256=True)

    def test_rows_and_manifests(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        make(Path(MANIFEST_FILE))
        with pytest.raises(BundleError):
            read_manifest(Path())
        with pytest.raises(BundleError):
            read_row(Path(MANIFEST_FILE))


def test_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, limit=5) == b"12345"
    with pytest.raises(BundleError, match="has 5 bytes, expected at most 4"):
        read_file(path, limit=4)
    with pytest.raises(BundleError, match="has 5 bytes, expected 6"):
        read_file(path, limit=9, size=6)


def test_a_file_that_grows_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    served = []

    def read(descriptor: int, count: int) -> bytes:
        served.append(min(count, 1000))
        return b"x" * served[-1]

    monkeypatch.setattr(module.os, "read", read)
    with pytest.raises(BundleError, match="more than 4500 bytes"):
        read_file(path, limit=4500)
    assert sum(served) == 4501


def test_a_file_without_a_size_is_read_to_its_end() -> None:
    path = Path("/proc/self/limits")
    if not path.is_file():
        pytest.skip("needs /proc")
    assert b"Max open files" in read_file(path, limit=10_000)


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"123456789", os.urandom(3_000_001)):
        path.write_bytes(data)
        found, stamp = checksum_file(path, size=len(data), sha256=True)
        assert found == Checksums.of(data, sha256=True)
        assert found.crc32c == google_crc32c.value(data)
        assert stamp.size == len(data)
        assert checksum_file(path, size=len(data), sha256=False)[0].sha256 is None


def test_a_file_that_is_truncated_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(5_000_000))
    extend = google_crc32c.extend

    def cut(*arguments: object) -> object:
        os.truncate(path, 1_000_000)
        return extend(*arguments)

    monkeypatch.setattr(module.google_crc32c, "extend", cut)
    with pytest.raises(BundleError, match="changed while it was read"):
        checksum_file(path, size=5_000_000, sha256=False)


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "no/such/file", ""])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_row(Path(path))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    (tmp_path / "x").write_bytes(b"x" * 10)
    before = len(list(folder.iterdir()))
    for limit in (5, 10):
        for _ in range(5):
            try:
                read_file(tmp_path / "x", limit=limit)
            except BundleError:
                assert limit == 5
    assert len(list(folder.iterdir())) == before
