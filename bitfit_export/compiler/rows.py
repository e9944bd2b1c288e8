"""A task delta becomes a bias row: b_0 + (b_F - b_0) in layout order, then the head."""

from __future__ import annotations

import numpy as np

from bitfit_export.base_models import BaseModel
from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.compiler.head import HEAD_POOLING
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DeltaError

__all__ = ["pack_row"]


def pack_row(base: BaseModel, delta: TaskDelta, layout: Layout, *, task: str, task_version: int = 1) -> BiasRow:
    """The bias row of one task, float32.

    Raises:
        BaseMismatchError: the delta was trained on another base.
        DeltaError: a pooling or a head that the frozen model can't run.
    """
    delta.check_base(base.source.name, base.digest, base.biases)
    merged = delta.merge(base.biases)
    values = np.concatenate([merged[entry.name].reshape(-1) for entry in layout.biases]).astype(np.float32)
    return BiasRow(
        task=task,
        problem_type=delta.config.problem_type,
        labels=delta.config.output_size,
        task_version=task_version,
        layout_digest=layout.digest,
        biases=values,
        head=tuple(_head_tensor(delta, layout, entry.name) for entry in layout.head),
    )


def _head_tensor(delta: TaskDelta, layout: Layout, name: str) -> np.ndarray:
    if name != HEAD_POOLING:
        return np.ascontiguousarray(delta.head[name.removeprefix("head.")], np.float32)
    if delta.config.pooling not in layout.poolings:
        raise DeltaError(
            f"the task {delta.config.task} reads the base's {delta.config.pooling}, the frozen model has "
            f"{', '.join(layout.poolings)}",
            hint="train the task with another --pooling",
        )
    return np.array([float(pooling == delta.config.pooling) for pooling in layout.poolings], np.float32)
