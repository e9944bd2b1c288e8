"""What a run over a large file finds out before any work, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.errors import BusyError, InputError, OutputError, UsageError
from bitfit_export.files import locked
from bitfit_export.runtime import BiasSession
from bitfit_export.serving.on_ray.answer_file import AnswerFile
from tests.cli.conftest import write_lines
from tests.serving.conftest import WriteRow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "texts.jsonl", [{"task": "two_way", "text": f"Text {number}."} for number in range(7)]
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def test_parts_have_so_many_lines_and_those_that_are_there_are_done(
    session: BiasSession, source: Path, output: Path
) -> None:
    work = AnswerFile(session, source, output, part_lines=3)
    assert (work.parts, work.done) == (3, 0)
    (output / "part-000001.jsonl").touch()
    again = AnswerFile(session, source, output, part_lines=3)
    assert (again.parts, again.done) == (3, 1)
    for number in (0, 2):
        (output / f"part-{number:06}.jsonl").touch()
    assert list(AnswerFile(session, source, output, part_lines=3).run()) == []  # without a cluster


@pytest.mark.parametrize("change", ["task", "truncate", "part_lines", "input", "rows"])
def test_another_run_does_not_go_on_with_the_folder(
    session: BiasSession, source: Path, output: Path, add_row: WriteRow, change: str
) -> None:
    AnswerFile(session, source, output)
    options: dict[str, Any] = {"task": "three_way", "truncate": True, "part_lines": 3, "rows": [add_row("a")]}
    if change == "input":
        write_lines(source, [{"task": "two_way", "text": "Another."}])
    with pytest.raises(OutputError, match=f"has answers of a run with another {change}"):
        AnswerFile(session, source, output, **{change: options[change]} if change in options else {})


def test_a_folder_of_something_else_is_left_alone(session: BiasSession, source: Path, output: Path) -> None:
    output.mkdir()
    (output / "notes.txt").touch()
    with pytest.raises(OutputError, match="has other files, expected a new folder"):
        AnswerFile(session, source, output)
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    with pytest.raises(OutputError, match="which this command reads"):
        AnswerFile(session, source, source.parent)


def test_a_damaged_record_is_one_clear_error(session: BiasSession, source: Path, output: Path) -> None:
    AnswerFile(session, source, output)
    for text in ("{", "[]"):
        (output / "run.json").write_text(text)
        with pytest.raises(OutputError, match=r"run\.json is damaged"):
            AnswerFile(session, source, output)


def test_two_runs_do_not_answer_into_one_folder(session: BiasSession, source: Path, output: Path) -> None:
    work = AnswerFile(session, source, output)
    with locked(output / ".lock", "busy"), pytest.raises(BusyError, match="another process answers into"):
        next(work.run())


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("{", InputError, "line 8 of .* is not valid JSON"),
        (json.dumps({"task": "none", "text": "a"}), InputError, "line 8 of .*: .*'none'"),
        (json.dumps({"text": "a"}), UsageError, "line 8 of .* names no task"),
    ],
)
def test_a_bad_line_is_known_before_any_work(
    session: BiasSession, source: Path, output: Path, line: str, kind: type[Exception], message: str
) -> None:
    with source.open("a") as stream:
        stream.write(line)
    with pytest.raises(kind, match=message):
        AnswerFile(session, source, output, part_lines=2)
    assert not output.exists()


def test_a_file_without_texts_is_refused(session: BiasSession, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(InputError, match="has no JSON object"):
        AnswerFile(session, tmp_path / "empty", output)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        AnswerFile(session, tmp_path / "none", output)
