"""A task's PyTorch model as it is trained: with a loss, with dropout that is cheap on a CPU, and maybe in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.dropout import SeededDropout

__all__ = ["IGNORED", "FrozenBody", "TrainStep", "TrainableModel", "task_loss"]

#: The label of a token that has none, as torch's cross entropy and transformers know it.
IGNORED = -100


class TrainStep(Protocol):
    """Computes training steps in the place of PyTorch."""

    def loss(self, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns the loss of `task_loss`; its backward pass gives each trained parameter its gradient.

        Args:
            labels: as `task_loss` takes them.
            inputs: those of the base model.
        """


class FrozenBody(Protocol):
    """Computes what the head reads in the place of PyTorch, without gradients."""

    def read(self, pooling: str, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns what `TaskModel.read` returns for a head with this pooling."""


class TrainableModel(TaskModel):
    """A `TaskModel` that returns its loss with the logits.

    Attributes:
        train_step: what computes the loss of a training step, and its gradients; None for PyTorch.
        frozen_body: what reads texts for the head; None for the base in PyTorch.

    Args:
        autocast: do training steps in bfloat16 where that is safe; evaluation is always float32.
        others: as `TaskModel` takes them.
    """

    #: The Trainer may not scale the loss by itself.
    accepts_loss_kwargs = False

    def __init__(self, base: nn.Module, pooling: str, labels: int, *, autocast: bool = False, **others: Any) -> None:
        super().__init__(base, pooling, labels, **others)
        self.autocast = autocast
        self.train_step: TrainStep | None = None
        self.frozen_body: FrozenBody | None = None

    def train(self, mode: bool = True) -> TrainableModel:
        """As every module's `train`; but a body that is frozen whole gets no dropout, which would only add noise."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.base.parameters()):
            self.base.eval()
        return self

    def forward(
        self, *, labels: torch.Tensor | None = None, pooled: torch.Tensor | None = None, **inputs: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Returns `logits` as `TaskModel` does, and with `labels` the `loss`; a `train_step` returns the loss alone.

        Args:
            pooled: what the head reads, where it is known: then there are no inputs.
        """
        if self.train_step is not None and self.training and labels is not None:
            return {"loss": self.train_step.loss(labels, inputs)}
        device = self.classifier.weight.device.type
        cheap_dropout = SeededDropout() if self.training else contextlib.nullcontext()
        with cheap_dropout, torch.autocast(device, torch.bfloat16, enabled=self.autocast and self.training):
            pooled = self.read(inputs) if pooled is None else pooled
        logits = self.score(pooled)
        if labels is None:
            return {"logits": logits}
        return {"loss": task_loss(self.problem_type, logits, labels), "logits": logits}

    def read(self, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """As `TaskModel.read`, by the `frozen_body` where there is one."""
        return super().read(inputs) if self.frozen_body is None else self.frozen_body.read(self.pooling, inputs)


def task_loss(problem_type: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss that transformers' classes have.

    - single_label: cross entropy; labels [batch], ids.
    - multi_label: binary cross entropy; labels [batch, labels], 0 or 1.
    - regression: squared error; labels [batch].
    - token: cross entropy over the tokens whose label is not `IGNORED`; labels [batch, sequence].
    - span: the mean of start's and end's cross entropy over the sequence; labels [batch, 2], positions.
    """
    if problem_type == "regression":
        return nn.functional.mse_loss(logits.squeeze(-1), labels.float())
    if problem_type == "multi_label":
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    if problem_type == "token":
        # Not the mean of cross_entropy itself, which is NaN for a batch without a labelled token.
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)
    if problem_type == "span":
        # [batch, sequence, 2] with labels [batch, 2]: the classes are the positions.
        return nn.functional.cross_entropy(logits, labels)
    return nn.functional.cross_entropy(logits, labels)
