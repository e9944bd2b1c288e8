"""Checkpoint + data -> task delta. Needs the `[train]` extra."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import DataError, MissingExtraError
from bitfit_export.training.data import TaskData, load_task_data
from bitfit_export.training.learning_rates import with_learning_rate
from bitfit_export.training.settings import (
    DELTA_METHODS,
    ENGINES,
    HEAD_ACTIVATIONS,
    HEAD_POOLINGS,
    METHODS,
    SCHEDULES,
    TrainingSettings,
)
from bitfit_export.training.stored_names import to_stored
from bitfit_export.training.tasks import PROBLEM_TYPES

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from bitfit_export.reference.task_model import TaskModel
    from bitfit_export.training.trainer import TrainedModel

__all__ = [
    "DELTA_METHODS",
    "ENGINES",
    "HEAD_ACTIVATIONS",
    "HEAD_POOLINGS",
    "METHODS",
    "PROBLEM_TYPES",
    "SCHEDULES",
    "TaskData",
    "TrainingResult",
    "TrainingSettings",
    "evaluate",
    "load_task_data",
    "train_task",
]


@dataclass(frozen=True)
class TrainingResult:
    """The result of training a task.

    Attributes:
        delta: the task delta; None for a method that changes more than biases and head.
        metrics: on the whole validation set in float32; for a delta, of the delta merged into the base.
        best_epoch: from 1.
        history: validation metrics after each epoch.
        trained_parameters: how many values were trained in the base, and in the head. Adapters count as the base's; of
            diff pruning those values count that it may change in the end.
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

    Checkpoints go to `work_folder`; where a run with the same settings was interrupted there, it resumes.
    """
    settings = with_learning_rate(settings, data.spec.name, base)
    try:
        from bitfit_export.training import trainer
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "train") from error
    from bitfit_export.reference.task_model import merged_model

    trained = trainer.train_model(base, data, settings, work_folder, callbacks)
    head = {
        name: value.detach().numpy().copy()
        for name, value in trained.model.state_dict().items()
        if not name.startswith("base.")
    }
    record = _record(base, settings, data, trained)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=data.spec.name,
        problem_type=data.spec.problem_type,
        labels=data.spec.labels,
        bias_terms=trained.bias_terms,
        method=settings.method,
        pooling=trained.model.pooling,
        max_length=settings.max_length,
        training=record,
        activation=trained.model.activation,
    )
    delta = None
    model = trained.model
    if settings.method in DELTA_METHODS:
        delta = TaskDelta(config, trainer.bias_differences(base, trained), head)
        model = merged_model(base, delta)
    scores = evaluate(model, base, data, settings.max_length, stride=settings.stride)
    if delta is not None:
        delta = replace(delta, config=replace(config, metrics=scores))
    return TrainingResult(
        delta=delta,
        metrics=scores,
        best_epoch=trained.best_epoch,
        history=trained.history,
        trained_parameters=(trained.trained, sum(value.size for value in head.values())),
        record=record,
    )


def evaluate(
    model: TaskModel, base: BaseModel, data: TaskData, max_length: int, *, stride: int | None = None
) -> dict[str, float]:
    """The task's metrics on the whole validation set, computed by PyTorch in float32.

    Those on further validation sets follow, under `<set>_<metric>`.

    Args:
        max_length: tokens to which texts are truncated; of a span task, of a window.
        stride: see `TrainingSettings`.
    """
    from bitfit_export.reference.task_model import predict_features
    from bitfit_export.training.features import encode_examples

    scores: dict[str, float] = {}
    for name, examples in {"": data.validation, **data.more_validation}.items():
        if not examples.labels:
            raise DataError("the validation set is empty")
        encoded = encode_examples(data.spec, examples, base.tokenizer, max_length=max_length, stride=stride)
        logits = predict_features(model, base.tokenizer, encoded.features, sizes=encoded.sizes)
        prefix = f"{name}_" if name else ""
        scores |= {prefix + metric: value for metric, value in encoded.score(logits).items()}
    return scores


#: Settings of one method alone.
_OF_METHOD = {"adapter_size": "adapters", "sparsity": "diff-pruning", "l0_penalty": "diff-pruning"}


def _record(base: BaseModel, settings: TrainingSettings, data: TaskData, trained: TrainedModel) -> dict[str, Any]:
    """Returns what a reader needs to train the same delta again."""
    libraries = ("bitfit-export", "torch", "transformers", "datasets", "numpy")
    known = {**asdict(settings), "pooling": trained.model.pooling, "activation": trained.model.activation}
    own = {name: value for name, value in known.items() if _OF_METHOD.get(name, settings.method) == settings.method}
    return {
        **{name: value for name, value in own.items() if name != "method" and value is not None},
        **({"added_biases": list(base.added_biases)} if base.added_biases else {}),
        "best_epoch": trained.best_epoch,
        "data_digest": data.digest,
        **({"data_revision": data.revision} if data.revision else {}),
        **to_stored({"train_examples": len(data.train), "validation_examples": len(data.validation)}),
        "versions": {name: version(name) for name in libraries} | {"python": platform.python_version()},
    }
