"""The layout: which bias value sits where in a row, and which head tensors follow.

It belongs to the frozen model and is the same for every task. Its digest covers the base model's digest too, so a
row that carries it fits every precision of one model, and no other model. `docs/bias_row.md` says which bytes are
hashed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfit_export.bundle.fields import Record, check_digest, check_text
from bitfit_export.bundle.json_dialect import first_repeated
from bitfit_export.bundle.lazy import lazy_property
from bitfit_export.bundle.limits import MAX_DIMENSIONS
from bitfit_export.bundle.row_format import MAX_HEAD_RANK, MAX_HEAD_TENSORS
from bitfit_export.errors import BundleError, quoted, shown

__all__ = [
    "LABELS",
    "BiasEntry",
    "HeadEntry",
    "Layout",
]

#: The one symbolic dimension: the task's number of head outputs.
LABELS = "labels"
#: Counts and dimensions are unsigned 32-bit in a row's header.
_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True)
class BiasEntry:
    """One bias term: its state-dict name, its shape, and the index of its first value in the row."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class HeadEntry:
    """One head input of the frozen model. A dimension is a number, or `"labels"`: the task's number of outputs."""

    name: str
    shape: tuple[int | str, ...]

    def resolve(self, labels: int) -> tuple[int, ...]:
        """The shape for a task with `labels` outputs."""
        return tuple(labels if isinstance(dimension, str) else dimension for dimension in self.shape)


