"""Lines of JSON, as `docs/files.md` specifies them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from bitfit_export.bundle.json_dialect import parse_json
from bitfit_export.bundle.limits import MAX_LINE_SIZE
from bitfit_export.errors import InputError, quoted, shown

__all__ = ["lines_of", "object_of"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
    """Each line with its number, without its line feed; a line that is too long is not read.

    Raises:
        InputError: see above.
    """
    number = 0
    while line := stream.readline(MAX_LINE_SIZE + len(_BYTE_ORDER_MARK) + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        line = line.removesuffix(b"\n")
        if len(line) > MAX_LINE_SIZE:
            raise InputError(f"line {number} of {name} is too long, expected at most {MAX_LINE_SIZE} bytes")
        yield number, line
