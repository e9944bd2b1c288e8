"""Nobody meets half a file: an output is there whole, or what was there before is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.errors import OutputError
from bitfit_export.files import canonical_json, new_folder, write_bytes


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "row"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["row"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "row"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["row"]


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "bundle"
    with new_folder(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert os.listdir(target.parent) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_whose_block_fails_never_appears(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise error

    with pytest.raises(error), new_folder(target, overwrite=True) as folder:
        fail(folder)
    assert (target / "manifest.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already") as caught, new_folder(tmp_path / "bundle"):
        pytest.fail("the block must not run")
    assert "--overwrite" in str(caught.value)


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    with new_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_overwrite_does_not_replace_a_file_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="not a folder"), new_folder(tmp_path / name, overwrite=True):
            pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "precious"


def test_overwrite_does_not_replace_a_folder_of_other_things(tmp_path: Path) -> None:
    """A slip of `--output .` must not cost a home folder."""
    (tmp_path / "home" / "photos").mkdir(parents=True)
    with pytest.raises(OutputError, match="other files") as caught, new_folder(tmp_path / "home", overwrite=True):
        pytest.fail("the block must not run")
    assert "remove the folder" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert os.listdir(tmp_path / "empty") == ["new"]
    assert os.listdir(tmp_path / "home") == ["photos"]


def test_an_output_has_the_usual_permissions(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        (folder / "file").write_text("x")
    write_bytes(tmp_path / "row", b"x")
    expected = os.umask(0)
    os.umask(expected)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~expected
    assert (tmp_path / "row").stat().st_mode & 0o777 == 0o666 & ~expected


def test_a_full_disk_ends_in_one_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    """On a real file system of 64 KiB that is full, where this machine lets us mount one."""
    script = f"""
import sys
from pathlib import Path
from bitfit_export.errors import OutputError
from bitfit_export.files import new_folder
target = Path({str(tmp_path)!r}) / "bundle"
with new_folder(target) as folder:
    (folder / "manifest.json").write_text("old")
try:
    with new_folder(target, overwrite=True) as folder:
        (folder / "file").write_bytes(b"x" * 1_000_000)
except OutputError as error:
    print(error.message)
print((target / "manifest.json").read_text(), sorted(p.name for p in target.parent.iterdir()))
"""
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=64k tmpfs {tmp_path} && "$0" -c "$1"']
    done = subprocess.run([*mount, sys.executable, script], capture_output=True, text=True, check=False)
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"can't mount a small file system here: {done.stderr.strip()}")
    assert "No space left on device" in done.stdout
    assert done.stdout.splitlines()[-1] == "old ['bundle']"


def test_the_same_value_gives_the_same_json() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
