"""Every manifest of `conformance/` is judged as its index says; the C++ tests read the same files."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.bundle import MANIFEST_FILE, Manifest, read_manifest
from bitfit_export.bundle.fields import is_name
from bitfit_export.bundle.json_dialect import parse_json
from bitfit_export.bundle.limits import MAX_JSON_DEPTH, MAX_MANIFEST_SIZE, MAX_NAME_BYTES
from bitfit_export.bundle.row_format import MAX_LABELS
from bitfit_export.errors import BundleError

CONFORMANCE = Path(__file__).parents[2] / "conformance"
INDEX = json.loads((CONFORMANCE / "manifests" / "index.json").read_text(encoding="utf-8"))
FILES: dict[str, dict[str, Any]] = INDEX["files"]
#: What a message has that names a fault of this kind.
SAYS = {
    "json": "is not valid JSON",
    "missing": "lack",
    "type": "expected",
    "range": "expected",
    "value": "expected",
    "name": "expected|malformed",
    "twice": "twice",
    "disagreement": "expected|gives",
}


def good_manifest() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((CONFORMANCE / "manifests" / "good_plain.json").read_text(encoding="utf-8"))
    return raw


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(data: bytes) -> Manifest:
        (tmp_path / MANIFEST_FILE).write_bytes(data)
        return read_manifest(tmp_path)

    return read


@pytest.mark.parametrize("folder", ["manifests", "jsonl"])
def test_the_generator_still_makes_the_committed_files(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.syspath_prepend(CONFORMANCE)
    make = runpy.run_path(str(CONFORMANCE / f"make_{folder}.py"))
    assert make[folder]() == {path.name: path.read_bytes() for path in (CONFORMANCE / folder).iterdir()}


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_manifest(read: Any, name: str) -> None:
    data, fault = (CONFORMANCE / "manifests" / name).read_bytes(), FILES[name]["fault"]
    if fault is None:
        manifest = read(data)
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
        return
    with pytest.raises(BundleError, match=SAYS[fault]) as caught:
        read(data)
    assert len(caught.value.message) < 1000
    assert caught.value.message.isprintable()


class TestLimits:
    """The rules whose files would be too large to keep."""

    def test_labels(self) -> None:
        raw = good_manifest()
        for count in (MAX_LABELS, MAX_LABELS + 1):
            raw["tasks"]["sst-2"]["labels"] = [f"label {index}" for index in range(count)]
            if count == MAX_LABELS:
                assert Manifest.from_json(raw).tasks["sst-2"].label_count == MAX_LABELS
            else:
                with pytest.raises(BundleError, match="has 65537 labels, expected 1 to 65536"):
                    Manifest.from_json(raw)

    def test_the_size_of_the_file(self, read: Any) -> None:
        data = json.dumps(good_manifest()).encode()
        assert read(data.ljust(MAX_MANIFEST_SIZE)).opset == 20
        with pytest.raises(BundleError, match="has 16777217 bytes, expected at most 16777216"):
            read(data.ljust(MAX_MANIFEST_SIZE + 1))

    def test_nothing_takes_long(self, read: Any) -> None:
        """A megabyte each, of what takes a quadratic reader minutes."""
        many = [f"name {index}" for index in range(70_000)]
        keys = ",".join(f'"{name}":0' for name in many)
        raw = good_manifest()
        infer, repeated = raw["programs"]["infer"], [*many[:10_000], many[0]]
        hostile = [
            f'{{{keys},"{many[-1]}":0}}'.encode(),
            b"[" * 1_000_000,
            b'"\\"' * 500_000,
            b'{"a":' * 200_000,
            b"-" + b"9" * 1_000_000,
            b'["' + b"\\ud800" * 170_000 + b'"]',
            *(
                json.dumps(raw | changes).encode()
                for changes in (
                    {
                        "programs": {
                            "infer": infer | {"inputs": [infer["inputs"][0] | {"name": name} for name in repeated]}
                        }
                    },
                    {"layout": raw["layout"] | {"poolings": [*many, many[-1]]}},
                    {"layout": raw["layout"] | {"head": [{"name": name, "shape": [1]} for name in many[:20_000]]}},
                    {"layout": raw["layout"] | {"biases": [{"name": "a", "offset": 0, "shape": [1] * 300_000}]}},
                    {"layout": raw["layout"] | {"biases": [{"name": "a", "offset": 0, "shape": [2**31] * 90_000}]}},
                    {"tasks": dict.fromkeys(many[:5000], raw["tasks"]["score"])},
                    {"base": raw["base"] | {"name": "x" * 1_000_000}},
                )
            ),
        ]
        for data in hostile:
            started = time.process_time()
            with pytest.raises(BundleError) as caught:
                read(data)
            assert time.process_time() - started < 2, data[:80]
            assert len(str(caught.value)) < 1000


class TestJson:
    def test_the_deepest(self) -> None:
        def nested(levels: int) -> bytes:
            return b"[" * levels + b"]" * levels

        parse_json(nested(MAX_JSON_DEPTH))
        with pytest.raises(ValueError, match="more than 64 levels"):
            parse_json(nested(MAX_JSON_DEPTH + 1))

    @pytest.mark.parametrize(
        "text", [b'"' + b"[" * 100 + b'"', b"[" + b"[]," * 100 + b"[]]", b'["\\"", "' + b"{" * 99 + b'"]']
    )
    def test_brackets_that_do_not_nest(self, text: bytes) -> None:
        assert parse_json(text) == json.loads(text)

    def test_a_long_key_is_shortened(self) -> None:
        key = b'"' + b"x" * 100_000 + b'"'
        with pytest.raises(ValueError, match=r"the key 'x+\.\.\.x+' is there twice") as caught:
            parse_json(b"{" + key + b":1," + key + b":2}")
        assert len(str(caught.value)) < 200


class TestNames:
    @pytest.mark.parametrize(
        "name", ["a", "ä b", "x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2), "\u00a0", "\U0001f600"]
    )
    def test_names(self, name: str) -> None:
        assert is_name(name)

    @pytest.mark.parametrize(
        "name",
        ["", "\0", "\x1f", "\x7f", "\x80", "\x9f", "\u2028", "\u2029", "\ud800", "x" * 1025, "é" * 513, 1, None, b"a"],
    )
    def test_no_names(self, name: object) -> None:
        assert not is_name(name)
