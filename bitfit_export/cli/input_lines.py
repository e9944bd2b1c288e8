"""Lines of input: JSON objects that hold texts, and files of texts to calibrate with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bitfit_export.bundle.json_dialect import parse_json
from bitfit_export.bundle.limits import MAX_LINE_SIZE
from bitfit_export.errors import InputError, quoted, shown
from bitfit_export.runtime.text.json_text import text_of

__all__ = ["lines_of", "object_of", "read_calibration_texts"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_calibration_texts(path: Path) -> list[tuple[str, ...]]:
    """The texts of a file: JSON lines as `bitfit run --input` takes them, or a text per line.

    Raises:
        InputError: the file cannot be read or has no text; a line that starts as a JSON object and is none.
    """
    texts: list[tuple[str, ...]] = []
    try:
        with path.open("rb") as stream:
            for number, line in lines_of(str(path), stream):
                line = line.strip()
                if line:
                    texts.append(_calibration_text(line, f"line {number} of {path}"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not texts:
        raise InputError(
            f"{path} has no text, expected one per line", hint="leave --calibration out to use sample texts"
        )
    return texts


def _calibration_text(line: bytes, where: str) -> tuple[str, ...]:
    if not line.startswith(b"{"):
        try:
            return (line.decode(),)
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8") from error
    text = text_of(object_of(line, where), where)
    if isinstance(text, list):
        return (" ".join(text),)
    return (text,) if isinstance(text, str) else tuple(text)


def object_of(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        InputError: the line is not JSON, or no object.
    """
    try:
        value = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON: {shown(str(error), 200)}") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{where} is {quoted(value)}, expected an object",
            hint="write one JSON object per line, without brackets around them" if isinstance(value, list) else None,
        )
    return value


def lines_of(name: str, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, without its line feed; a line that is too long is not read."""
    number = 0
    while line := stream.readline(MAX_LINE_SIZE + len(_BYTE_ORDER_MARK) + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        line = line.removesuffix(b"\n")
        if len(line) > MAX_LINE_SIZE:
            raise InputError(f"line {number} of {name} is too long, expected at most {MAX_LINE_SIZE} bytes")
        yield number, line
