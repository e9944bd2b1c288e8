"""The task delta on disk: everything comes back, and everything that is wrong is found."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import CONFIG_FILE, TENSOR_FILE, TaskDelta
from bitfit_export.errors import BaseMismatchError, DeltaError, OutputError


@pytest.fixture
def saved(tiny_deltas: dict[str, TaskDelta], tmp_path: Path) -> Path:
    folder = tmp_path / "two_way"
    tiny_deltas["two_way"].save(folder, card="# card\n")
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, changes: dict[str, np.ndarray | None]) -> None:
    tensors = load_file(folder / TENSOR_FILE) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / TENSOR_FILE)


def test_a_delta_comes_back_as_it_was(saved: Path, tiny_deltas: dict[str, TaskDelta]) -> None:
    original, loaded = tiny_deltas["two_way"], TaskDelta.load(saved)
    assert loaded.config == original.config
    for ours, theirs in ((loaded.biases, original.biases), (loaded.head, original.head)):
        assert sorted(ours) == sorted(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_same_delta_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    TaskDelta.load(saved).save(tmp_path / "again", card="# card\n")
    for name in (CONFIG_FILE, TENSOR_FILE, "README.md"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_file_has_differences_under_parameter_names_and_the_head_whole(saved: Path) -> None:
    names = set(load_file(saved / TENSOR_FILE))
    assert {"head.classifier.weight", "head.classifier.bias", "encoder.layer.0.output.dense.bias"} <= names
    assert not any("weight" in name for name in names if not name.startswith("head."))


def test_an_existing_delta_is_not_replaced_unasked(saved: Path, tiny_deltas: dict[str, TaskDelta]) -> None:
    with pytest.raises(OutputError, match="exists already"):
        tiny_deltas["three_way"].save(saved, card="")
    assert TaskDelta.load(saved).config.task == "two_way"


def test_merging_adds_the_difference_and_leaves_other_terms(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    whole = tiny_deltas["two_way"]
    name = "encoder.layer.0.output.dense.bias"
    config = dataclasses.replace(whole.config, bias_terms=(name,))
    partial = TaskDelta(config, {name: whole.biases[name]}, whole.head)
    merged = partial.merge(tiny_base.biases)
    np.testing.assert_array_equal(merged[name], tiny_base.biases[name] + whole.biases[name])
    others = [other for other in tiny_base.biases if other != name]
    assert all(merged[other] is tiny_base.biases[other] for other in others)


def test_another_base_is_refused(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> None:
    with pytest.raises(BaseMismatchError, match="was trained on tiny-bert with digest"):
        tiny_deltas["two_way"].check_base("other", "0" * 64, tiny_base.biases)


def test_a_bias_term_that_the_base_lacks_must_have_been_added(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    term, *others = tiny_deltas["two_way"].biases
    with pytest.raises(DeltaError, match=rf"changes {term} .* it is absent\nhint: it was trained with --add-biases"):
        tiny_deltas["two_way"].check_base("other", tiny_base.digest, {name: tiny_base.biases[name] for name in others})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2, expected 1"),
        ({"problem_type": "poetry"}, "problem_type is 'poetry'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"labels": []}, "only a regression has none"),
        ({"labels": ["yes", "yes"]}, "same name"),
        ({"labels": "yes"}, "expected a list of strings"),
        ({"labels": ["a", "b", "c"]}, r"expected \(3, 32\)"),
        ({"bias_terms": ["encoder.layer.0.output.dense.bias"]}, "disagree about"),
        ({"max_length": 0}, "max_length is 0"),
        ({"labels": ["yes", ""]}, "the label '' is empty"),
        ({"labels": ["yes", "n\to"]}, "has a control character"),
        ({"problem_type": "span", "pooling": "tokens", "labels": ["a", "b", "c"]}, "span task with 3 labels"),
        ({"metrics": {"accuracy": "high"}}, "the metric accuracy is 'high', expected a finite number"),
        ({"metrics": {"accuracy": float("nan")}}, "NaN is not a JSON number"),
        ({"metrics": None}, "metrics is None, expected an object"),
        ({"training": []}, "training is .*, expected an object"),
        ({"base_digest": ""}, "base_digest is '', expected 64 lower-case hexadecimal digits"),
        ({"base_digest": "zz"}, "base_digest is 'zz', expected 64 lower-case hexadecimal digits"),
        ({"base_digest": "A" * 64}, "expected 64 lower-case hexadecimal digits"),
        ({"base_digest": 5}, "base_digest is 5"),
        ({"base_model": ""}, "base_model is ''"),
        ({"base_model": "a\x1b[2Kb"}, r"base_model is 'a\\x1b\[2Kb', expected a name"),
        ({"base_model": ["a"]}, "base_model is "),
        ({"base_revision": "a\nb"}, "base_revision is "),
        ({"base_revision": 1}, "base_revision is 1"),
        ({"task": "a\u2028b"}, "task is "),
        ({"method": "a\x9bb"}, "method is "),
        ({"metrics": {"a\nb": 0.5}}, r"the metric 'a\\nb' is empty or has a control character"),
        ({"metrics": {"a": True}}, "the metric a is True"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 2**31}, "max_length is 2147483648"),
        ({"max_length": 8.0}, "max_length is 8.0"),
        ({"format_version": True}, "format version True, expected 1"),
        ({"format_version": 1.0}, "format version 1.0, expected 1"),
        ({"problem_type": ["single_label"]}, "problem_type is "),
        ({"activation": {}}, "activation is "),
    ],
)
def test_a_wrong_configuration_is_refused(saved: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(saved, **changes)
    with pytest.raises(DeltaError, match=message):
        TaskDelta.load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"labels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more than 64 levels"),
        (b"[" * 100_000, "more than 64 levels"),
        (b'{"task": "a", "task": "b"}', "the key 'task' is there twice"),
        (b'{"training": {"seed": 1, "seed": 2}}', "the key 'seed' is there twice"),
        (b'{"training": {"rate": 1e999}}', "no double can hold"),
        (b'{"training": {"seed": ' + b"9" * 5000 + b"}}", "int64 cannot hold"),
        (b'\xef\xbb\xbf{"task": "a"}', "byte order mark"),
        (b'{"task": "\xff"}', "not valid JSON"),
        (b'{"task": "\\ud800"}', "half a surrogate pair"),
        ("{}".encode("utf-16"), "not valid JSON"),
        (b"[]", "lacks base_digest"),
        (b'{"task": "a"} x', "not valid JSON"),
    ],
)
def test_what_is_no_configuration_at_all_is_refused_in_a_line(saved: Path, text: bytes, message: str) -> None:
    (saved / CONFIG_FILE).write_bytes(text)
    with pytest.raises(DeltaError, match=message) as caught:
        TaskDelta.load(saved)
    assert len(str(caught.value)) < 1000
    assert all(line.isprintable() for line in str(caught.value).splitlines())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_configuration_that_never_ends_is_not_read(saved: Path) -> None:
    (saved / CONFIG_FILE).unlink()
    os.mkfifo(saved / CONFIG_FILE)
    with pytest.raises(DeltaError, match="not a regular file"):
        TaskDelta.load(saved)
    (saved / CONFIG_FILE).unlink()
    with (saved / CONFIG_FILE).open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DeltaError, match="expected at most 16777216"):
        TaskDelta.load(saved)
    with pytest.raises(DeltaError, match="cannot be read"):
        TaskDelta.load(Path("a\0b"))


NAME = "encoder.layer.0.output.dense.bias"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAME: np.full(32, np.nan, np.float32)}, "NaN or an infinity"),
        ({NAME: np.full(32, np.inf, np.float32)}, "NaN or an infinity"),
        ({NAME: np.zeros(32, np.float64)}, "float64, expected float32"),
        ({NAME: None}, f"disagree about {NAME}"),
        ({"encoder.layer.0.output.dense.weight": np.zeros((2, 2), np.float32)}, "is not a bias term"),
        ({"head.classifier.bias": None}, r"expected \[.classifier.bias., .classifier.weight.\]"),
    ],
)
def test_a_wrong_tensor_is_refused(saved: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    edit_tensors(saved, changes)
    with pytest.raises(DeltaError, match=message):
        TaskDelta.load(saved)


def test_a_term_of_another_shape_is_refused(saved: Path, tiny_base: BaseModel) -> None:
    edit_tensors(saved, {NAME: np.zeros(31, np.float32)})
    with pytest.raises(DeltaError, match=r"changes .* \(31,\), in tiny-bert it is of shape \(32,\)"):
        TaskDelta.load(saved).check_base("tiny-bert", tiny_base.digest, tiny_base.biases)


@pytest.mark.parametrize("name", [CONFIG_FILE, TENSOR_FILE])
def test_a_truncated_or_missing_file_is_refused(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DeltaError, match=r"is not (valid JSON|a valid safetensors file)"):
        TaskDelta.load(saved)
    (saved / name).unlink()
    with pytest.raises(DeltaError, match="cannot be read"):
        TaskDelta.load(saved)
