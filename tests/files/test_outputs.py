"""Only an output of the same kind, with nothing else in it, is replaced; and none that a command reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bitfit_export.bundle import BUNDLE, MANIFEST_FILE
from bitfit_export.delta import CONFIG_FILE, DELTA
from bitfit_export.errors import OutputError
from bitfit_export.files.outputs import OutputKind, refuse_existing, refuse_overlap
from bitfit_export.interop.delta_lookup import SHIPPED
from tests.files.struck_writer import KIND, write

#: Another folder's content -> what the refusal says of it.
FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "file": (lambda folder: (folder / "notes.txt").touch(), "holds 'notes.txt', which is not part of a thing"),
    "deep file": (lambda folder: (folder / "a/b.txt").touch(), "holds 'a/b.txt'"),
    "hidden file": (lambda folder: (folder / ".env").touch(), "holds '.env'"),
    "empty folder": (lambda folder: (folder / "photos").mkdir(), "holds 'photos'"),
    "link": (lambda folder: (folder / "home").symlink_to("/"), "holds 'home'"),
    "no mark": (lambda folder: (folder / "mark.json").unlink(), "is not a thing (it has no valid mark.json)"),
    "mark of another kind": (lambda folder: (folder / "mark.json").write_text('{"name": "x"}'), "is not a thing"),
    "mark that is a list": (lambda folder: (folder / "mark.json").write_text("[]"), "is not a thing"),
    "mark that is cut off": (lambda folder: (folder / "mark.json").write_text('{"files"'), "is not a thing"),
    "mark that nests": (lambda folder: (folder / "mark.json").write_text("[" * 100_000), "is not a thing"),
    "pipe": (lambda folder: (folder / "mark.json").unlink() or os.mkfifo(folder / "mark.json"), "is not a thing"),
}


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    (tmp_path / "thing").mkdir()
    write(tmp_path / "thing", "x")
    return tmp_path / "thing"


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_with_anything_else_is_not_replaced(thing: Path, what: str) -> None:
    refuse_existing(thing, replaces=KIND)
    change, message = FOREIGN[what]
    change(thing)
    with pytest.raises(OutputError) as caught:
        refuse_existing(thing, replaces=KIND)
    assert message in caught.value.message
    assert caught.value.hint == "choose another --output, or remove the folder"


def test_a_file_or_a_link_is_not_replaced(tmp_path: Path, thing: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(thing)
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="not a folder"):
            refuse_existing(tmp_path / name, replaces=KIND)


def test_a_file_that_was_changed_since_is_somebodys_work(tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_text("{}")
    (tmp_path / "file").write_text("trained on")
    kind = OutputKind("a thing", "mark.json", lambda mark: {"mark.json": None, "file": "0" * 64})
    with pytest.raises(OutputError, match="holds 'file', which was changed since it was written"):
        refuse_existing(tmp_path, replaces=kind)


def test_deltas_that_ship_may_be_replaced() -> None:
    found = [path.parent for path in SHIPPED.rglob(CONFIG_FILE)]
    assert found
    for folder in found:
        refuse_existing(folder, replaces=DELTA)


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        (BUNDLE, MANIFEST_FILE, '{"name": "My site", "icons": [], "start_url": "/"}'),
        (BUNDLE, MANIFEST_FILE, '{"manifest_version": 3, "name": "an extension", "version": "1"}'),
        (DELTA, CONFIG_FILE, '{"model_type": "bert"}'),
        (DELTA, CONFIG_FILE, '{"format_version": 1, "base_digest": "zz", "problem_type": "single_label"}'),
    ],
)
def test_another_programs_file_of_the_same_name_is_no_mark(
    tmp_path: Path, kind: OutputKind, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match=f"is not {kind.name}"):
        refuse_existing(tmp_path, replaces=kind)


def test_a_bundle_may_be_replaced_and_no_other_kind(tiny_bundle: Path) -> None:
    refuse_existing(tiny_bundle, replaces=BUNDLE)
    with pytest.raises(OutputError, match="is not a task delta"):
        refuse_existing(tiny_bundle, replaces=DELTA)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("model", "is"),
        ("link", "is"),
        ("model/../model", "is"),
        ("model/new/deep", "is inside"),
        ("link/new", "is inside"),
        (".", "contains"),
    ],
)
def test_an_output_is_no_input_and_neither_above_nor_below_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    with pytest.raises(OutputError, match=f"^the output .* {message} .*, which this command reads"):
        refuse_overlap(Path(output), ["model"])
    with pytest.raises(OutputError, match=f"^the output .* {message} "):
        refuse_overlap(tmp_path / output, ["link"])


def test_an_output_beside_its_inputs_is_fine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "train.jsonl").touch()
    inputs = [None, tmp_path / "missing", tmp_path / "model", tmp_path / "train.jsonl", "org/name"]
    for output in ("out", "model-2", "model.new/deep"):
        refuse_overlap(tmp_path / output, inputs)
    with pytest.raises(OutputError, match="contains"):
        refuse_overlap(tmp_path, [tmp_path / "train.jsonl"])
