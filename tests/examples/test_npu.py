"""`examples/npu`: both scripts run as their README says, and give the answers that a session gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bitfit_export.compiler import CompileOptions
from bitfit_export.runtime import BiasSession
from tests.traces import compile_bundle

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

EXAMPLES = Path(__file__).parents[2] / "examples" / "npu"
TEXT = "A warm, funny film."


def run(script: str, *words: str) -> list[str]:
    done = subprocess.run([sys.executable, EXAMPLES / script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_iree_runs_every_task_from_one_file_and_compiles_for_another_processor(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    pytest.importorskip("iree.compiler", reason="needs iree-base-compiler, which bitfit-export[dev] brings")
    pytest.importorskip("iree.runtime", reason="needs iree-base-runtime, which bitfit-export[dev] brings")
    bundle, module = tmp_path / "bundle", tmp_path / "model.vmfb"
    bundle.mkdir()
    options = CompileOptions(target="portable", layout="packed", static_shape=(1, 8))
    compile_bundle(tiny_base, tiny_deltas, bundle, options)
    fixed, *lines = run("iree_switch.py", str(bundle), TEXT, "--output", str(module))
    assert fixed == f"fixed: {module}, {module.stat().st_size:,} bytes"
    session = BiasSession(bundle)
    ids = session.encode(TEXT)
    for line, task in zip(lines, session.tasks, strict=True):
        name, *logits = line.split()
        assert name == task
        np.testing.assert_allclose([float(each) for each in logits], session.run(task, **ids)[0], atol=1e-4)


def test_one_binary_runs_every_task(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="needs bitfit-export[qnn]: Linux x86-64, glibc 2.35")
    options = CompileOptions(target="qnn", precision="fp16", layout="packed", static_shape=(1, 8))
    compile_bundle(tiny_base, tiny_deltas, tmp_path, options)
    lines = run("switch.py", str(tmp_path), TEXT)
    assert lines[0] == "runs on: Qualcomm's emulator of the HTP (no NPU)"
    assert lines[1].startswith("fixed: model_qnn.bin, ")
    assert [line.split()[0] for line in lines[5:]] == sorted(tiny_deltas)
