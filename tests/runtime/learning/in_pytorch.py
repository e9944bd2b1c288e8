"""What learning a row is compared with: the task's model in PyTorch, whose biases and head PyTorch's AdamW changes."""

from __future__ import annotations

from typing import Any

import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.reference.task_model import merged_model
from bitfit_export.runtime.learning import LearningSettings

__all__ = ["PyTorchLearner"]


class PyTorchLearner:
    """Takes the steps that the settings name, from the values of a delta.

    Attributes:
        model: the task's, without dropout.
    """

    def __init__(self, base: BaseModel, delta: TaskDelta, settings: LearningSettings) -> None:
        self.model: Any = merged_model(base, delta)
        self._settings = settings
        self._learnt = [self.model.base.get_parameter(name) for name in base.biases]
        self._learnt += [value for name, value in self.model.named_parameters() if not name.startswith("base.")]
        for parameter in self._learnt:
            parameter.requires_grad_(True)
        self._optimiser = torch.optim.AdamW(
            self._learnt, lr=settings.learning_rate, eps=settings.epsilon, weight_decay=settings.weight_decay
        )

    def step(self, loss: torch.Tensor, rate: float | None = None) -> float:
        """Takes a step by the gradient of a loss; returns the loss.

        Args:
            rate: by default the learning rate of the settings.
        """
        loss.backward()  # type: ignore[no-untyped-call]
        if self._settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._learnt, self._settings.clip)
        if rate is not None:
            self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        return float(loss.detach())
