"""The layout: contiguous, unambiguous, and known by its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.bundle import LABELS, BiasEntry, HeadEntry, Layout
from bitfit_export.errors import BundleError

BASE = "ab" * 32
HEAD = [("head.pooling", (3,)), ("head.classifier.weight", (LABELS, 384)), ("head.classifier.bias", (LABELS,))]
LAYOUT = Layout.pack(BASE, {"a.bias": (4,), "b.bias": (2, 3)}, HEAD, ("pooler", "cls", "mean"))
INDEX = json.loads((Path(__file__).parents[2] / "conformance" / "rows" / "index.json").read_text(encoding="utf-8"))


def biases(*entries: tuple[str, tuple[Any, ...], Any]) -> tuple[BiasEntry, ...]:
    return tuple(BiasEntry(*entry) for entry in entries)


def test_pack_puts_biases_one_after_the_other_in_the_given_order() -> None:
    assert LAYOUT.biases == biases(("a.bias", (4,), 0), ("b.bias", (2, 3), 4))
    assert [entry.size for entry in LAYOUT.biases] == [4, 6]
    assert LAYOUT.bias_count == 10


def test_the_symbolic_dimension_becomes_the_number_of_labels() -> None:
    assert LAYOUT.head_shapes(7) == ((3,), (7, 384), (7,))


def test_json_round_trip() -> None:
    copy = Layout.from_json(json.loads(json.dumps(LAYOUT.to_json())))
    assert copy == LAYOUT
    assert copy.digest == LAYOUT.digest


class TestDigest:
    def test_it_is_sha256_over_the_documented_bytes(self) -> None:
        text = (
            b"bitfit-layout-1\n"
            + bytes.fromhex(BASE)
            + b"bias\0a.bias\x004\x000\n"
            + b"bias\0b.bias\x002,3\x004\n"
            + b"head\0head.pooling\x003\n"
            + b"head\0head.classifier.weight\0labels,384\n"
            + b"head\0head.classifier.bias\0labels\n"
            + b"pooling\0pooler\npooling\0cls\npooling\0mean\n"
        )
        assert LAYOUT.digest == hashlib.sha256(text).hexdigest()

    def test_it_is_the_one_of_the_golden_rows(self) -> None:
        assert Layout.from_json(INDEX["layout"]).digest == INDEX["layout_digest"]

    @pytest.mark.parametrize(
        "other",
        [
            replace(LAYOUT, base_digest="cd" * 32),
            replace(LAYOUT, biases=biases(("a.bias", (4,), 0), ("b.bias", (3, 2), 4))),
            replace(LAYOUT, biases=biases(("b.bias", (4,), 0), ("a.bias", (2, 3), 4))),
            replace(LAYOUT, head=LAYOUT.head[:2]),
            replace(LAYOUT, head=(LAYOUT.head[1], LAYOUT.head[0], LAYOUT.head[2])),
            replace(LAYOUT, poolings=("cls", "pooler", "mean")),
        ],
    )
    def test_every_part_counts(self, other: Layout) -> None:
        assert other.digest != LAYOUT.digest


class TestRefused:
    @pytest.mark.parametrize("digest", ["", "ab" * 31, "AB" * 32, "ab" * 32 + "\n", "zz" * 32])
    def test_base_digest(self, digest: str) -> None:
        with pytest.raises(BundleError, match="64 lower-case hexadecimal digits"):
            Layout.pack(digest, {"a.bias": (4,)})

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ((), "no bias term"),
            ((("a", (4,), 1),), "offset 1, expected 0"),
            ((("a", (4,), 0), ("b", (4,), 3)), "offset 3, expected 4"),
            ((("a", (4,), 0), ("b", (4,), 5)), "offset 5, expected 4"),
            ((("a", (4,), False),), "offset False"),
            ((("a", (), 0),), "positive integers"),
            ((("a", (0,), 0),), "positive integers"),
            ((("a", (-1,), 0),), "positive integers"),
            ((("a", (4.0,), 0),), "positive integers"),
            ((("a", (True,), 0),), "positive integers"),
            ((("a", (2**16, 2**16), 0),), "2\\^32 or more bias values"),
            ((("a", (4,), 0), ("a", (4,), 4)), "a twice"),
            ((("", (4,), 0),), "non-empty name"),
            ((("a\n", (4,), 0),), "control characters"),
            ((("a\0b", (4,), 0),), "control characters"),
            ((("\ud800", (4,), 0),), "control characters"),
        ],
    )
    def test_biases(self, entries: tuple[Any, ...], message: str) -> None:
        with pytest.raises(BundleError, match=message):
            replace(LAYOUT, biases=biases(*entries))

    @pytest.mark.parametrize("shape", [(), (1, 1, 1, 1), (0,), ("classes",), (1.5,), (2**32,)])
    def test_head_shapes(self, shape: tuple[Any, ...]) -> None:
        with pytest.raises(BundleError, match="1 to 3 dimensions"):
            replace(LAYOUT, head=(HeadEntry("head.weight", shape),))

    @pytest.mark.parametrize("shape", [(2**31, 2), (LABELS, 2**16, 2**16)])
    def test_head_of_more_values_than_a_row_can_count(self, shape: tuple[Any, ...]) -> None:
        with pytest.raises(BundleError, match="at most 4294967295 values a label"):
            replace(LAYOUT, head=(HeadEntry("head.weight", shape),))

    def test_more_than_16_head_tensors(self) -> None:
        entries = tuple(HeadEntry(f"head.{index}", (1,)) for index in range(17))
        assert len(replace(LAYOUT, head=entries[:16]).head) == 16
        with pytest.raises(BundleError, match="17 head tensors"):
            replace(LAYOUT, head=entries)

    def test_names_twice(self) -> None:
        with pytest.raises(BundleError, match=r"head\.pooling twice"):
            replace(LAYOUT, head=(LAYOUT.head[0], LAYOUT.head[0]))
        with pytest.raises(BundleError, match="cls twice"):
            replace(LAYOUT, poolings=("cls", "cls"))

    @pytest.mark.parametrize("key", ["base_digest", "biases", "head", "poolings"])
    @pytest.mark.parametrize("value", [None, 3, {}, [3], [{}], "x"])
    def test_json_of_other_types(self, key: str, value: object) -> None:
        with pytest.raises(BundleError):
            Layout.from_json(LAYOUT.to_json() | {key: value})

    def test_json_that_lacks_a_key(self) -> None:
        with pytest.raises(BundleError, match="layout lacks base_digest"):
            Layout.from_json({})
        with pytest.raises(BundleError, match=r"layout: biases\[0\] lacks name"):
            Layout.from_json(LAYOUT.to_json() | {"biases": [{"shape": [4], "offset": 0}]})
