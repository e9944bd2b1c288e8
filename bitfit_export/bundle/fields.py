"""Typed values out of parsed JSON.

A `Record` is a JSON object whose members are taken out one by one. A member that is missing or has another type
is a BundleError that names the file and the path of the member, so no later code meets a wrong type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

from bitfit_export.errors import BundleError

__all__ = ["Record", "check_digest", "check_text", "is_name", "parse_object"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def parse_object(data: bytes, where: str) -> Record:
    """Parse UTF-8 JSON that holds one object; `where` names the file in messages.

    Raises:
        BundleError: truncated or malformed JSON, a repeated key, NaN or infinity, or no object.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{where} is no whole JSON file: {error}", hint="copy the bundle again, or export it again"
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
        """Whether an optional key is there."""
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

    def numbers(self, key: str) -> dict[str, float]:
        """An object whose members are numbers; an integer becomes the float that equals it."""
        members = self.record(key)._members
        numbers = {
            name: float(each)
            for name, each in members.items()
            if isinstance(each, float) or (type(each) is int and abs(each) <= 2**53)
        }
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
            name: Record(each, f"{self._where}: {key}[{name!r}]") for name, each in self.record(key)._members.items()
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
        raise BundleError(f"{what} is {value!r}, expected 64 lower-case hexadecimal digits")


def is_name(value: object) -> bool:
    """Whether it is a string that is not empty, of one line, and that UTF-8 can write."""
    return isinstance(value, str) and bool(value) and not any(c < " " or "\ud800" <= c <= "\udfff" for c in value)


def check_text(value: str, what: str) -> None:
    """Refuse an empty name, and one with a control character or half a surrogate pair: it has no unambiguous bytes."""
    if not is_name(value):
        raise BundleError(f"{what} is {value!r}, expected a non-empty name without control characters")


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object; JSON readers differ about which of two equal keys counts, so none does."""
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _type_name(value: object) -> str:
    """What a value is, in JSON's words; short values are shown."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"the list {value!r}" if len(value) <= 4 else f"a list of {len(value)} values"
    return "null" if value is None else repr(value)
