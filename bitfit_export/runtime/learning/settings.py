"""The settings of learning one row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitfit_export.errors import UsageError

__all__ = ["SCHEDULES", "LearningSettings"]

SCHEDULES = ("constant", "linear")


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """How a row is learnt; the defaults are those of `bitfit-train`.

    Attributes:
        learning_rate: the peak, after the warm-up.
        batch_size: examples per step.
        part_size: examples that the program computes at once; the gradients of a batch's parts are added up. By default
            the whole batch.
        schedule: after the warm-up the learning rate stays (`constant`) or falls to 0 (`linear`).
        warmup: the share of all steps in which the learning rate rises from 0, in [0, 1).
        weight_decay, epsilon: of AdamW.
        clip: the largest norm of a gradient; a larger one is scaled down to it. None for any.
        max_length: tokens at which texts are cut.
        seed: of a new head's values, and of the order of the examples.
        patience: the number of epochs without a better score after which learning ends; None for never.
        balance: weigh examples by the inverse frequency of their class.
        metric: the score by which the best epoch is chosen, of those that its problem type has; by default the first of
            them (`metric_names`).
        checkpoint_steps: the number of steps between two checkpoints, where there is a file for them.

    Raises:
        UsageError: a value out of its range.
    """

    learning_rate: float = 4e-4
    epochs: int = 8
    batch_size: int = 16
    part_size: int | None = None
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    epsilon: float = 1e-6
    clip: float | None = 1.0
    max_length: int = 128
    seed: int = 0
    patience: int | None = None
    balance: bool = False
    metric: str | None = None
    checkpoint_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "part_size", "max_length", "patience", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)} is {value}, expected 1 or more")
        for name in ("learning_rate", "epsilon", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{_flag(name)} is {value}, expected a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay is {self.weight_decay}, expected 0 or more")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"--warmup is {self.warmup}, expected at least 0 and below 1")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}, expected 0 or more")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"--schedule is {self.schedule!r}, expected {' or '.join(SCHEDULES)}")

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate of a step, from 0, of this many; as transformers' schedules have it."""
        warmup = round(self.warmup * steps)
        if step < warmup:
            return self.learning_rate * step / warmup
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * max(0.0, (steps - step) / max(1, steps - warmup))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
