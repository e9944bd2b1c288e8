"""The files of `conformance/` that the Python package's tests read too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cpp.conftest import ROOT

CONFORMANCE = ROOT / "conformance"
MANIFESTS = json.loads((CONFORMANCE / "manifests" / "index.json").read_text(encoding="utf-8"))["files"]
JSONL = json.loads((CONFORMANCE / "jsonl" / "index.json").read_text(encoding="utf-8"))
HEADS = json.loads((CONFORMANCE / "heads" / "index.json").read_text(encoding="utf-8"))
#: How the C++ runtime says each kind of fault.
FAULTS = {
    "json": "is not valid JSON|starts with a byte order mark|twice|64 bits|no double|deeper than 64 levels",
    "missing": "lacks|has no ",
    "type": r" is (a|an|the|null|true|false|\d|\"|-)",
    "range": "expected|out of range|has more than|labels$",
    "value": "expected",
    "name": "has the name|expected a path inside|is malformed",
    "twice": "is there twice",
    "disagreement": "expected|the layout gives",
}


def test_manifests(ask: Callable[..., list[Any]]) -> None:
    found = ask("manifests", *(CONFORMANCE / "manifests" / name for name in MANIFESTS))
    assert len(found) == len(MANIFESTS) > 300
    for (name, expected), answer in zip(MANIFESTS.items(), found, strict=True):
        if expected["fault"] is None:
            assert answer == {"code": 0, "message": "", "hint": ""}, name
            continue
        assert answer["code"] == 1, name
        message = answer["message"].replace(str(CONFORMANCE), "")
        assert re.search(FAULTS[expected["fault"]], message), (name, expected, message)


def test_json_lines(ask: Callable[..., list[Any]]) -> None:
    files = JSONL["files"]
    found = ask("questions", JSONL["task"], *(CONFORMANCE / "jsonl" / name for name in files))
    assert len(found) == len(files) > 60
    for (name, expected), answer in zip(files.items(), found, strict=True):
        if expected["fault"] is None:
            assert answer == {"questions": expected["questions"]}, name
            continue
        line = "" if expected["line"] is None else f"line {expected['line']} of "
        assert answer["error"].startswith(f"{line}{CONFORMANCE / 'jsonl' / name} "), name


def test_json_of_lines_is_refused_as_such(ask: Callable[..., list[Any]]) -> None:
    names = [name for name, expected in JSONL["files"].items() if expected["fault"] == "json"]
    for answer in ask("questions", JSONL["task"], *(CONFORMANCE / "jsonl" / name for name in names)):
        assert re.search(FAULTS["json"], answer["error"])


def test_heads(ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    layout = {key: HEADS[key] for key in ("layout", "layout_digest")}
    (tmp_path / "layout").write_text(json.dumps(layout | {"base": {"digest": HEADS["layout"]["base_digest"]}}))
    rows = CONFORMANCE / "heads"
    found = ask("rows", tmp_path / "layout", *(rows / name for name in HEADS["rows"]))
    numbers = {None: 0, "BAD_HEAD": 10, "BAD_LABEL_COUNT": 11}
    assert dict(zip(HEADS["rows"], found, strict=True)) == {
        name: numbers[fault] for name, fault in HEADS["rows"].items()
    }
