"""Checkpoint + data -> task delta. Needs the `[train]` extra."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_models import BaseModel
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import DataError, MissingExtraError
from bitfit_export.training.data import TaskData, load_task_data
from bitfit_export.training.settings import METHODS, SCHEDULES, TrainingSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = [
    "METHODS",
    "SCHEDULES",
    "TaskData",
    "TrainingResult",
    "TrainingSettings",
    "load_task_data",
    "train_task",
]


@dataclass(frozen=True)
class TrainingResult:
    """What training a task gave.

    Attributes:
        delta: the task delta; None for `--method full`, which changes more than biases and head.
        metrics: on the whole validation set in float32; for a delta, of the delta merged into the base.
        best_epoch: from 1.
        history: validation metrics after each epoch.
        trained_parameters: how many values were trained in the base, and in the head.
    """

    delta: TaskDelta | None
    metrics: dict[str, float]
    best_epoch: int
    history: list[dict[str, float]]
    trained_parameters: tuple[int, int]
    record: dict[str, Any]


def train_task(
    base: BaseModel,
    data: TaskData,
    settings: TrainingSettings,
    work_folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train one task on a frozen base model.

    Checkpoints go to `work_folder`; where a run with the same settings was interrupted there, it goes on.
    """
    try:
        from bitfit_export.training import trainer
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "train") from error
    from bitfit_export.task_model import merged_model

    trained = trainer.train_model(base, data, settings, work_folder, callbacks)
    head = {
        name: value.detach().numpy().copy()
        for name, value in trained.model.state_dict().items()
        if not name.startswith("base.")
    }
    sizes = dict(trained.model.base.named_parameters())
    record = _record(settings, data, trained.best_epoch)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=data.spec.name,
        problem_type=data.spec.problem_type,
        labels=data.spec.labels,
        bias_terms=trained.trained,
        method=settings.method,
        pooling=settings.pooling,
        max_length=settings.max_length,
        training=record,
    )
    delta = None
    model = trained.model
    if settings.method != "full":
        delta = TaskDelta(config, trainer.bias_differences(base, trained), head)
        model = merged_model(base, delta)
    scores = evaluate(model, base, data, settings.max_length)
    if delta is not None:
        delta = replace(delta, config=replace(config, metrics=scores))
    return TrainingResult(
        delta=delta,
        metrics=scores,
        best_epoch=trained.best_epoch,
        history=trained.history,
        trained_parameters=(sum(sizes[name].numel() for name in trained.trained), sum(v.size for v in head.values())),
        record=record,
    )


def evaluate(model: Any, base: BaseModel, data: TaskData, max_length: int) -> dict[str, float]:
    """The task's metrics on the whole validation set, computed by PyTorch in float32."""
    from bitfit_export.task_model import predict_logits
    from bitfit_export.training import metrics
    from bitfit_export.training.trainer import decide

    if not data.validation.labels:
        raise DataError("the validation set is empty")
    logits = predict_logits(model, base.tokenizer, data.validation.texts, max_length=max_length)
    predictions = decide(logits, data.spec.problem_type)
    return metrics.compute(data.spec.metrics, data.spec.problem_type, predictions, data.validation.labels)


def _record(settings: TrainingSettings, data: TaskData, best_epoch: int) -> dict[str, Any]:
    """What a reader needs to train the same delta again."""
    libraries = ("bitfit-export", "torch", "transformers", "datasets", "numpy")
    return {
        **{name: value for name, value in asdict(settings).items() if name != "method"},
        "best_epoch": best_epoch,
        "data_digest": data.digest,
        "train_rows": len(data.train.labels),
        "validation_rows": len(data.validation.labels),
        "versions": {name: version(name) for name in libraries} | {"python": platform.python_version()},
    }
