"""Bundles for the HTP that several rooms run, each compiled once in a run of the tests; and binaries to refuse."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfit_export.bundle import read_manifest
from tests.conftest import MakeDelta, random_delta
from tests.runtime.conftest import change_manifest, record_again

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.compiler import CompileOptions
    from bitfit_export.delta import TaskDelta

NEEDS_QNN = "needs bitfit-export[qnn]: Linux x86-64, glibc 2.35"
LENGTH = 8
#: The largest difference of a logit to PyTorch's: the HTP computes in float16.
HALF = 0.02
BINARY = "model_qnn.bin"
TASKS = ("three_way", "two_way", "score", "cls", "mean")
BATCH = {
    "input_ids": np.array([[101, 2023, 3185, 2003, 6581, 102]], np.int64),
    "attention_mask": np.ones((1, 6), np.int64),
    "token_type_ids": np.array([[0, 0, 0, 1, 1, 1]], np.int64),
}


def five_deltas(base: BaseModel, tiny_deltas: Mapping[str, TaskDelta], make_delta: MakeDelta) -> dict[str, TaskDelta]:
    """The deltas of `TASKS`."""
    more = {name: make_delta(base, name, pooling=name, seed=7 + place) for place, name in enumerate(TASKS[3:])}
    return {**tiny_deltas, **more}


def two_deltas(base: BaseModel) -> dict[str, TaskDelta]:
    """The deltas of the bundles in integers."""
    return {name: random_delta(base, name, pooling=name, seed=place) for place, name in enumerate(("cls", "mean"))}


def in_half(layout: str) -> CompileOptions:
    """Options of a bundle in float16."""
    return _options("fp16", layout)


def in_integers(layout: str) -> CompileOptions:
    """Options of a bundle in integers, which keeps its graph."""
    return _options("w8a16", layout, keep_onnx=True)


def _options(precision: str, layout: str, **others: Any) -> CompileOptions:
    from bitfit_export.compiler import CompileOptions

    return CompileOptions(target="qnn", precision=precision, layout=layout, static_shape=(1, LENGTH), **others)


def forge(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / BINARY).write_bytes(change((folder / BINARY).read_bytes()))
        record_again(folder, BINARY)

    return apply


def record(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_manifest(folder, accelerator=replace(read_manifest(folder).accelerator, **changes))


def rename(folder: Path) -> None:
    """A model that loads another file than the manifest says."""
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model.replace(BINARY.encode(), b"elsewhere.bin"))
    shutil.copy(folder / BINARY, folder / "elsewhere.bin")
    record_again(folder, "model.onnx")


#: What makes a copy of a bundle one that must not be loaded, and what is said of it.
WRONG_BINARIES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / BINARY).write_bytes(b"other"), "has 5 bytes, expected"),
    (lambda folder: (folder / BINARY).unlink(), "cannot be read"),
    (forge(lambda data: b""), "cannot be loaded: .*Empty cache file"),
    (forge(lambda data: data[: len(data) // 2]), "cannot be loaded: .*Failed to get context binary info"),
    (forge(lambda data: bytes(range(256)) * 99), "cannot be loaded: .*Failed to get context binary info"),
    (rename, """loads ['"]elsewhere.bin['"], expected ['"]model_qnn.bin['"] as in the manifest"""),
    (record(sdk="2.99.0"), r"compiled with QNN 2\.99\.0, this is QNN \d+\.\d+\.\d+, which cannot load it"),
    (record(sdk="1.2.0"), r"compiled with QNN 1\.2\.0, this is QNN"),
    (record(sdk="new"), """SDK is ['"]new['"], expected a version such as"""),
]
