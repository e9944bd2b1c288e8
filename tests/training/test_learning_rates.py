"""The papers' learning rates and optimiser are the defaults; the schedule is one that trains on deeper bases too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.training import TrainingSettings, train_task
from bitfit_export.training.learning_rates import default_learning_rate
from bitfit_export.training.settings import LEARNING_RATES
from tests.training.test_trainer import StopAfter, make_data

pytestmark = pytest.mark.slow

DATA = make_data()
QUICK = TrainingSettings(pooling="mean", learning_rate=1e-3, epochs=1, max_length=16)
#: Table 6 of the BitFit paper, as it stands there.
TABLE_6 = """
QNLI 1e-4 7e-4
SST2 4e-4 4e-4
MNLI 1e-4 1e-4
COLA 7e-4 4e-4
MRPC 7e-4 1e-3
STSB 1e-4 1e-4
RTE 1e-3 4e-4
QQP 4e-4 4e-4
"""


@pytest.mark.parametrize("line", TABLE_6.strip().splitlines())
def test_learning_rates_of_the_papers_table(line: str) -> None:
    task, base, large = line.split()
    for hidden, rate in ((768, float(base)), (1024, float(large))):
        assert default_learning_rate("bitfit", task.lower(), "bert", hidden) == rate
        assert rate in LEARNING_RATES
    assert default_learning_rate("bitfit", task.lower(), "roberta", 768) == 1e-4
    assert default_learning_rate("full", task.lower(), "roberta", 768) == 1e-5


@pytest.mark.parametrize(
    ("method", "rate"),
    [("bitfit", 4e-4), ("rand-uniform", 4e-4), ("frozen", 1e-3), ("full", 2e-5), ("adapters", 3e-4)],
)
def test_another_model_has_a_rate_that_suits_the_method(method: str, rate: float) -> None:
    assert default_learning_rate(method, "rte", "bert", 384) == rate
    assert default_learning_rate(method, "mine", "distilbert", 768) == rate


def test_a_training_records_the_rate_that_it_took(tiny_base: BaseModel, tmp_path: Path) -> None:
    result = train_task(tiny_base, DATA, dataclasses.replace(QUICK, learning_rate=None), tmp_path)
    assert result.delta is not None
    assert result.record["learning_rate"] == result.delta.config.training["learning_rate"] == 4e-4


def test_a_training_records_the_revision_of_data_from_the_hub(tiny_base: BaseModel, tmp_path: Path) -> None:
    of_hub = train_task(tiny_base, dataclasses.replace(DATA, revision="c" * 40), QUICK, tmp_path / "hub")
    assert of_hub.delta is not None
    assert of_hub.record["data_revision"] == of_hub.delta.config.training["data_revision"] == "c" * 40
    assert "data_revision" not in train_task(tiny_base, DATA, QUICK, tmp_path / "files").record


def test_the_default_schedule_rises_and_falls() -> None:
    assert (TrainingSettings().schedule, TrainingSettings().warmup) == ("linear", 0.1)


def test_the_optimiser_is_the_papers(tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen: list[dict[str, Any]] = []
    original = torch.optim.AdamW.__init__

    def note(self: torch.optim.AdamW, *words: Any, **options: Any) -> None:
        original(self, *words, **options)
        seen.extend(self.param_groups)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", note)
    train_task(tiny_base, DATA, QUICK, tmp_path)
    (group,) = seen
    assert (group["lr"], group["weight_decay"], group["eps"], group["betas"]) == (1e-3, 0.0, 1e-6, (0.9, 0.999))
    assert QUICK.batch_size == 16


def test_it_ends_when_the_metric_has_not_risen_for_a_while(tiny_base: BaseModel, tmp_path: Path) -> None:
    """So small a rate changes no prediction, so the first epoch stays the best one. Killed after the last checkpoint
    or not, the run knows that it is over."""
    settings = dataclasses.replace(QUICK, learning_rate=1e-9, epochs=9, patience=2)
    result = train_task(tiny_base, DATA, settings, tmp_path / "whole")
    assert (len(result.history), result.best_epoch) == (3, 1)
    again = train_task(tiny_base, DATA, settings, tmp_path / "whole")
    assert again.history == result.history
    with pytest.raises(KeyboardInterrupt):
        train_task(tiny_base, DATA, settings, tmp_path / "killed", callbacks=[StopAfter(13)])
    assert train_task(tiny_base, DATA, settings, tmp_path / "killed").history == result.history
