"""The manifest: everything in it is checked before a bundle is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from bitfit_export.bundle import (
    MANIFEST_FILE,
    BaseRecord,
    FileRecord,
    Layout,
    Manifest,
    Port,
    ProgramRecord,
    TaskRecord,
    read_manifest,
    row_file,
    write_manifest,
)
from bitfit_export.bundle.quantization import QuantizationRecord, RangeRecord
from bitfit_export.errors import BundleError

BASE = "ab" * 32
MODEL, ROW = b"\x0a\x04onnx", b"a row"
FILES = {"model.onnx": MODEL, "model.onnx.data": b"weights", "tokenizer.json": b"{}", "more/empty.txt": b""}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record(data: bytes) -> FileRecord:
    return FileRecord(sha256(data), len(data), google_crc32c.value(data))


TASK = TaskRecord(
    name="sst2",
    file="tasks/sst2.bias",
    sha256=sha256(ROW),
    problem_type="single_label",
    labels=("negative", "positive"),
    task_version=1,
    max_length=128,
    metrics={"accuracy": 0.91},
)
INFER_PROGRAM = ProgramRecord(
    file="model.onnx",
    at_load="none",
    inputs=(
        Port("input_ids", "token_ids", "int64", ("batch", "sequence")),
        Port("attention_mask", "attention_mask", "int64", ("batch", "sequence")),
        Port("task_ids", "task_ids", "int64", ("task_batch",)),
        Port("bias_table", "biases", "float32", ("tasks", 4)),
        Port("head.classifier.weight", "head", "float32", ("tasks", "labels", 4)),
    ),
    outputs=(Port("logits", "logits", "float32", ("batch", "labels")),),
)
MANIFEST = Manifest(
    product_version="0.1.0",
    base=BaseRecord("minilm-l6", None, BASE),
    layout=Layout.pack(BASE, {"a.bias": (4,)}, [("head.classifier.weight", ("labels", 4))], ("pooler", "cls", "mean")),
    layout_kind="table",
    target="ort",
    precision="fp32",
    opset=20,
    modality="text",
    programs={"infer": INFER_PROGRAM},
    max_positions=512,
    vocab_size=30522,
    pad_token_id=0,
    files={name: record(data) for name, data in FILES.items()},
    tasks={"sst2": TASK},
)

#: Keys that may be absent, with what holds then.
OPTIONAL = {
    "static_shape": None,
    "overridable": False,
    "fold_reasons": {},
    "row_dtype": "fp32",
    "prepacked": False,
    "quantization": QuantizationRecord(),
}
ALL_OPTIONS = replace(
    MANIFEST,
    layout_kind="named",
    static_shape=(4, 128),
    overridable=True,
    fold_reasons={"a.bias": "it is read by two nodes"},
    row_dtype="fp16",
    prepacked=True,
    precision="int8-static",
    quantization=QuantizationRecord({"product_1": RangeRecord(0.25, 7, 1.5)}, {"product_2": "too large an error"}),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name, data in {**FILES, row_file("sst2"): ROW}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    write_manifest(tmp_path, MANIFEST)
    return tmp_path


class TestRoundTrip:
    def test_write_then_read(self, bundle: Path) -> None:
        assert read_manifest(bundle) == MANIFEST

    def test_the_same_manifest_gives_the_same_bytes(self, bundle: Path) -> None:
        before = (bundle / MANIFEST_FILE).read_bytes()
        write_manifest(bundle, read_manifest(bundle))
        assert (bundle / MANIFEST_FILE).read_bytes() == before

    def test_the_layout_digest_is_written(self, bundle: Path) -> None:
        assert json.loads((bundle / MANIFEST_FILE).read_text())["layout_digest"] == MANIFEST.layout.digest

    def test_unknown_keys_are_ignored(self) -> None:
        assert Manifest.from_json(MANIFEST.to_json() | {"note": "from a later release"}) == MANIFEST

    def test_a_bundle_may_have_no_task_yet(self) -> None:
        assert Manifest.from_json(replace(MANIFEST, tasks={}).to_json()).tasks == {}

    def test_options_are_kept(self, tmp_path: Path) -> None:
        write_manifest(tmp_path, ALL_OPTIONS)
        assert read_manifest(tmp_path) == ALL_OPTIONS
        assert {key for key in OPTIONAL if getattr(ALL_OPTIONS, key) == OPTIONAL[key]} == set()

    @pytest.mark.parametrize("key", OPTIONAL)
    def test_an_option_that_is_absent_has_its_default(self, key: str) -> None:
        raw = ALL_OPTIONS.to_json()
        del raw[key]
        assert Manifest.from_json(raw) == replace(ALL_OPTIONS, **{key: OPTIONAL[key]})

    def test_whole_numbers_are_metrics_too(self) -> None:
        raw = MANIFEST.to_json()
        raw["tasks"]["sst2"]["metrics"] = {"accuracy": 1}
        assert Manifest.from_json(raw).tasks["sst2"].metrics == {"accuracy": 1.0}


class TestRefusedJson:
    @pytest.mark.parametrize("key", sorted(MANIFEST.to_json().keys() - OPTIONAL))
    def test_every_key_is_needed(self, key: str) -> None:
        raw = MANIFEST.to_json()
        del raw[key]
        with pytest.raises(BundleError, match=f"manifest.json lacks {key}"):
            Manifest.from_json(raw)

    @pytest.mark.parametrize("key", sorted(set(MANIFEST.to_json()["tasks"]["sst2"])))
    def test_every_key_of_a_task_is_needed(self, key: str) -> None:
        raw = MANIFEST.to_json()
        del raw["tasks"]["sst2"][key]
        with pytest.raises(BundleError, match=f"lacks {key}"):
            Manifest.from_json(raw)

    @pytest.mark.parametrize("value", [None, True, -1, 1.5, [3], [None], {"x": 3}, ""])
    @pytest.mark.parametrize("key", sorted(MANIFEST.to_json()))
    def test_another_type_is_refused(self, key: str, value: object) -> None:
        if (key, value) in [("static_shape", None), ("overridable", True), ("prepacked", True)]:
            pytest.skip("this is a value that the key may have")
        with pytest.raises(BundleError):
            Manifest.from_json(MANIFEST.to_json() | {key: value})

    @pytest.mark.parametrize("value", [None, [], "manifest", 1])
    def test_no_object(self, value: object) -> None:
        with pytest.raises(BundleError, match="expected an object"):
            Manifest.from_json(value)

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_an_unknown_version_is_named_before_anything_else(self, version: int) -> None:
        with pytest.raises(BundleError, match=f"format version {version}, expected 2"):
            Manifest.from_json({"format_version": version})

    def test_a_layout_that_its_digest_does_not_know(self) -> None:
        with pytest.raises(BundleError, match="layout_digest is 'cdcdcdcdcdcd'"):
            Manifest.from_json(MANIFEST.to_json() | {"layout_digest": "cd" * 32})

    @pytest.mark.parametrize(
        "path", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "", "..\\x", "C:x", "a\0b", ".."]
    )
    def test_a_path_that_leaves_the_bundle(self, path: str) -> None:
        raw = MANIFEST.to_json()
        raw["files"][path] = raw["files"]["model.onnx"]
        with pytest.raises(BundleError, match="path"):
            Manifest.from_json(raw)

    @pytest.mark.parametrize("path", ["../sst2.bias", "tasks/other.bias", "/tasks/sst2.bias"])
    def test_a_row_lies_at_its_place(self, path: str) -> None:
        raw = MANIFEST.to_json()
        raw["tasks"]["sst2"]["file"] = path
        with pytest.raises(BundleError, match=r"expected 'tasks/sst2\.bias'"):
            Manifest.from_json(raw)

    def test_every_truncation_of_the_file_is_refused(self, bundle: Path) -> None:
        path = bundle / MANIFEST_FILE
        whole = path.read_bytes().rstrip()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(BundleError, match="is not valid JSON"):
                read_manifest(bundle)

    @pytest.mark.parametrize(
        "data",
        [b"\xff\xfe", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"9" * 5000],
        ids=["not UTF-8", "NaN", "a key twice", "deep", "a huge number"],
    )
    def test_text_that_is_no_json(self, bundle: Path, data: bytes) -> None:
        (bundle / MANIFEST_FILE).write_bytes(data)
        with pytest.raises(BundleError, match="is not valid JSON"):
            read_manifest(bundle)

    def test_a_folder_without_a_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="cannot be read") as caught:
            read_manifest(tmp_path)
        assert caught.value.hint


class TestPartsThatDisagree:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"base": BaseRecord("other", "main", "cd" * 32)}, "the layout is for the base"),
            ({"layout_kind": "row"}, "layout_kind is 'row', expected one of table"),
            ({"target": "cuda"}, "target is 'cuda'"),
            ({"precision": "fp64"}, "precision is 'fp64'"),
            ({"opset": 0}, "opset is 0"),
            ({"pad_token_id": -1}, "pad_token_id is -1"),
            ({"modality": "smell"}, "modality is 'smell', expected one of text, image, audio"),
            ({"programs": {}}, "the manifest's programs lack infer"),
            ({"programs": {"infer": replace(INFER_PROGRAM, file="other.onnx")}}, "files lack other.onnx"),
            ({"tasks": {"other": TASK}}, "under the name 'other'"),
            ({"row_dtype": "int8"}, "row_dtype is 'int8', expected one of fp32, fp16"),
            ({"overridable": True}, "the layout table is overridable, expected the layout named"),
            ({"overridable": True, "layout_kind": "packed"}, "the layout packed is overridable"),
            ({"static_shape": (4, 128)}, "the layout table has a static_shape, expected .* packed or named"),
            ({"static_shape": (4, 513), "layout_kind": "packed"}, "static_shape has 513 tokens, expected at most 512"),
            ({"static_shape": (0, 8), "layout_kind": "packed"}, "static_shape: the batch is 0"),
            ({"static_shape": (4, True), "layout_kind": "packed"}, "static_shape: the sequence is True"),
            (
                {"static_shape": (4,), "layout_kind": "packed"},
                r"static_shape is \[4\], expected a batch and a sequence",
            ),
            ({"fold_reasons": {"b.bias": "why"}}, "fold_reasons names 'b.bias', expected bias terms of the layout"),
            ({"max_positions": 127}, "max_length 128, expected at most 127"),
        ],
    )
    def test_manifest(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(BundleError, match=message):
            replace(MANIFEST, **changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"inputs": ()}, "no inputs"),
            ({"outputs": INFER_PROGRAM.outputs * 2}, "unique names"),
            ({"at_load": "some"}, "at_load is 'some', expected one of none, basic, all"),
            ({"outputs": (Port("logits", "token_ids", "float32", ()),)}, "has the role 'token_ids', expected"),
            ({"inputs": (Port("x", "biases", "float64", (1,)),)}, "has the dtype 'float64', expected"),
            ({"inputs": (Port("x", "biases", "float32", (0,)),)}, "has the dimension 0, expected 1 to"),
            ({"inputs": (Port("x", "biases", "float32", (1,) * 9),)}, "has 9 dimensions, expected at most 8"),
        ],
    )
    def test_program(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(BundleError, match=message):
            replace(INFER_PROGRAM, **changes)

    def test_a_model_that_reads_no_text_has_no_text_fields_and_no_tokenizer(self, tmp_path: Path) -> None:
        files = {name: record for name, record in MANIFEST.files.items() if name != "tokenizer.json"}
        text = {"max_positions": 0, "vocab_size": 0, "pad_token_id": 0}
        images = replace(MANIFEST, modality="image", files=files, **text)
        assert not images.to_json().keys() & text.keys()
        write_manifest(tmp_path, images)
        assert read_manifest(tmp_path) == images

    def test_a_task_as_long_as_the_model_allows(self) -> None:
        assert replace(MANIFEST, max_positions=128).tasks == MANIFEST.tasks

    @pytest.mark.parametrize(
        ("problem_type", "good", "bad"),
        [
            ("single_label", [("a",), ("a", "b")], [()]),
            ("multi_label", [("a",)], [()]),
            ("token", [("O", "B-PER")], [()]),
            ("regression", [()], [("a",)]),
            ("span", [("start", "end")], [(), ("start",), ("a", "b", "c")]),
        ],
    )
    def test_labels(self, problem_type: str, good: list[tuple[str, ...]], bad: list[tuple[str, ...]]) -> None:
        for labels in good:
            task = replace(TASK, problem_type=problem_type, labels=labels)
            assert task.label_count == (1 if problem_type == "regression" else len(labels))
        for labels in bad:
            with pytest.raises(BundleError, match="labels, expected"):
                replace(TASK, problem_type=problem_type, labels=labels)

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "a/b", "file": "tasks/a/b.bias"},
            {"sha256": "x"},
            {"problem_type": "ranking"},
            {"labels": ("a", "a")},
            {"task_version": 0},
            {"max_length": 0},
            {"metrics": {"accuracy": float("nan")}},
        ],
    )
    def test_task(self, changes: dict[str, Any]) -> None:
        with pytest.raises(BundleError):
            replace(TASK, **changes)
