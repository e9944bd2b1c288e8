"""The interface of a training method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.settings import TrainingSettings

__all__ = ["Method", "bake", "put_over", "readable_parameters"]


class Method(ABC):
    """One way to adapt a base model to a task. The head is trained by every method.

    The trainer calls `prepare` once, `begin_epoch` and `penalty` while it trains, and `finish` at the end. What is
    trained is what requires a gradient after `prepare`, no more and no less: checkpoints hold that, and the trainer
    checks that nothing else has changed. So a method that changes some entries of a matrix makes parameters of those
    entries (`put_over`) and leaves the matrix itself frozen.
    """

    #: Whether it trains about as many values as the base model has.
    dense: ClassVar[bool] = False

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    @abstractmethod
    def prepare(self, model: TaskModel) -> None:
        """Freeze the base model but for what the method trains, and add what the method needs.

        Raises:
            BaseModelError: the base model has nothing that the method could train.
        """

    def parameter_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        """Returns the parameter groups of the optimiser; a group may have a learning rate `lr` of its own."""
        return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]

    def penalty(self) -> torch.Tensor | None:
        """Returns what is added to the loss of a training step."""
        return None

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - most methods do nothing then
        """Called at the start of each epoch, from 1; of a run that resumes only for the epochs that are left."""

    @property
    def first_choice(self) -> int:
        """The first epoch, from 1, whose parameters may be the result."""
        return 1

    def finish(self, model: TaskModel) -> int:
        """Bring the base model to its final form; return how many of its values were trained."""
        return sum(parameter.numel() for parameter in model.base.parameters() if parameter.requires_grad)


def readable_parameters(model: TaskModel) -> dict[str, nn.Parameter]:
    """The base's parameters that have an influence on the head: a pooler that it does not read has none."""
    unread = () if model.pooling == "pooler" else ("pooler.",)
    return {name: value for name, value in model.base.named_parameters() if not name.startswith(unread)}


def put_over(base: nn.Module, name: str, parametrization: nn.Module) -> None:
    """Let `parametrization` compute the parameter of this name from its frozen values, whenever it is read."""
    owner, _, leaf = name.rpartition(".")
    base.get_parameter(name).requires_grad_(False)
    parametrize.register_parametrization(base.get_submodule(owner), leaf, parametrization, unsafe=True)


def bake(base: nn.Module, name: str) -> None:
    """Undo `put_over`; the parameter keeps the values that were computed."""
    owner, _, leaf = name.rpartition(".")
    parametrize.remove_parametrizations(base.get_submodule(owner), leaf, leave_parametrized=True)
