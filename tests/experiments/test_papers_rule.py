"""The BitFit paper's section 4 on real runs: key biases do not change, b_q and b_m2 change most."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitfit_export.base_models import load_base_model
from bitfit_export.change_plot import mean_absolute_change
from bitfit_export.delta import TaskDelta
from bitfit_export.delta_store import SHIPPED
from bitfit_export.experiments.reproduce.changes import mean_by_term
from bitfit_export.training import TrainingSettings, load_task_data, train_task


@pytest.mark.parametrize("task", ["cola", "mrpc", "rte", "sst2", "stsb"])
def test_query_and_intermediate_biases_change_most(task: str) -> None:
    changes = mean_by_term(mean_absolute_change(TaskDelta.load(SHIPPED / "minilm-l6" / task)))
    assert set(sorted(changes, key=changes.__getitem__)[-2:]) == {"b_q", "b_m2"}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("BITFIT_DATA" not in os.environ, reason="BITFIT_DATA does not name a folder with stsb/")
def test_key_biases_do_not_change(minilm_folder: Path, tmp_path: Path) -> None:
    """In float32. Their gradient is zero but for rounding; AdamW makes whole steps of bfloat16's rounding."""
    base = load_base_model("minilm-l6")
    data = load_task_data("stsb", data=Path(os.environ["BITFIT_DATA"]), train_rows=160, validation_rows=16)
    settings = TrainingSettings(pooling="mean", learning_rate=1e-3, epochs=1, max_length=64)
    delta = train_task(base, data, settings, tmp_path).delta
    assert delta is not None
    changes = mean_by_term(mean_absolute_change(delta))
    keys = changes.pop("b_k")
    assert keys < 0.005 * min(changes.values())
