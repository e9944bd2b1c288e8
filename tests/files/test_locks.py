"""A lock keeps everybody else out, goes with its process, and leaves no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.errors import BusyError
from bitfit_export.files import locks
from bitfit_export.files.locks import locked


def test_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", "taken"):
        with pytest.raises(BusyError, match="taken"), locked(tmp_path / "lock", "taken"):
            pytest.fail("the block must not run")
        assert os.listdir(tmp_path) == ["lock"]
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from bitfit_export.files.locks import locked
with locked(Path({str(tmp_path / "lock")!r}), "taken"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    assert os.listdir(tmp_path) == ["lock"]
    with locked(tmp_path / "lock", "taken"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_whose_file_was_removed_meanwhile_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends between the opening of its file and the locking."""
    path, take, seen = tmp_path / "lock", locks._take, []

    def removed_first(where: Path, descriptor: int, is_new: bool) -> bool:
        if not seen:
            where.unlink()
        seen.append(os.fstat(descriptor).st_ino)
        return take(where, descriptor, is_new)

    monkeypatch.setattr(locks, "_take", removed_first)
    with locked(path, "taken"):
        assert len(seen) == 2
        assert path.stat().st_ino == seen[1]


def test_the_file_of_another_holder_is_left_alone(tmp_path: Path) -> None:
    """The folder is removed while the lock is held, and another process makes it anew."""
    with locked(tmp_path / "lock", "taken"):
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").write_text("another's")
    assert (tmp_path / "lock").read_text() == "another's"


def test_without_locks_the_file_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path / "lock", "taken"):
        with pytest.raises(BusyError) as caught, locked(tmp_path / "lock", "taken"):
            pytest.fail("the block must not run")
        assert f"hint: remove {tmp_path}/lock if none is" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock", "taken"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["lock"]
