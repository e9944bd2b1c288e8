"""Texts to calibrate with: JSON lines, plain lines, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.cli.calibration_texts import read_calibration_texts
from bitfit_export.errors import InputError


def written(folder: Path, data: bytes) -> Path:
    path = folder / "texts"
    path.write_bytes(data)
    return path


def test_a_plain_line_is_a_text(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbfOne text.\r\n\n  Gr\xc3\xbc\xc3\x9fe \n"quoted"')
    assert read_calibration_texts(path) == [("One text.",), ("Grüße",), ('"quoted"',)]


def test_a_json_line_is_what_bitfit_run_takes(tmp_path: Path) -> None:
    lines = b"""{"task": "sst2", "text": "one"}
{"sentence1": "a", "sentence2": "b", "label": 1}
{"question": "Who?", "context": "Ada."}
{"tokens": ["Ada", "lives"]}
"""
    expected = [("one",), ("a", "b"), ("Who?", "Ada."), ("Ada lives",)]
    assert read_calibration_texts(written(tmp_path, lines)) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no text, expected one per line"),
        (b" \n\n", "has no text, expected one per line"),
        (b'fine\n{"text": ', "line 2 of .* is not valid JSON"),
        (b'{"label": 1}', "line 1 of .* has label, expected text"),
        (b"fine\n\xff", "line 2 of .* is not UTF-8"),
    ],
)
def test_what_has_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_calibration_texts(written(tmp_path, data))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing cannot be read: No such file"):
        read_calibration_texts(tmp_path / "missing")
