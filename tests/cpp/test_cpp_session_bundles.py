"""A bundle that does not hold together is refused when a `bitfit::Session` opens it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cpp.conftest import Driver, GetBundle, file_record


class TestBundles:
    @pytest.fixture
    def copy(self, get_bundle: GetBundle, tmp_path: Path) -> Path:
        shutil.copytree(get_bundle("table"), tmp_path / "bundle")
        return tmp_path / "bundle"

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("format_version", 1, "the manifest has format version 1, expected 2"),
            ("layout_kind", "other", 'layout_kind is "other", expected table, packed or named'),
            ("layout_digest", "0" * 64, "layout_digest is 000000000000, the layout gives"),
            ("max_positions", 0, "max_positions is 0, expected 1 to"),
            ("vocab_size", "many", 'vocab_size is "many", expected an integer'),
            ("vocab_size", True, "vocab_size is true, expected an integer"),
            ("programs/infer/inputs/1/name", "input_ids", "input_ids is there twice"),
            ("programs/infer/outputs/1/name", "other", "has other outputs than the manifest names"),
            ("programs/infer/at_load", "some", 'at_load is "some", expected none, basic or all'),
            ("modality", "image", "the model reads other things than text"),
            ("static_shape", [1, 16], "static_shape is not valid"),
            ("overridable", True, "the manifest is overridable"),
            (
                "files",
                {"../x": {"sha256": "0" * 64, "size": 1, "crc32c": 0}},
                'the file "../x", expected a path inside the bundle',
            ),
            ("files/model.onnx/crc32c", 2**32, "crc32c is 4294967296, expected 0 to 4294967295"),
            ("precision", "fp64", 'precision is "fp64", expected fp32, fp16, int8, int8-static, w8a16 or int4'),
            ("tasks/score/labels", ["x"], "a regression task has 1 labels"),
            ("tasks/score/file", "tasks/tags.bias", "file is tasks/tags.bias, expected tasks/score.bias"),
            ("tasks/score/sha256", "0" * 64, "expected 000000000000"),
            ("tasks/score/task_version", 9, "is the row score (regression, 1 labels, version 1), expected score"),
            ("files/model.onnx/size", 1, "bytes, expected 1"),
            ("base/digest", "0" * 64, "expected 000000000000"),
            ("layout/biases/1/offset", 33, "offset is 33, expected 32 to 32"),
            ("layout/biases/0/shape", [4294967296], "shape is out of range"),
            ("layout/head/0/shape", [2147483648, 2], "has more than 4294967295 values"),
        ],
    )
    def test_a_manifest_that_does_not_hold(
        self, programs: Path, copy: Path, path: str, value: Any, message: str
    ) -> None:
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        *parents, last = (
            path.split("/") if path.startswith(("tasks", "layout/", "files/", "base", "programs/")) else [path]
        )
        place = manifest
        for each in parents:
            place = place[int(each) if isinstance(place, list) else each]
        place[last] = value
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert message in driver.opened["message"]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is not valid JSON (truncated or malformed)"),
            (b"[]", "is a list of 0 values, expected an object"),
            (b'{"format_version": 1, "format_version": 1}', 'has the key "format_version" twice'),
            (b'{"format_version": 2}', "lacks layout"),
            (b'{"format_version": "\xff"}', "is not valid JSON"),
            (b'{"a":' * 100_000, "is nested deeper than 64 levels"),
            (b'{"format_version": 1e999}', "has a number that no double can hold"),
        ],
    )
    def test_a_manifest_that_is_none(self, programs: Path, copy: Path, data: bytes, message: str) -> None:
        (copy / "manifest.json").write_bytes(data)
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert message in driver.opened["message"]

    @pytest.mark.parametrize(
        "name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tasks/tags.bias"]
    )
    def test_a_file_that_is_missing(self, programs: Path, copy: Path, name: str) -> None:
        (copy / name).unlink()
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert name in driver.opened["message"]

    def test_a_model_of_another_bundle(self, programs: Path, copy: Path, get_bundle: GetBundle) -> None:
        other = get_bundle("packed")
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(other / name, copy / name)
            manifest["files"][name] = file_record(copy / name)
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert "model.onnx" in driver.opened["message"]


def test_drive_needs_a_bundle(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [programs / "tests" / "session_test", "drive", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["message"].endswith("manifest.json cannot be read: No such file or directory")
