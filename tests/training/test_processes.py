"""One training in several processes: torchrun on this machine's CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import UsageError
from bitfit_export.training.processes import is_first_process, items_per_process
from tests.experiments.conftest import write_task


def launch(folder: Path, model: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`bitfit-train` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "bitfit_export", "train", "--model", model, "--task", "mood", "--data", "mood", "--pooling", "mean"]
    paths = os.pathsep.join(sys.path)
    return subprocess.run(
        [*command, *train, "--learning-rate", "0.01", "--max-length", "16", "--threads", "1", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_train_one_delta(tiny_base: BaseModel, tmp_path: Path) -> None:
    write_task(tmp_path / "mood", train=20, dev=5)
    done = launch(tmp_path, tiny_base.source.location, "--epochs", "6")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "deltas/tiny-bert/mood\n"
    assert done.stderr.count("epoch 6: ") == 1
    assert "18/18" in done.stderr  # 40 examples are 3 steps of 16, whatever the number of processes
    assert os.listdir(tmp_path / "deltas/tiny-bert") == ["mood"]
    delta = TaskDelta.load(tmp_path / "deltas/tiny-bert/mood")
    assert delta.config.training["batch_size"] == 16
    assert delta.config.metrics["accuracy"] == 1.0


@pytest.mark.parametrize(("rank", "first"), [("0", True), ("1", False)])
def test_the_first_process_is_that_of_rank_0(monkeypatch: pytest.MonkeyPatch, rank: str, first: bool) -> None:
    monkeypatch.setenv("RANK", rank)
    assert is_first_process() is first


def test_a_batch_is_shared_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert items_per_process(16) == 16
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert items_per_process(16) == 4
    with pytest.raises(UsageError, match="multiple of the 4 processes"):
        items_per_process(18)
