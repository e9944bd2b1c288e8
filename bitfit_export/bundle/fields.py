"""Typed values out of parsed JSON.

A `Record` is a JSON object whose members are taken out one by one. A member that is missing or has another type
is a BundleError that names the file and the path of the member, so no later code meets a wrong type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from bitfit_export.bundle.json_dialect import first_repeated, parse_json
from bitfit_export.bundle.limits import MAX_NAME_BYTES
from bitfit_export.errors import BundleError, quoted, shown

__all__ = [
    "Record",
    "check_digest",
    "check_one_of",
    "check_range",
    "check_text",
    "check_unique",
    "is_name",
    "parse_object",
]

_DIGEST = re.compile(r"[0-9a-f]{64}")
# Without control characters (C0, DEL, C1, the two separators of lines) and halves of surrogate pairs.
_NAME = re.compile(rf"[^\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{{1,{MAX_NAME_BYTES}}}")


def parse_object(data: bytes, where: str) -> Record:
    """Parse JSON that holds one object; `where` names the file in messages.

    Raises:
        BundleError: JSON that is malformed or beyond the dialect of `parse_json`, or no object.
    """
    try:
        value = parse_json(data)
    except ValueError as error:
        raise BundleError(
            f"{where} is not valid JSON: {shown(str(error), 200)}", hint="copy the bundle again, or export it again"
        ) from error
    return Record(value, where)


class Record:
    """A JSON object at the path `where`, such as `manifest.json: layout`."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"{where} is {_type_name(value)}, expected an object")
        self._members: Mapping[str, object] = value
        self._where = where

    def has(self, key: str) -> bool:
        """Returns whether an optional key is there."""
        return key in self._members

    def text(self, key: str) -> str:
        """A string."""
        value = self._take(key)
        return value if isinstance(value, str) else self._refuse(key, value, "a string")

    def text_or_none(self, key: str) -> str | None:
        """A string, or None for JSON's null. The key must be there."""
        value = self._take(key)
        return value if value is None or isinstance(value, str) else self._refuse(key, value, "a string or null")

    def integer(self, key: str) -> int:
        """An integer; neither 1.0 nor true is one."""
        value = self._take(key)
        return value if type(value) is int else self._refuse(key, value, "an integer")

    def boolean(self, key: str) -> bool:
        """true or false; neither 1 nor 0 is one."""
        value = self._take(key)
        return value if isinstance(value, bool) else self._refuse(key, value, "true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._list(key)
        texts = tuple(each for each in values if isinstance(each, str))
        return texts if len(texts) == len(values) else self._refuse(key, values, "a list of strings")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of integers."""
        values = self._list(key)
        integers = tuple(each for each in values if type(each) is int)
        return integers if len(integers) == len(values) else self._refuse(key, values, "a list of integers")

    def integers_or_none(self, key: str) -> tuple[int, ...] | None:
        """A list of integers, or None for JSON's null. The key must be there."""
        return None if self._take(key) is None else self.integers(key)

    def integers_or_texts(self, key: str) -> tuple[int | str, ...]:
        """A list whose members are integers or strings."""
        values = self._list(key)
        taken = tuple(each for each in values if type(each) is int or isinstance(each, str))
        return taken if len(taken) == len(values) else self._refuse(key, values, "a list of integers and strings")

    def number(self, key: str) -> float:
        """A number; an integer becomes the float next to it."""
        value = self._take(key)
        is_number = isinstance(value, float) or type(value) is int
        return float(value) if is_number else self._refuse(key, value, "a number")  # type: ignore[arg-type]

    def numbers(self, key: str) -> dict[str, float]:
        """An object whose members are numbers; an integer becomes the float next to it."""
        members = self.record(key)._members
        numbers = {name: float(each) for name, each in members.items() if isinstance(each, float) or type(each) is int}
        return numbers if len(numbers) == len(members) else self._refuse(key, members, "an object of numbers")

    def named_texts(self, key: str) -> dict[str, str]:
        """An object whose members are strings, by name."""
        members = self.record(key)._members
        texts = {name: each for name, each in members.items() if isinstance(each, str)}
        return texts if len(texts) == len(members) else self._refuse(key, members, "an object of strings")

    def record(self, key: str) -> Record:
        """An object."""
        return Record(self._take(key), f"{self._where}: {key}")

    def records(self, key: str) -> list[Record]:
        """A list of objects."""
        return [Record(each, f"{self._where}: {key}[{index}]") for index, each in enumerate(self._list(key))]

    def named_records(self, key: str) -> dict[str, Record]:
        """An object whose members are objects, by name."""
        return {
            name: Record(each, f"{self._where}: {key}[{quoted(name)}]")
            for name, each in self.record(key)._members.items()
        }

    def _list(self, key: str) -> list[object]:
        value = self._take(key)
        return value if isinstance(value, list) else self._refuse(key, value, "a list")

    def _take(self, key: str) -> object:
        if key not in self._members:
            raise BundleError(f"{self._where} lacks {key}", hint="export the bundle again")
        return self._members[key]

    def _refuse(self, key: str, value: object, expected: str) -> NoReturn:
        raise BundleError(f"{self._where}: {key} is {_type_name(value)}, expected {expected}")


def check_digest(value: str, what: str) -> None:
    """Refuse anything but 64 lower-case hexadecimal digits, so that equal digests are equal strings."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise BundleError(f"{what} is {quoted(value)}, expected 64 lower-case hexadecimal digits")


def is_name(value: object) -> bool:
    """Returns whether it is a string of 1 to `MAX_NAME_BYTES` bytes of UTF-8 without control characters."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value)) and len(value.encode("utf-8")) <= MAX_NAME_BYTES


def check_text(value: str, what: str) -> None:
    """Refuse an empty or long name, and one with a control character: it has no unambiguous bytes, or forges a line."""
    if not is_name(value):
        raise BundleError(
            f"{what} is {quoted(value)}, expected a non-empty name of at most {MAX_NAME_BYTES} bytes without control "
            "characters"
        )


def check_one_of(value: str, known: tuple[str, ...], what: str) -> None:
    """Refuse a word that is not among the known ones."""
    if value not in known:
        raise BundleError(f"{what} is {quoted(value)}, expected one of {', '.join(known)}")


def check_range(value: int, least: int, most: int, what: str) -> None:
    """Refuse anything but an integer from `least` to `most`; true is none."""
    if type(value) is not int or not least <= value <= most:
        raise BundleError(f"{what} is {quoted(value)}, expected an integer from {least} to {most}")


def check_unique(names: Sequence[str], what: str) -> None:
    """Refuse names of which two are the same, or of which one is none, as `check_text` does."""
    for name in names:
        check_text(name, f"{what}: a name")
    twice = first_repeated(names)
    if twice is not None:
        raise BundleError(f"{what}: {shown(twice)} is there twice, expected unique names")


def _type_name(value: object) -> str:
    """Returns a description of a value in JSON's words; short values are shown."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"the list {quoted(value)}" if len(value) <= 4 else f"a list of {len(value)} values"
    return "null" if value is None else quoted(value)
