"""Nobody meets half a file: an output is there whole, or what was there before is."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitfit_export.errors import BusyError, OutputError
from bitfit_export.files import canonical_json, check_output, new_folder, scratch_folder, write_bytes, writing
from tests.files.struck_writer import KIND, write


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


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    """An output that may be replaced, alone in its folder."""
    folder = tmp_path / "outputs/thing"
    folder.mkdir(parents=True)
    write(folder, "old")
    return folder


def content(folder: Path) -> str:
    return (folder / "a/file").read_text()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_whose_block_fails_never_appears(thing: Path, error: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        write(folder, "half")
        raise error

    with pytest.raises(error), new_folder(thing, replaces=KIND) as folder:
        fail(folder)
    assert content(thing) == "old"
    assert os.listdir(thing.parent) == ["thing"]


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already") as caught, new_folder(tmp_path / "bundle"):
        pytest.fail("the block must not run")
    assert "--overwrite" in str(caught.value)


@pytest.mark.parametrize("one_step", [True, False])
def test_a_folder_is_replaced_with_all_that_is_in_it(
    thing: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    if not one_step:
        monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    with new_folder(thing, replaces=KIND) as folder:
        (folder / "new").write_text("new")
    assert os.listdir(thing) == ["new"]
    assert os.listdir(thing.parent) == ["thing"]


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty", replaces=KIND) as folder:
        write(folder, "new")
    assert content(tmp_path / "empty") == "new"


def test_the_working_folder_may_be_replaced(thing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(thing)
    with new_folder(Path(), replaces=KIND) as folder:
        write(folder, "new")
    assert content(thing) == "new"
    assert os.listdir(thing.parent) == ["thing"]


def test_what_became_somebody_elses_meanwhile_is_not_replaced(thing: Path) -> None:
    def write_both(folder: Path) -> None:
        write(folder, "new")
        (thing / "precious").touch()

    with pytest.raises(OutputError, match="precious"), new_folder(thing, replaces=KIND) as folder:
        write_both(folder)
    assert content(thing) == "old"
    assert sorted(os.listdir(thing)) == ["a", "mark.json", "precious"]


# --- signals and kills


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems rename twice")
def test_readers_find_an_output_at_every_moment(thing: Path) -> None:
    stop, missing = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if not thing.exists():
                missing.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(50):
        with new_folder(thing, replaces=KIND) as folder:
            write(folder, str(number))
    stop.set()
    reader.join()
    assert not missing
    assert content(thing) == "49"


@pytest.mark.parametrize(
    ("number", "way", "every"),
    [
        (signal.SIGKILL, "exchange", 5),
        (signal.SIGKILL, "renames", 5),
        (signal.SIGTERM, "exchange", 5),
        (signal.SIGTERM, "renames", 5),
        # A kill is the stronger of the two, and two renames the way with more states between.
        pytest.param(signal.SIGKILL, "renames", 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "exchange", 1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_at_any_line_leaves_the_old_output_or_the_new_one(
    tmp_path: Path, number: signal.Signals, way: str, every: int
) -> None:
    """A writer is struck at each of some 400 lines or every fifth; what it leaves is gone when the next has looked."""
    command = [
        sys.executable,
        "-m",
        "tests.files.struck_writer",
        str(tmp_path / "outputs"),
        number.name,
        way,
        str(every),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    struck = json.loads(done.stdout)
    assert len(struck) > 300 / every
    assert {each["after"]["output"] for each in struck} >= {"old", "new"}
    for step, each in enumerate(struck):
        after = each["after"]["output"]
        if number == signal.SIGKILL and way == "renames" and after is None:
            assert each["next"]["output"] == "old", step
        else:
            assert after == each["next"]["output"], step
            assert after in ("old", "new"), step
        assert each["next"]["beside"] == ["thing"], step
        if each["note"]:
            assert each["note"].endswith("was not changed" if after == "old" else "is complete"), step


def kill_between_the_renames(target: Path) -> None:
    """Leave what a process leaves that is killed where the system can't exchange two names."""
    target.rename(target.parent / f".{target.name}.bitfit-old")
    half = target.parent / f".{target.name}.bitfit-new"
    half.mkdir()
    (half / "half").touch()
    (target.parent / f".{target.name}.bitfit-lock").touch()


def test_a_folder_that_a_killed_process_moved_aside_is_put_back(thing: Path) -> None:
    kill_between_the_renames(thing)
    with pytest.raises(OutputError, match="exists already"):
        check_output(thing)
    assert content(thing) == "old"
    assert os.listdir(thing.parent) == ["thing"]
    kill_between_the_renames(thing)
    with pytest.raises(OutputError, match="exists already"), new_folder(thing):
        pytest.fail("the block must not run")
    assert content(thing) == "old"
    assert os.listdir(thing.parent) == ["thing"]


def test_a_file_of_a_killed_process_is_cleaned_up_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".row.bitfit-new").write_text("half")
    (tmp_path / ".row.bitfit-lock").touch()
    write_bytes(tmp_path / "row", b"whole")
    assert os.listdir(tmp_path) == ["row"]


