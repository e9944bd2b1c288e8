"""The engine `qnn`: one binary, any task, by Qualcomm's emulator of the HTP; and binaries that it must not load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.errors import BundleError, RowError, UsageError
from bitfit_export.runtime import BiasSession
from tests import traces
from tests.conftest import MakeDelta
from tests.qnn_bundles import BATCH, BINARY, HALF, NEEDS_QNN, TASKS, WRONG_BINARIES, five_deltas, in_half
from tests.runtime.conftest import Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

qnn = pytest.importorskip("onnxruntime_qnn", reason=NEEDS_QNN)


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], make_delta: MakeDelta) -> dict[str, TaskDelta]:
    return five_deltas(tiny_base, tiny_deltas, make_delta)


@pytest.fixture(scope="module", params=["packed", "named"])
def bundle(request: pytest.FixtureRequest, tiny_base: BaseModel, deltas: dict[str, TaskDelta]) -> Path:
    return traces.bundle_of(tiny_base, deltas, in_half(request.param))


@pytest.fixture(scope="module")
def session(bundle: Path) -> BiasSession:
    return BiasSession(bundle)


@pytest.fixture(scope="module")
def expected(tiny_base: BaseModel, deltas: dict[str, TaskDelta]) -> Reference:
    return Reference(tiny_base, deltas)


# --- one binary, any task


def test_one_binary_answers_each_of_five_tasks_as_pytorch_does(session: BiasSession, expected: Reference) -> None:
    answers = {task: session.run(task, **BATCH) for task in TASKS}
    for task, found in answers.items():
        np.testing.assert_allclose(found, expected(task, BATCH), atol=HALF, rtol=0)
    # Their rows are all that makes them differ.
    pairs = [answers["two_way"], answers["cls"], answers["mean"]]
    assert all(np.abs(one - other).max() > 10 * HALF for one in pairs for other in pairs if one is not other)


def test_it_says_that_it_is_an_emulator(session: BiasSession) -> None:
    assert session.emulated
    assert session.device == "Qualcomm's emulator of the HTP (no NPU)"


def test_switching_and_loading_tasks_opens_and_compiles_nothing(
    bundle: Path, session: BiasSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    class Counted(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            opened.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    session.load_task(bundle / "tasks" / "cls.bias", name="again")
    np.testing.assert_array_equal(session.run("again", **BATCH), session.run("cls", **BATCH))
    session.unload_task("again")
    assert not opened
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_a_row_of_another_task_changes_the_answer_as_the_reference_says(
    bundle: Path, session: BiasSession, expected: Reference
) -> None:
    session.load_task(bundle / "tasks" / "mean.bias", name="cls_fed_with_mean")
    found = session.run("cls_fed_with_mean", **BATCH)
    session.unload_task("cls_fed_with_mean")
    np.testing.assert_allclose(found, expected("mean", BATCH), atol=HALF, rtol=0)


def test_a_row_of_another_base_is_refused_before_it_reaches_the_engine(
    session: BiasSession, tiny_bundle: Path, make_delta: MakeDelta, tmp_path: Path
) -> None:
    from bitfit_export.compiler import CompileOptions
    from tests.families import tiny_base

    base = tiny_base("bert", 5)
    traces.compile_bundle(base, {"other": make_delta(base, "other")}, tmp_path, CompileOptions())
    tasks = session.tasks
    with pytest.raises(RowError, match="layout"):
        session.load_task(tmp_path / "tasks" / "other.bias")
    assert session.tasks == tasks


def test_commands_print_answers_alone_and_say_what_runs(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from bitfit_export.cli import main

    assert main(["run", str(bundle), "--task", "two_way", "--text", "a warm film"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["task"] == "two_way"
    assert "running on Qualcomm's emulator of the HTP (no NPU)" in err
    assert main(["inspect", str(bundle), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["nodes on the CPU"] == 0
    assert found["nodes on the NPU"] > 80
    assert found["binary size"] == (bundle / BINARY).stat().st_size
    assert (found["HTP arch"], found["chip"]) == (73, "sm8550 (soc_model 43)")


# --- what must not be loaded


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    if read_manifest(bundle).layout_kind == "named":
        pytest.skip("both layouts are loaded alike")
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(("change", "message"), WRONG_BINARIES)
def test_a_wrong_binary_is_one_clear_error(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message) as caught:
        BiasSession(copy)
    assert "\n" not in caught.value.message


def test_a_binary_for_another_arch_than_the_device_has_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"compiled for the HTP 73 of sm8550, this device has 75") as caught:
        BiasSession(bundle, engine_options={"htp_arch": 75})
    assert caught.value.hint == "export the bundle with --htp-arch 75"
    with pytest.raises(UsageError, match="the option htp_arch of the engine qnn is '74', expected one of 69"):
        BiasSession(bundle, engine_options={"htp_arch": 74})


def test_other_engines_say_that_they_do_not_run_it(bundle: Path, tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="for the target 'qnn', which the engine does not run"):
        BiasSession(bundle, engine="onnxruntime")
    with pytest.raises(BundleError, match="qnn runs programs that were compiled for Qualcomm's HTP"):
        BiasSession(tiny_bundle, engine="qnn")
