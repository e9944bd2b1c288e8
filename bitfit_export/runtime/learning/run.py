"""One run of learning: everything that stays, and the state that changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.interface import WEIGHTS_FILE
from bitfit_export.errors import UsageError
from bitfit_export.runtime.learning.adamw import AdamW, clipped
from bitfit_export.runtime.learning.checkpoint import LearningState, load_state, save_state
from bitfit_export.runtime.learning.examples import batches_of
from bitfit_export.runtime.learning.items import LearningItems
from bitfit_export.runtime.learning.parameters import RowParameters
from bitfit_export.runtime.learning.plan import Epoch, LearningPlan, peak_memory
from bitfit_export.runtime.learning.settings import LearningSettings
from bitfit_export.runtime.learning.train_step import TrainStep
from bitfit_export.runtime.predict.batches import BATCH_SIZE, BATCH_TOKENS, plan_batches
from bitfit_export.runtime.session import SessionParts
from bitfit_export.runtime.tasks.task_store import Feeds

__all__ = ["LearningRun"]

Float32Array: TypeAlias = NDArray[np.float32]


class LearningRun:
    """Learns the values of one row.

    Args:
        step: the program, of the bundle of `parts`.
        parameters: the row to start from.
        validation: held-out items, which choose the epoch.
        checkpoint: a file that is written on the way. Where it is there, the run resumes.
        name: a digest of all that the run's result depends on.

    Attributes:
        state: where it is.
    """

    def __init__(
        self,
        parts: SessionParts,
        step: TrainStep,
        parameters: RowParameters,
        problem_type: str,
        train: LearningItems,
        validation: LearningItems,
        settings: LearningSettings,
        checkpoint: Path | None,
        name: str,
    ) -> None:
        self._parts, self._step, self._problem_type = parts, step, problem_type
        self.parameters, self._settings = parameters, settings
        self._train, self._validation = train, validation
        self._checkpoint, self._name = checkpoint, name
        self._steps_per_epoch = -(-len(train.tokens) // settings.batch_size)
        self._steps = settings.epochs * self._steps_per_epoch
        size = parameters.values.size
        self._optimiser = AdamW(size, epsilon=settings.epsilon, weight_decay=settings.weight_decay)
        self.state = self._resumed(size)

    @property
    def best_epoch(self) -> int:
        """The first epoch of the best first score, from 1."""
        scores = [next(iter(each.values())) for each in self.state.history]
        return scores.index(max(scores)) + 1

    def plan(self) -> LearningPlan:
        """Returns what the run needs; for this the largest part of a batch and of an evaluation is run once."""
        longest = _longest(self._train)
        items = min(self._settings.batch_size, len(self._train.tokens))
        items = min(self._settings.part_size or items, items)
        self._add_part([longest] * items, np.ones(items, np.float32), np.zeros_like(self.parameters.values))
        held_out = _longest(self._validation)
        fitting = max(1, BATCH_TOKENS // len(self._validation.tokens[held_out].ids))
        self._logits([held_out] * min(fitting, BATCH_SIZE, len(self._validation.tokens)))
        return LearningPlan(
            values=self.parameters.values.size,
            steps=self._steps,
            part_items=items,
            part_tokens=len(self._train.tokens[longest].ids),
            peak_bytes=peak_memory(WEIGHTS_FILE),
        )

    def finish(
        self, on_step: Callable[[int, int, float], None] | None, on_epoch: Callable[[Epoch], None] | None
    ) -> None:
        """Do the steps that are left."""
        lengths = [len(each.ids) for each in self._train.tokens]
        while self.state.step < self._steps and not self._is_enough():
            epoch, begun = divmod(self.state.step, self._steps_per_epoch)
            random = np.random.default_rng([self._settings.seed, epoch])
            batches = batches_of(lengths, self._settings.batch_size, random)
            for batch in batches[begun:]:
                loss = self._learn(batch)
                if on_step is not None:
                    on_step(self.state.step, self._steps, loss)
                if self.state.step % self._settings.checkpoint_steps == 0 and batch is not batches[-1]:
                    self._save()
            self._end_epoch(on_epoch)
            self._save()

    def _learn(self, batch: Sequence[int]) -> float:
        """One step of the optimiser; returns the loss before it."""
        settings, state = self._settings, self.state
        # A batch of texts without a labelled word has nothing to divide by, and a loss of 0.
        weights = self._train.weights[batch] / (self._train.shares[batch].sum() or 1)
        size = settings.part_size or len(batch)
        loss, gradient = 0.0, np.zeros_like(state.values)
        for start in range(0, len(batch), size):
            chosen = slice(start, start + size)
            loss += self._add_part(batch[chosen], weights[chosen].astype(np.float32), gradient)
        if not math.isfinite(loss) or not np.isfinite(gradient).all():
            raise UsageError(
                f"the loss of step {state.step + 1} is {loss}, expected a finite number and finite gradients",
                hint="lower the learning rate",
            )
        rate = settings.rate_at(state.step, self._steps)
        self._optimiser.step(state.values, clipped(gradient, settings.clip), rate)
        state.step += 1
        state.loss += loss
        return loss

    def _add_part(self, part: Sequence[int], weights: Float32Array, gradient: Float32Array) -> float:
        """Add the gradient of these items; returns their part of the loss."""
        text = self._parts.predictor.pad([self._train.tokens[place] for place in part])
        targets = self._train.targets(part)
        loss, own = self._step.run(self.parameters, text, targets, weights, self._problem_type)
        gradient += own
        return loss

    def _end_epoch(self, on_epoch: Callable[[Epoch], None] | None) -> None:
        state = self.state
        state.history.append(self._evaluate() | {"loss": state.loss / self._steps_per_epoch})
        state.loss = 0.0
        is_best = self.best_epoch == len(state.history)
        if is_best:
            state.best_values = state.values.copy()
        if on_epoch is not None:
            on_epoch(Epoch(len(state.history), dict(state.history[-1]), is_best))

    def _evaluate(self) -> dict[str, float]:
        """The scores on the held-out items, by the program `infer`."""
        tokens = self._validation.tokens
        logits: dict[int, Float32Array] = {}
        for places in plan_batches([len(each.ids) for each in tokens], [""] * len(tokens)):
            logits |= zip(places, self._logits(places), strict=True)
        scores = self._validation.score([logits[place] for place in range(len(tokens))])
        # What chooses the epoch comes first.
        metric = self._settings.metric or next(iter(scores))
        return {metric: scores[metric], **scores}

    def _logits(self, places: Sequence[int]) -> Float32Array:
        text = self._parts.predictor.pad([self._validation.tokens[place] for place in places])
        (logits,) = self._parts.model.run(text, Feeds({}, self.parameters.feeds), [self._validation.output])
        return logits

    def _is_enough(self) -> bool:
        patience, done = self._settings.patience, len(self.state.history)
        return patience is not None and done > 0 and done - self.best_epoch >= patience

    def _resumed(self, size: int) -> LearningState:
        """The state of the checkpoint, or the one at the beginning; its arrays are those that the steps change."""
        values, optimiser = self.parameters.values, self._optimiser
        found = None if self._checkpoint is None else load_state(self._checkpoint, self._name, size)
        if found is None:
            return LearningState(values, optimiser.mean, optimiser.square, values.copy())
        values[:], optimiser.mean[:], optimiser.square[:] = found.values, found.mean, found.square
        optimiser.steps = found.step
        found.values, found.mean, found.square = values, optimiser.mean, optimiser.square
        return found

    def _save(self) -> None:
        if self._checkpoint is not None:
            save_state(self._checkpoint, self._name, self.state)


def _longest(items: LearningItems) -> int:
    return max(range(len(items.tokens)), key=lambda place: len(items.tokens[place].ids))