def test_what_lies_beside_another_output_stays(tmp_path: Path) -> None:
    (tmp_path / ".row.b.bitfit-new").touch()
    write_bytes(tmp_path / "row", b"x")
    assert sorted(os.listdir(tmp_path)) == [".row.b.bitfit-new", "row"]


def test_a_second_rename_that_fails_is_undone(thing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def fail_once(source: object, target: object) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OutputError, match="Input/output error"), new_folder(thing, replaces=KIND) as folder:
        write(folder, "new")
    assert content(thing) == "old"
    assert os.listdir(thing.parent) == ["thing"]


def test_the_handlers_of_signals_are_as_before(thing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    with new_folder(thing, replaces=KIND) as folder:
        write(folder, "new")
    assert [signal.getsignal(number) for number in numbers] == before


# --- several writers


def test_a_second_writer_of_a_folder_is_refused(thing: Path) -> None:
    with new_folder(thing, replaces=KIND) as folder:
        write(folder, "first")
        with pytest.raises(BusyError, match="another process is writing"), new_folder(thing, replaces=KIND):
            pytest.fail("the block must not run")
        with pytest.raises(BusyError):
            check_output(thing, replaces=KIND)
        with new_folder(thing.parent / "other") as other:
            write(other, "other")
    assert content(thing) == "first"
    assert sorted(os.listdir(thing.parent)) == ["other", "thing"]


def test_what_stands_there_while_another_writes_is_no_reason_to_refuse(thing: Path) -> None:
    """A writer that replaces the folder empties the old one: who looks then must wait for it, not judge it."""

    def look() -> type[Exception]:
        try:
            with new_folder(thing, replaces=KIND):
                pytest.fail("the block must not run")
        except OutputError as error:
            return type(error)

    found = []

    def replace() -> None:
        with new_folder(thing, replaces=KIND) as folder:
            write(folder, "first")
            (thing / "strange").touch()
            found.append(look())

    with pytest.raises(OutputError, match="not part of"):
        replace()
    assert found == [BusyError]


def run_together(job: Callable[[Path, int], object], target: Path, processes: int = 3) -> None:
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=job, args=(target, number)) for number in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes


def write_files(target: Path, number: int) -> None:
    for _ in range(50):
        write_bytes(target, str(number).encode() * 10_000)


def write_folders(target: Path, number: int) -> None:
    for _ in range(50):
        try:
            with new_folder(target, replaces=KIND) as folder:
                write(folder, str(number))
        except BusyError:
            pass


def test_processes_that_write_one_file_take_turns(tmp_path: Path) -> None:
    run_together(write_files, tmp_path / "row")
    assert (tmp_path / "row").read_bytes() in [str(number).encode() * 10_000 for number in range(3)]
    assert os.listdir(tmp_path) == ["row"]


def test_processes_that_write_one_folder_are_kept_apart(thing: Path) -> None:
    run_together(write_folders, thing)
    assert content(thing) in "012"
    assert os.listdir(thing.parent) == ["thing"]


def test_scratch_goes_when_its_block_ends(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    with scratch_folder(tmp_path / "ray") as folder:
        (folder / "file").touch()
        with pytest.raises(BusyError), scratch_folder(tmp_path / "ray"):
            pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["ray"]


# --- permissions, limits


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the process's: files that other threads make meanwhile would be open to everyone."""

    def fail(mask: int) -> int:
        pytest.fail("the umask was set")

    monkeypatch.setattr(os, "umask", fail)
    write_bytes(tmp_path / "row", b"x")
    with new_folder(tmp_path / "bundle") as folder:
        write(folder, "x")


def test_an_output_has_the_usual_permissions(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        (folder / "file").write_text("x")
    write_bytes(tmp_path / "row", b"x")
    expected = os.umask(0)
    os.umask(expected)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~expected
    assert (tmp_path / "row").stat().st_mode & 0o777 == 0o666 & ~expected


@contextmanager
def small_files() -> Iterator[None]:
    """A limit of 1,000 bytes on the size of files; also on that of a file to which pytest writes, so not for long."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_the_system_stops_leaves_what_was_there(thing: Path) -> None:
    with small_files():
        with pytest.raises(OutputError, match="File too large"), new_folder(thing, replaces=KIND) as folder:
            write(folder, "x" * 2000)
        with pytest.raises(OutputError, match="File too large"):
            write_bytes(thing.parent / "row", b"x" * 2000)
    assert content(thing) == "old"
    assert os.listdir(thing.parent) == ["thing"]


def test_a_full_disk_ends_in_one_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    """On a real file system of 64 KiB that is full, where this machine lets us mount one."""
    script = f"""
import sys
from pathlib import Path
from bitfit_export.errors import OutputError
from bitfit_export.files import new_folder
from tests.files.struck_writer import KIND, write
target = Path({str(tmp_path)!r}) / "bundle"
with new_folder(target) as folder:
    write(folder, "old")
try:
    with new_folder(target, replaces=KIND) as folder:
        (folder / "file").write_bytes(b"x" * 1_000_000)
except OutputError as error:
    print(error.message)
print((target / "a/file").read_text(), sorted(p.name for p in target.parent.iterdir()))
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
