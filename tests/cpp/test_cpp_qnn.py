"""The engine `qnn` in C++: one binary, any task, with the answers of PyTorch and of Python's engine."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.tasks.one_at_a_time import SaturationWarning
from tests import traces
from tests.conftest import MakeDelta
from tests.cpp.conftest import Driver, build_sanitized, changed_row, cpp_run, logits_of, run
from tests.qnn_bundles import (
    BATCH,
    BINARY,
    HALF,
    NEEDS_QNN,
    TASKS,
    WRONG_BINARIES,
    five_deltas,
    in_half,
    in_integers,
    two_deltas,
)
from tests.runtime.conftest import Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

qnn = pytest.importorskip("onnxruntime_qnn", reason=NEEDS_QNN)

LIBRARY = f"library={qnn.get_library_path()}"
WORDS = {name: values.tolist() for name, values in BATCH.items()}
#: The same binary with the same values: all that may differ is how a number is printed.
SAME = 1e-6


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], make_delta: MakeDelta) -> dict[str, TaskDelta]:
    return five_deltas(tiny_base, tiny_deltas, make_delta)


@pytest.fixture(scope="module")
def half(tiny_base: BaseModel, deltas: dict[str, TaskDelta]) -> Path:
    return traces.bundle_of(tiny_base, deltas, in_half("packed"))


@pytest.fixture(scope="module")
def integers(tiny_base: BaseModel) -> Path:
    return traces.bundle_of(tiny_base, two_deltas(tiny_base), in_integers("named"))


@pytest.fixture
def open_on_htp(programs: Path) -> Iterator[Callable[..., Driver]]:
    opened: list[Driver] = []

    def start(bundle: Path, *words: str, folder: Path = programs) -> Driver:
        opened.append(Driver(folder / "tests" / "session_test", bundle, LIBRARY, *words))
        return opened[-1]

    yield start
    for driver in opened:
        driver.close()


def test_one_binary_answers_each_of_five_tasks_as_pytorch_and_as_python(
    half: Path, open_on_htp: Callable[..., Driver], tiny_base: BaseModel, deltas: dict[str, TaskDelta]
) -> None:
    session, python, reference = open_on_htp(half), BiasSession(half), Reference(tiny_base, deltas)
    assert session("device") == {"device": python.device, "emulated": True}
    for task in TASKS:
        found = logits_of(session("run", tasks=[task], **WORDS))
        np.testing.assert_allclose(found, reference(task, BATCH), atol=HALF, rtol=0)
        np.testing.assert_allclose(found, python.run(task, **BATCH), atol=SAME, rtol=0)


def test_biases_in_integers_are_made_when_a_row_is_loaded(
    integers: Path, open_on_htp: Callable[..., Driver], tmp_path: Path
) -> None:
    session, python = open_on_htp(integers), BiasSession(integers)
    for task in ("cls", "mean"):
        found = logits_of(session("run", tasks=[task], **WORDS))
        np.testing.assert_allclose(found, python.run(task, **BATCH), atol=SAME, rtol=0)
    manifest = read_manifest(integers)
    entry = next(each for each in manifest.layout.biases if each.name in manifest.quantization.bias_scales)
    values = python_row(integers, "cls")
    values[entry.offset] = 2.0**31 * np.float32(manifest.quantization.bias_scales[entry.name][0])
    row = changed_row(integers, "cls", tmp_path / "cls.bias", biases=values)
    assert session("load", path=str(row))["code"] == "ok"
    with pytest.warns(SaturationWarning) as said:
        python.load_task(row)
    assert session("tasks")["cls"]["warning"] == str(said[0].message)
    assert "warning" not in session("tasks")["mean"]
    found = logits_of(session("run", tasks=["cls"], **WORDS))
    np.testing.assert_allclose(found, python.run("cls", **BATCH), atol=SAME, rtol=0)


def python_row(bundle: Path, task: str) -> np.ndarray:
    from bitfit_export.bundle import read_row

    return read_row(bundle / "tasks" / f"{task}.bias").biases.copy()


def test_switching_tasks_opens_compiles_and_binds_nothing(programs: Path, half: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*")}
    command = [programs / "tests" / "engine_test", "log", half, LIBRARY, "two_way", "cls", "two_way"]
    *lines, _ = run(command).stdout.splitlines()
    opening, runs = lines[: lines.index("opened")], lines[lines.index("opened") + 1 :]
    assert [line.split()[0] for line in opening] == ["open", *["bind"] * len(TASKS)]
    assert {line.split()[0] for line in runs} == {"run"}
    bounds = [re.sub(r".* bound (\d+) .*", r"\1", line) for line in runs]
    assert bounds[:3] == bounds[-3:] != bounds[3:6], "three texts per task, each with the row that was bound for it"
    assert {path: path.stat().st_mtime_ns for path in half.rglob("*")} == before


def test_a_program_prints_answers_alone_and_says_what_runs(programs: Path, half: Path) -> None:
    words = [half, "--task", "two_way", "--text", "a warm film"]
    named = cpp_run(programs, *words, "--engine", "qnn", "--engine-option", LIBRARY)
    assert json.loads(named.stdout)["task"] == "two_way"
    assert "running on Qualcomm's emulator of the HTP (no NPU)" in named.stderr
    found_by_loader = os.environ | {"LD_LIBRARY_PATH": str(Path(qnn.get_library_path()).parent)}
    assert cpp_run(programs, *words, env=found_by_loader).stdout == named.stdout


@pytest.mark.parametrize(("change", "message"), WRONG_BINARIES)
def test_a_wrong_binary_is_one_clear_error(
    half: Path, tmp_path: Path, open_on_htp: Callable[..., Driver], change: Callable[[Path], Any], message: str
) -> None:
    copy = Path(shutil.copytree(half, tmp_path / "bundle"))
    change(copy)
    status = open_on_htp(copy).opened
    assert status["code"] == "bundle_error"
    assert re.search(message, status["message"]), status
    assert "\n" not in status["message"]


def test_a_binary_for_another_arch_than_the_device_has_is_refused(
    half: Path, open_on_htp: Callable[..., Driver]
) -> None:
    status = open_on_htp(half, "htp_arch=75").opened
    assert status["message"] == "the bundle was compiled for the HTP 73 of sm8550, this device has 75"
    assert status["hint"] == "export the bundle with --htp-arch 75"
    status = open_on_htp(half, "htp_arch=74").opened
    assert status["code"] == "usage_error"
    assert status["message"] == "the option htp_arch of the engine qnn is 74, expected one of 69, 73, 75, 79, 81"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"the QNN library libonnxruntime_providers_qnn\.so cannot be loaded: .*cannot open shared object file"),
        (["qnn", "library=/no/such.so"], r"the QNN library /no/such\.so cannot be loaded: .*cannot open shared object"),
        (["qnn", f"library={qnn.get_qnn_htp_path()}"], "cannot be loaded: .*undefined symbol: CreateEpFactories"),
        (["qnn", "speed=1"], "the engine qnn has no option speed, expected one of htp_arch, library"),
        (["qnn", "library"], "--engine-option is library, expected NAME=VALUE"),
        (["onnxruntime"], r"for the target qnn, which the engine does not run \(onnxruntime runs ort, portable\)"),
        (["tpu"], "the engine is tpu, expected one of onnxruntime, qnn"),
    ],
)
def test_a_library_that_is_none_is_one_clear_error(programs: Path, half: Path, words: list[str], message: str) -> None:
    engine = [["--engine", words[0]], *(["--engine-option", word] for word in words[1:])] if words else []
    done = cpp_run(programs, half, "--task", "cls", "--text", "x", *(word for pair in engine for word in pair))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.search(f"^error: .*{message}", done.stderr, re.M), done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.slow
def test_under_address_sanitizer(
    half: Path, integers: Path, open_on_htp: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Qualcomm's library keeps to the end is its own."""
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    for bundle, tasks in ((half, ("two_way", "score")), (integers, ("cls", "mean"))):
        session = open_on_htp(bundle, folder=build_sanitized())
        for task in tasks:
            assert logits_of(session("run", tasks=[task], **WORDS)).shape[0] == 1
    assert (half / BINARY).is_file()
