"""JSON as manifests, deltas and JSON lines have it: RFC 8259 in UTF-8, with what that leaves open decided.

`docs/files.md` is the specification, and `conformance/` has a file for each rule. Python's own reader takes more: NaN,
numbers that become infinite, integers of any size, the last of two equal keys, half a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

import numpy as np

from bitfit_export.errors import quoted

__all__ = ["MAX_DEPTH", "first_repeated", "parse_json", "unique_pairs"]

#: Levels of nesting; the outermost object is the first.
MAX_DEPTH = 64

# A string, or one without an end; it never looks at a byte twice.
_STRING = re.compile(rb'(?s)"(?:[^"\\]++|\\.)*+"?')
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
_MOST_DIGITS = len(str(-(2**63)))

ItemT = TypeVar("ItemT")


def parse_json(data: bytes) -> Any:
    """Returns the value of one JSON text.

    Raises:
        ValueError: it is not JSON of this dialect; the message says why.
    """
    text = data.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    _check_depth(data)
    value = json.loads(
        text,
        object_pairs_hook=unique_pairs,
        parse_int=_int64,
        parse_float=_double,
        parse_constant=_refuse_constant,
    )
    if _SURROGATE_ESCAPE.search(data):
        _check_surrogates(value)
    return value


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; readers differ about which of two equal keys counts, so none does."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError(f"the key {quoted(first_repeated(name for name, _ in pairs))} is there twice")
    return members


def first_repeated(items: Iterable[ItemT]) -> ItemT | None:
    """Returns the first item that equals one before it."""
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def _check_depth(data: bytes) -> None:
    """Compare the nesting with its limit before anything is nested."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    steps = _STEPS[np.frombuffer(_STRING.sub(b"", data), np.uint8)]
    if steps.cumsum(dtype=np.int32).max(initial=0) > MAX_DEPTH:
        raise ValueError(f"it has more than {MAX_DEPTH} levels")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a string has half a surrogate pair") from error


def _int64(digits: str) -> int:
    # Long ones are compared by their length: making a number of a million digits takes minutes.
    value = int(digits) if len(digits) <= _MOST_DIGITS else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"int64 cannot hold {quoted(digits)}")
    return value


def _double(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"no double can hold {quoted(digits)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
