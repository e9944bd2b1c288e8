"""The benchmark of the C++ runtime runs on a model of no size, and its table has what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests import traces
from tests.cpp.conftest import ROOT

pytest.importorskip("torch", reason="needs bitfit-export[export]")


@pytest.mark.slow
def test_the_cpp_runtime_is_measured_beside_python(
    programs: Path,
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr("models.compile_bundle", traces.compile_bundle)
    words = ["--model", "tiny", "--rounds", "1", "--shapes", "1x4,2x4", "--tasks", "1,9", "--results", str(tmp_path)]
    importlib.import_module("cpp_runtime").main([*words, "--scratch", str(tmp_path / "scratch")])
    measured = json.loads((tmp_path / "cpp-tiny.json").read_text())["measured"]["fp32"]
    assert all(each[side] > 0 for each in measured["figures"].values() for side in ("C++", "Python"))
    expected = {"2x4, mixed tasks (ms)", "9 tasks: 1x1, another task each time (us)", "9 tasks: loading one (ms)"}
    assert expected <= set(measured["figures"])
    assert measured["only C++"]["allocations of all later runs"] == 0
    capsys.readouterr()
    importlib.import_module("report").main(["--results", str(tmp_path), "--markdown"])
    shown = capsys.readouterr().out
    assert "### tiny, fp32: the C++ runtime and the Python session, one thread" in shown
    assert "| 2x4, mixed tasks (ms) |" in shown
