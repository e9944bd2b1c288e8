"""A task delta becomes a bias row: b_0 + (b_F - b_0), folded as the graph was, in layout order; then the head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import BiasRow, HeadEntry, Layout
from bitfit_export.bundle.interface import HEAD_CHOICE, HEAD_POOLING
from bitfit_export.compiler.passes.fold_biases import FoldPlan
from bitfit_export.compiler.passes.plan_layout import HeadPlan
from bitfit_export.delta import TOKENS, DeltaConfig, TaskDelta
from bitfit_export.errors import DeltaError

__all__ = ["RowPacker", "base_delta"]


@dataclass(frozen=True)
class RowPacker:
    """Makes the rows of one frozen model.

    Attributes:
        dtype: of the rows' values, float32 or float16.
    """

    base: BaseModel
    layout: Layout
    head: HeadPlan
    fold: FoldPlan
    dtype: np.dtype

    def pack(self, delta: TaskDelta, *, task: str, task_version: int = 1) -> BiasRow:
        """The bias row of one task.

        Raises:
            BaseMismatchError: the delta was trained on another base.
            DeltaError: a head that the frozen model can't run.
        """
        delta.check_base(self.base.source.name, self.base.digest, self.base.biases)
        self._check_head(delta)
        folded = self.fold.apply(delta.merge(self.base.biases))
        head = _shift_head(delta, folded.output_shift)
        values = np.concatenate([folded.biases[entry.name].reshape(-1) for entry in self.layout.biases])
        return BiasRow(
            task=task,
            problem_type=delta.config.problem_type,
            labels=delta.config.output_size,
            task_version=task_version,
            layout_digest=self.layout.digest,
            biases=values.astype(self.dtype),
            head=tuple(self._head_tensor(delta, head, entry).astype(self.dtype) for entry in self.layout.head),
        )

    def _head_tensor(self, delta: TaskDelta, head: dict[str, np.ndarray], entry: HeadEntry) -> np.ndarray:
        config = delta.config
        if entry.name == HEAD_POOLING:
            return np.array([pooling == config.pooling for pooling in self.layout.poolings])
        if entry.name == HEAD_CHOICE:
            return np.array([config.activation is None, config.activation is not None])
        tensor = head.get(entry.name.removeprefix("head."))
        # A dimension of 0 says that the task lacks the tensor.
        return np.zeros((0, *entry.resolve(config.output_size)[1:])) if tensor is None else tensor

    def _check_head(self, delta: TaskDelta) -> None:
        config, plan = delta.config, self.head
        what = f"the head of the task {config.task}"
        if config.pooling != TOKENS and config.pooling not in plan.poolings:
            raise DeltaError(
                f"{what} reads the base's {config.pooling}, the frozen model has {', '.join(plan.poolings)}",
                hint="compile the bundle together with this task, or train it with another --pooling",
            )
        if config.pooling == TOKENS and not plan.tokens:
            raise DeltaError(
                f"{what} reads every token, the frozen model has no token_logits",
                hint="compile the bundle together with this task",
            )
        linear_fits = plan.inner == plan.hidden
        if config.activation != plan.activation and not (config.activation is None and linear_fits):
            raise DeltaError(
                f"{what} has activation {config.activation}, the frozen model has {plan.activation}",
                hint="compile the bundle together with this task",
            )


def _shift_head(delta: TaskDelta, shift: np.ndarray | None) -> dict[str, np.ndarray]:
    """The head of a task whose hidden vectors come without the folded bias: the layer that reads them adds W shift.

    The base's own pooler needs none of this: its bias is a bias term, and has taken its part of the shift in.
    """
    head = {name: value.astype(np.float64) for name, value in delta.head.items()}
    if shift is not None and delta.config.pooling != "pooler":
        first = "classifier" if delta.config.activation is None else "dense"
        head[f"{first}.bias"] = head[f"{first}.bias"] + head[f"{first}.weight"] @ shift
    return head


def base_delta(tasks: Iterable[TaskDelta], base: BaseModel) -> TaskDelta:
    """Returns a delta that changes nothing, with a head of zeros that reads what the first sentence task reads.

    New tasks are learnt from its row. Without a sentence task the head is linear and reads the first token.
    """
    like = next((task for task in tasks if task.config.pooling != TOKENS), None)
    hidden = int(base.module.config.hidden_size)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task="base",
        problem_type="regression",
        labels=(),
        bias_terms=tuple(base.biases),
        method="bitfit",
        pooling="cls" if like is None else like.config.pooling,
        max_length=1 if like is None else like.config.max_length,
        activation=None if like is None else like.config.activation,
    )
    layers = {} if like is None else like.head
    width = hidden if like is None else layers["classifier.weight"].shape[1]
    head = {name: np.zeros_like(value) for name, value in layers.items() if not name.startswith("classifier.")}
    head |= {"classifier.weight": np.zeros((1, width), np.float32), "classifier.bias": np.zeros(1, np.float32)}
    return TaskDelta(config, {name: np.zeros_like(value) for name, value in base.biases.items()}, head)
