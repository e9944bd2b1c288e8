"""The seam of engines: who runs a bundle, and what an engine of one's own needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.errors import BundleError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.engines import ENGINES, choose_engine
from bitfit_export.runtime.engines.base import Arrays, Bound, Engine, Program, ProgramFiles


class LoggedProgram(Program):
    """Delegates, and notes what it was given."""

    def __init__(self, inner: Program, log: list[str]) -> None:
        self._inner, self._log = inner, log
        self.inputs, self.defaults = inner.inputs, inner.defaults
        self.outputs, self.metadata = inner.outputs, inner.metadata

    def bind(self, arrays: Arrays) -> Bound:
        self._log.append(f"bind {', '.join(arrays)}")
        return self._inner.bind(arrays)

    def run(self, arrays: Arrays, bound: Bound, outputs: Sequence[str]) -> list[np.ndarray]:
        self._log.append(f"run {', '.join(arrays)}")
        return self._inner.run(arrays, bound, outputs)


class Logging(Engine):
    name = "logging"
    targets: ClassVar[frozenset[str]] = frozenset({"ort"})
    log: ClassVar[list[str]] = []

    def open(self, files: ProgramFiles, *, threads: int | None = None) -> Program:
        self.log.append(f"open {files.path.name} at_load={files.at_load} threads={threads}")
        return LoggedProgram(choose_engine("ort", "onnxruntime").open(files, threads=threads), self.log)


@pytest.fixture
def logging_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An engine that is one module and one line; gives its log."""
    module = ModuleType("logging_engine")
    module.ENGINE = Logging()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "logging_engine", module)
    monkeypatch.setitem(ENGINES, "logging", "logging_engine")
    Logging.log.clear()
    yield Logging.log
    Logging.log.clear()


def test_an_engine_is_one_module_and_one_line(tiny_bundle: Path, logging_engine: list[str]) -> None:
    text = "A warm, funny film."
    expected = BiasSession(tiny_bundle).predict(text, "two_way")
    session = BiasSession(tiny_bundle, engine="logging", threads=1)
    assert session.predict(text, "two_way") == expected
    assert logging_engine[0] == "open model.onnx at_load=none threads=1"
    assert logging_engine[-1] == "run input_ids, attention_mask, token_type_ids, task_ids"


def test_switching_tasks_binds_nothing(tiny_bundle: Path, logging_engine: list[str]) -> None:
    session = BiasSession(tiny_bundle, engine="logging")
    logging_engine.clear()
    for task in ("two_way", "score", "three_way"):
        session.predict("A warm, funny film.", task)
    assert [line.split()[0] for line in logging_engine] == ["run"] * 3


def test_the_engine_is_chosen_by_the_target(logging_engine: list[str]) -> None:
    assert choose_engine("ort").name == "onnxruntime"
    assert choose_engine("portable").name == "onnxruntime"
    assert choose_engine("ort", "logging").name == "logging"


def test_an_engine_that_cannot_run_the_bundle_says_why(logging_engine: list[str]) -> None:
    with pytest.raises(BundleError, match=r"target 'portable', which the engine does not run \(logging runs ort\)"):
        choose_engine("portable", "logging")
    with pytest.raises(BundleError, match="target 'qnn'"):
        choose_engine("qnn")


def test_an_unknown_engine_is_a_usage_error(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="the engine is 'tpu', expected one of onnxruntime"):
        BiasSession(tiny_bundle, engine="tpu")


def test_an_ort_value_uses_numpys_memory() -> None:
    """What bound arrays rest on: ONNX Runtime reads the array itself, so what is written into it is what runs."""
    array = np.zeros((2, 3), np.float32)
    value: Any = ort.OrtValue.ortvalue_from_numpy(array)
    assert value.data_ptr() == array.ctypes.data
    array[1, 2] = 7
    assert value.numpy()[1, 2] == 7
