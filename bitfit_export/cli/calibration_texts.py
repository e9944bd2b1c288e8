"""Files of texts to calibrate with."""

from __future__ import annotations

from pathlib import Path

from bitfit_export.errors import InputError
from bitfit_export.runtime.text.json_lines import lines_of, object_of
from bitfit_export.runtime.text.json_text import text_of

__all__ = ["read_calibration_texts"]


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
