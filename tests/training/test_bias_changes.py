"""What the BitFit paper finds in its figure 1: key biases do not change, b_q and b_m2 change most."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.base_model.bias_terms import PAPER_NAMES, select_bias_terms
from bitfit_export.base_model.loading import load_base_model
from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import SHIPPED
from bitfit_export.training import TrainingSettings, load_task_data, train_task
from bitfit_export.training.data import Examples
from tests.conftest import real_data


def mean_changes(delta: TaskDelta) -> dict[str, float]:
    """1/dim * |b_0 - b_F|_1 of each of the paper's terms, the mean over layers."""
    return {
        term: float(np.mean([np.abs(delta.biases[name]).mean() for name in select_bias_terms(delta.biases, [term])]))
        for term in PAPER_NAMES
    }


@pytest.mark.parametrize("task", ["cola", "mrpc", "rte", "sst2", "stsb"])
def test_in_every_shipped_glue_task_the_query_and_the_middle_biases_change_most(task: str) -> None:
    """Their key biases do change: steps in bfloat16 round so coarsely that Adam takes the rounding for a gradient."""
    changes = mean_changes(TaskDelta.load(SHIPPED / "minilm-l6" / task))
    assert sorted(changes, key=changes.__getitem__)[-2:] == ["b_m2", "b_q"]


@pytest.mark.parametrize("task", ["ewt", "squad"])
def test_in_the_shipped_tasks_that_were_trained_in_float32_key_biases_do_not_change(task: str) -> None:
    changes = mean_changes(TaskDelta.load(SHIPPED / "minilm-l6" / task))
    assert changes.pop("b_k") < 0.02 * min(changes.values())
    assert max(changes, key=changes.__getitem__) in ("b_q", "b_m2")


@pytest.mark.slow
@pytest.mark.data
def test_in_a_real_training_key_biases_do_not_change(tmp_path: Path) -> None:
    """A key bias adds the same to all scores of a softmax row, so all of its gradient is rounding.

    At the paper's rate, which is constant: with one that falls, so short a training hardly moves any bias.
    """
    data = load_task_data("rte", data=real_data("rte"), train_examples=96)
    few = Examples(data.validation.texts[:16], data.validation.labels[:16])
    papers = {"schedule": "constant", "warmup": 0.0}
    settings = TrainingSettings(pooling="mean", learning_rate=1e-3, epochs=1, max_length=64, **papers)
    result = train_task(load_base_model("minilm-l6"), dataclasses.replace(data, validation=few), settings, tmp_path)
    assert result.delta is not None
    changes = mean_changes(result.delta)
    key = changes.pop("b_k")
    assert key < 0.01 * min(changes.values())
    assert set(sorted(changes, key=changes.__getitem__)[-2:]) == {"b_q", "b_m2"}
