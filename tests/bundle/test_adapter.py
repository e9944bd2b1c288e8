"""An adapter holds the arrays of a row by the names of the graph inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.bundle.adapter import adapter_file, write_adapter
from bitfit_export.errors import BundleError, OutputError

LAYOUT = Layout.pack(
    "ab" * 32,
    {"a.bias": (3,), "b.bias": (2, 2)},
    [("head.pooling", (2,)), ("head.dense.weight", (5, 4)), ("head.classifier.weight", ("labels", 4))],
    ("cls", "mean"),
)
ROW = BiasRow(
    task="rte",
    problem_type="single_label",
    labels=2,
    task_version=9,
    layout_digest=LAYOUT.digest,
    biases=np.arange(7, dtype=np.float32) + 0.5,
    head=(
        np.array([0, 1], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32),
    ),
)


def read(path: Path) -> dict[str, list[object]]:
    adapter = ort.AdapterFormat.read_adapter(str(path))
    values = {name: value.numpy() for name, value in adapter.get_parameters().items()}
    assert {value.dtype for value in values.values()} == {np.dtype(np.float32)}
    return {name: value.tolist() for name, value in values.items()}


def test_every_input_is_there_by_its_name(tmp_path: Path) -> None:
    write_adapter(tmp_path / "rte.onnx_adapter", ROW, LAYOUT)
    assert read(tmp_path / "rte.onnx_adapter") == {
        "a.bias": [0.5, 1.5, 2.5],
        "b.bias": [[3.5, 4.5], [5.5, 6.5]],
        "head.pooling": [0, 1],
        "head.dense.weight": [[0.0] * 4] * 5,  # which the task lacks
        "head.classifier.weight": [[1, 2, 3, 4], [5, 6, 7, 8]],
    }


def test_a_head_of_fixed_labels_is_padded(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", ROW, LAYOUT, labels=3)
    assert read(tmp_path / "a")["head.classifier.weight"] == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]


def test_versions(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", ROW, LAYOUT)
    adapter = ort.AdapterFormat.read_adapter(str(tmp_path / "a"))
    assert (adapter.get_adapter_version(), adapter.get_model_version(), adapter.get_format_version()) == (9, 1, 1)


def test_a_float16_row_becomes_float32(tmp_path: Path) -> None:
    half = replace(ROW, biases=ROW.biases.astype(np.float16), head=tuple(each.astype(np.float16) for each in ROW.head))
    write_adapter(tmp_path / "half", half, LAYOUT)
    write_adapter(tmp_path / "full", ROW, LAYOUT)
    assert read(tmp_path / "half") == read(tmp_path / "full")


def test_the_same_row_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_adapter(tmp_path / name, ROW, LAYOUT)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    write_adapter(tmp_path / "two", replace(ROW, biases=-ROW.biases), LAYOUT)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_the_largest_version(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", replace(ROW, task_version=2**31 - 1), LAYOUT)
    with pytest.raises(BundleError, match="rte has version 2147483648, expected at most 2147483647"):
        write_adapter(tmp_path / "a", replace(ROW, task_version=2**31), LAYOUT)
    assert ort.AdapterFormat.read_adapter(str(tmp_path / "a")).get_adapter_version() == 2**31 - 1


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"rte\.onnx_adapter could not be written"):
        write_adapter(tmp_path / "nowhere" / "rte.onnx_adapter", ROW, LAYOUT)


def test_its_place_in_a_bundle() -> None:
    assert adapter_file("rte") == "tasks/rte.onnx_adapter"
