"""The seam of engines: who runs a bundle, and what an engine of one's own needs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.errors import BundleError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.engines import ENGINES, choose_engine
from bitfit_export.runtime.engines.base import (
    NO_OPTIONS,
    Arrays,
    Bound,
    Engine,
    EngineOption,
    OptionValues,
    Program,
    ProgramFiles,
)


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
    runs = "what ONNX Runtime runs"
    options: ClassVar[Mapping[str, EngineOption]] = {"level": EngineOption(str.isdecimal, "a number")}
    targets: ClassVar[frozenset[str]] = frozenset({"ort"})
    log: ClassVar[list[str]] = []

    def open(self, files: ProgramFiles, *, threads: int | None = None, options: OptionValues = NO_OPTIONS) -> Program:
        self.log.append(f"open {files.path.name} at_load={files.at_load} threads={threads} options={dict(options)}")
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
    session = BiasSession(tiny_bundle, engine="logging", engine_options={"level": 3}, threads=1)
    assert session.predict(text, "two_way") == expected
    assert logging_engine[0] == "open model.onnx at_load=none threads=1 options={'level': '3'}"
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
    message = r"target 'portable', which the engine does not run \(logging runs what ONNX Runtime runs\)"
    with pytest.raises(BundleError, match=message):
        choose_engine("portable", "logging")
    with pytest.raises(BundleError, match=r"target 'ort', .*\(openvino runs standard .*\nhint: .*--target portable"):
        choose_engine("ort", "openvino")
    with pytest.raises(BundleError, match="target 'npu'"):
        choose_engine("npu")


def test_an_engine_that_cannot_feed_defaults_refuses_an_overridable_bundle() -> None:
    assert choose_engine("portable", feeds_defaults=True).name == "onnxruntime"
    with pytest.raises(BundleError, match=r"which the engine openvino makes constants\nhint: .*without --overridable"):
        choose_engine("portable", "openvino", feeds_defaults=True)


@pytest.mark.usefixtures("logging_engine")
@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("logging", {"level": "high"}, "the option level of the engine logging is 'high', expected a number"),
        ("logging", {"levle": "3"}, "the engine logging has no option 'levle', expected one of level"),
        ("onnxruntime", {"level": "3"}, "the engine onnxruntime has no option 'level', expected none"),
        (None, {"level": "3"}, "expected none, for it has no options\nhint: name the engine that has this option"),
        ("logging", {"level": 1.5}, "the engine option level is 1.5, expected a string, an integer or a path"),
        ("logging", {"level": True}, "the engine option level is True"),
        ("logging", {3: "3"}, "engine_options is {3: '3'}, expected a dictionary"),
        ("logging", "level=3", "engine_options is 'level=3', expected a dictionary"),
    ],
)
def test_options_that_the_engine_does_not_take(
    tiny_bundle: Path, engine: str | None, options: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        BiasSession(tiny_bundle, engine=engine, engine_options=options)


def test_an_unknown_engine_is_a_usage_error(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="the engine is 'tpu', expected one of onnxruntime"):
        BiasSession(tiny_bundle, engine="tpu")


PEAK_OF_A_RUN = """
    import resource, sys
    from bitfit_export.runtime import BiasSession

    session = BiasSession(sys.argv[1], engine=sys.argv[2], threads=1)
    batch = session.encode("a text")
    session.run("two_way", **batch)
    session._store.reserve(2**30 // (4 * session.manifest.layout.bias_count))  # a GiB, in which no row was written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session.run("two_way", **batch)
    session.run(["score", "two_way"], **session.encode(["a text", "another"]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_run_copies_nothing_of_the_table(engine: str, bundle: Path) -> None:
    """The system gives memory to what is touched alone; a copy would touch all of it."""
    words = [sys.executable, "-c", textwrap.dedent(PEAK_OF_A_RUN), str(bundle), engine]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 2**15, "KiB, on Linux"


@pytest.fixture
def program(tiny_bundle: Path) -> tuple[Program, dict[str, np.ndarray]]:
    """The tiny bundle as ONNX Runtime opens it, and a text of three tokens."""
    manifest = read_manifest(tiny_bundle)
    path = tiny_bundle / manifest.infer.file
    files = ProgramFiles(path, path.read_bytes(), tiny_bundle, manifest.infer.at_load)
    ones = np.ones((1, 3), np.int64)
    text = {"input_ids": ones, "attention_mask": ones, "token_type_ids": np.zeros_like(ones)}
    return choose_engine("ort", "onnxruntime").open(files, threads=1), text | {"task_ids": np.zeros(1, np.int64)}


def table_of(program: Program, rows: int) -> dict[str, np.ndarray]:
    """A table of zeros with one label."""
    shapes = {name: each.shape[1:] for name, each in program.inputs.items() if each.dtype == "float32"}
    return {name: np.zeros((rows, *(size or 1 for size in shape)), np.float32) for name, shape in shapes.items()}


def test_what_is_written_into_bound_arrays_is_what_runs(program: tuple[Program, dict[str, np.ndarray]]) -> None:
    opened, text = program
    arrays = table_of(opened, 2)
    bound = opened.bind(arrays)
    for value in (0.0, 7.0):
        arrays["head.classifier.bias"][0] = value
        (logits,) = opened.run(text, bound, ["logits"])
        assert logits.tolist() == [[value]]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to look at memory")
def test_bound_arrays_are_not_copied(program: tuple[Program, dict[str, np.ndarray]]) -> None:
    """Pages of a large table that nobody reads are never there."""
    opened, text = program
    size = 2**31
    arrays = table_of(opened, 1)
    arrays = table_of(opened, size // sum(each.nbytes for each in arrays.values()))
    bound = opened.bind(arrays)
    before = resident_bytes()
    opened.run(text, bound, ["logits"])
    assert resident_bytes() - before < size / 8


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_outputs_are_the_callers_own(program: tuple[Program, dict[str, np.ndarray]]) -> None:
    opened, text = program
    bound = opened.bind(table_of(opened, 1))
    (first,) = opened.run(text, bound, ["logits"])
    assert first.flags.owndata
    first[:] = 5
    (second,) = opened.run(text, bound, ["logits"])
    assert second.tolist() == [[0.0]]
    assert first.tolist() == [[5.0]]