@dataclass(frozen=True)
class Layout:
    """The order of a row's values.

    Attributes:
        base_digest: SHA-256 of the base model, 64 lower-case hexadecimal digits.
        biases: at least one; each starts where the one before ends, the first at 0.
        head: at most 16 tensors of rank 1 to 3, in the order in which they follow the biases.
        poolings: the poolings that a task may choose between, in the order of the weights that choose.

    Raises:
        BundleError: any of this does not hold.
    """

    base_digest: str
    biases: tuple[BiasEntry, ...]
    head: tuple[HeadEntry, ...]
    poolings: tuple[str, ...]

    def __post_init__(self) -> None:
        check_digest(self.base_digest, "the layout's base digest")
        _check_biases(self.biases)
        _check_head(self.head)
        _check_names(self.poolings, "pooling")

    @staticmethod
    def pack(
        base_digest: str,
        biases: Mapping[str, Sequence[int]],
        head: Iterable[tuple[str, Sequence[int | str]]] = (),
        poolings: Iterable[str] = (),
    ) -> Layout:
        """Lay out bias terms one after the other, in the mapping's order.

        Raises:
            BundleError: a name, a shape or the digest is malformed.
        """
        entries: list[BiasEntry] = []
        for name, shape in biases.items():
            offset = entries[-1].offset + entries[-1].size if entries else 0
            entries.append(BiasEntry(name, tuple(shape), offset))
        heads = tuple(HeadEntry(name, tuple(shape)) for name, shape in head)
        return Layout(base_digest, tuple(entries), heads, tuple(poolings))

    @property
    def bias_count(self) -> int:
        """N, the number of bias values in a row."""
        return self.biases[-1].offset + self.biases[-1].size

    def head_shapes(self, labels: int) -> tuple[tuple[int, ...], ...]:
        """The head tensors' shapes for a task with `labels` outputs, in order."""
        return tuple(entry.resolve(labels) for entry in self.head)

    def value_count(self, labels: int) -> int:
        """How many values a row of `labels` outputs has, biases and head."""
        return self.bias_count + sum(map(math.prod, self.head_shapes(labels)))

    @lazy_property
    def digest(self) -> str:
        """SHA-256 over the base digest and every entry, 64 lower-case hexadecimal digits."""
        parts = [b"bitfit-layout-1\n", bytes.fromhex(self.base_digest)]
        parts += [
            _digest_line("bias", entry.name, ",".join(map(str, entry.shape)), str(entry.offset))
            for entry in self.biases
        ]
        parts += [_digest_line("head", entry.name, ",".join(map(str, entry.shape))) for entry in self.head]
        parts += [_digest_line("pooling", name) for name in self.poolings]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts for `manifest.json`. The digest is not among them: it follows from the rest."""
        return {
            "base_digest": self.base_digest,
            "biases": [{"name": e.name, "offset": e.offset, "shape": list(e.shape)} for e in self.biases],
            "head": [{"name": e.name, "shape": list(e.shape)} for e in self.head],
            "poolings": list(self.poolings),
        }

    @staticmethod
    def from_json(value: object, where: str = "layout") -> Layout:
        """Read what `to_json` wrote; `where` names the place in messages. Unknown keys are ignored.

        Raises:
            BundleError: a key that is missing, a value of the wrong type, or a layout that does not hold.
        """
        return Layout.from_record(Record(value, where))

    @staticmethod
    def from_record(record: Record) -> Layout:
        """As `from_json`, from an object whose place is known already."""
        return Layout(
            record.text("base_digest"),
            tuple(
                BiasEntry(e.text("name"), e.integers("shape"), e.integer("offset")) for e in record.records("biases")
            ),
            tuple(HeadEntry(e.text("name"), e.integers_or_texts("shape")) for e in record.records("head")),
            record.texts("poolings"),
        )


def _digest_line(*words: str) -> bytes:
    """Words apart by 0x00, ended by a line feed. No name has either (check_text), so no two layouts hash alike."""
    return "\0".join(words).encode("utf-8") + b"\n"


def _check_biases(entries: tuple[BiasEntry, ...]) -> None:
    if not entries:
        raise BundleError("the layout has no bias term, expected at least one")
    _check_names([entry.name for entry in entries], "bias")
    expected = 0
    for entry in entries:
        if not 1 <= len(entry.shape) <= MAX_DIMENSIONS or not all(_is_size(dimension) for dimension in entry.shape):
            raise BundleError(
                f"the bias {shown(entry.name)} has shape {quoted(entry.shape)}, expected 1 to {MAX_DIMENSIONS} "
                "positive integers"
            )
        if type(entry.offset) is not int or entry.offset != expected:
            raise BundleError(f"the bias {shown(entry.name)} has offset {entry.offset!r}, expected {expected}")
        expected += entry.size
        if expected > _UINT32_MAX:
            raise BundleError(
                f"the layout has 2^32 or more bias values at {shown(entry.name)}, expected at most {_UINT32_MAX}"
            )


def _check_head(entries: tuple[HeadEntry, ...]) -> None:
    if len(entries) > MAX_HEAD_TENSORS:
        raise BundleError(f"the layout has {len(entries)} head tensors, expected at most {MAX_HEAD_TENSORS}")
    _check_names([entry.name for entry in entries], "head tensor")
    for entry in entries:
        found = f"the head tensor {shown(entry.name)} has shape {quoted(entry.shape)}"
        sizes = 1 <= len(entry.shape) <= MAX_HEAD_RANK and all(_is_size(each) or each == LABELS for each in entry.shape)
        if not sizes:
            raise BundleError(
                f"{found}, expected 1 to {MAX_HEAD_RANK} dimensions, each a positive integer or {LABELS!r}"
            )
        if math.prod(dimension for dimension in entry.shape if isinstance(dimension, int)) > _UINT32_MAX:
            raise BundleError(f"{found}, expected at most {_UINT32_MAX} values a label")


def _check_names(names: Sequence[str], what: str) -> None:
    for name in names:
        check_text(name, f"a {what}'s name")
    twice = first_repeated(names)
    if twice is not None:
        raise BundleError(f"the layout names the {what} {shown(twice)} twice, expected unique names")


def _is_size(dimension: int | str) -> bool:
    return type(dimension) is int and 1 <= dimension <= _UINT32_MAX
