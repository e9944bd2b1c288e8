"""What a command exits with and says, whatever becomes of its streams and whatever it raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitfit_export import errors
from bitfit_export.cli.status import exit_status
from bitfit_export.cli.streams import json_text
from bitfit_export.cli.text_tables import print_table
from bitfit_export.delta import CONFIG_FILE, TaskDelta
from bitfit_export.runtime.threads import most_threads
from tests.cli.conftest import Bitfit
from tests.test_errors import HOSTILE

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX's streams")
_SCRIPT = """import sys
from bitfit_export.cli.status import exit_status
def command():
    {}
sys.exit(exit_status(command))
"""


def run(
    body: str, *, buffered: bool = True, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """A process whose command does this and is done."""
    command = [sys.executable, "-c", _SCRIPT.format(f"{body}\n    return 0")]
    variables = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"} | (environment or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run(command, env=variables, check=False, **pipes | options)


def raised(error: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Status and lines of stderr of a command that raises this."""

    def command() -> int:
        raise eval(error)

    status = exit_status(command)
    return status, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        ("errors.VerificationError('differs')", 1, "error: differs"),
        ("errors.UsageError('bad')", 2, "error: bad"),
        ("errors.OutputError('full')", 2, "error: full"),
        ("OSError(28, 'No space left', 'a\\x1bb')", 2, r"error: a\x1bb: No space left"),
        ("MemoryError()", 2, "error: there is too little memory: MemoryError"),
        ("RuntimeError('DefaultCPUAllocator: not enough memory: you tried')", 2, "error: there is too little memory: "),
        ("KeyboardInterrupt()", 130, "interrupted"),
    ],
)
def test_what_is_raised_becomes_a_status_and_a_line(
    capsys: pytest.CaptureFixture[str], error: str, status: int, line: str
) -> None:
    found, lines = raised(error, capsys)
    assert found == status
    assert lines[0].startswith(line)
    assert len(lines) <= 2


@pytest.mark.parametrize("error", ["KeyError('a')", "RecursionError()", "ZeroDivisionError()", "ImportError('x')"])
def test_a_fault_of_the_program_is_not_a_failed_verification(capsys: pytest.CaptureFixture[str], error: str) -> None:
    status, lines = raised(error, capsys)
    assert status == 70
    assert lines[0].startswith("Traceback")
    assert lines[-2].startswith("error: bitfit-export has a fault")


def test_only_verification_exits_with_1() -> None:
    kinds = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.BitfitError)
    ]
    assert [kind.__name__ for kind in kinds if kind.exit_code == 1] == ["VerificationError"]
    assert {kind.exit_code for kind in kinds} == {1, 2}


@POSIX
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stdout_is_an_error(buffered: bool) -> None:
    with open("/dev/full", "w") as full:
        done = run("print('answer')", buffered=buffered, stdout=full)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == "error: stdout could not be written: No space left on device"
        # The error itself cannot be said there, and progress that cannot be said ends nothing.
        assert run("raise OSError('x')", buffered=buffered, stderr=full).returncode == 2
        done = run("print('progress', file=sys.stderr); print('answer')", buffered=buffered, stderr=full)
        assert (done.returncode, done.stdout) == (0, "answer\n")


@POSIX
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_goes_away_ends_the_command_quietly(buffered: bool) -> None:
    for body in ("print('a')", "[print('a' * 1000) for _ in range(1000)]"):
        reading, writing = os.pipe()
        os.close(reading)
        done = run(body, buffered=buffered, stdout=writing)
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, "")


@POSIX
@pytest.mark.parametrize(("descriptor", "status"), [(0, 0), (1, 2), (2, 0)])
def test_a_closed_stream_gives_its_number_to_no_file(tmp_path: Path, descriptor: int, status: int) -> None:
    path = tmp_path / "file"
    body = (
        f"file = open({str(path)!r}, 'w'); print('said', file=sys.stderr); assert file.fileno() > 2; sys.stdin.read()"
    )
    done = run(body, preexec_fn=lambda: os.close(descriptor), stdin=subprocess.DEVNULL)
    assert done.returncode == status
    if descriptor == 1:
        assert done.stderr.startswith("error: stdout is closed")
    else:
        assert (done.stdout, path.read_text()) == ("", "")


@POSIX
def test_a_path_of_any_bytes_and_a_text_of_any_language_can_be_printed() -> None:
    done = run(r"print('\u65e5\udcff')", text=False, environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"\xe6\x97\xa5\xff\n")


def test_help_that_cannot_be_written_is_an_error() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bitfit_export", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.splitlines()[0][:6]) == (2, "error:")


# --- text from outside


def printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_hostile_arguments_reach_no_terminal(bitfit: Bitfit, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.replace("\0", "")
    for words in (["inspect", name], ["run", name, "--task", name, "--text", name], ["bench", "x", "--shapes", name]):
        done = bitfit(*words)
        assert done.status == 2
        assert printable(done.err)
        assert len(done.err.splitlines()) <= 2
    for words in ([name], ["inspect", "x", name], ["bench", "x", "--rounds", name]):
        with pytest.raises(SystemExit) as left:
            bitfit(*words)
        assert left.value.code == 2
        assert printable(capsys.readouterr().err)


def test_inspect_shows_names_of_a_delta_escaped_and_short(
    bitfit: Bitfit, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    tiny_deltas["two_way"].save(tmp_path / "delta", card="")
    path = tmp_path / "delta" / CONFIG_FILE
    config = json.loads(path.read_text())
    hostile = "a\u202e\u2066b"  # no control characters, but a terminal would turn the line around
    path.write_text(
        json.dumps(config | {"base_model": hostile, "labels": [hostile, "y" * 500], "metrics": {hostile: 1}})
    )
    done = bitfit("inspect", tmp_path / "delta")
    assert done.status == 0, done.err
    assert printable(done.out)
    assert r"base: a\u202e\u2066b" in done.out
    assert "y" * 200 not in done.out
    path.write_text(json.dumps(config | {"base_model": HOSTILE}))
    done = bitfit("inspect", tmp_path / "delta")
    assert done.status == 2
    assert printable(done.err)


def test_tables_and_json_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "x"), [(HOSTILE, "1"), ("n" * 10_000, HOSTILE)])
    printed = capsys.readouterr().err
    assert printable(printed)
    assert len(printed.splitlines()) == 4
    text = json_text({"a": HOSTILE.replace("\ud800", ""), "b": "日"})
    assert json.loads(text) == {"a": HOSTILE.replace("\ud800", ""), "b": "日"}
    assert all(ord(each) >= 32 and not 127 <= ord(each) < 160 and each not in "\u2028\u2029" for each in text)
    assert "日" in text


@pytest.mark.parametrize("threads", [0, -1, most_threads() + 1, 5000, 2**70])
def test_too_many_threads_are_refused_before_anything_is_loaded(bitfit: Bitfit, threads: int) -> None:
    training = ["--model", "minilm-l6", "--data", "no-such-data", "--threads", threads]
    for words in (
        ["run", "no-such-bundle", "--task", "a", "--text", "a", "--threads", threads],
        ["bench", "no-such-bundle", "--threads", threads],
        ["train", "--task", "mood", *training],
        ["sweep", "--tasks", "mood", *training],
    ):
        done = bitfit(*words)
        assert done.status == 2
        assert done.err.startswith(f"error: --threads is {threads}, expected"), done.err
