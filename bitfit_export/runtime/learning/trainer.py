"""BiasTrainer: learns a task's row from examples, with NumPy and an inference engine alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, encode_row, read_row
from bitfit_export.bundle.interface import BASE_ROW_FILE, LOGITS
from bitfit_export.errors import InputError, UsageError, quoted
from bitfit_export.files import write_bytes
from bitfit_export.runtime.learning.adamw import AdamW, clipped
from bitfit_export.runtime.learning.checkpoint import LearningState, load_state, save_state
from bitfit_export.runtime.learning.examples import LEARNABLE, LabelledTexts, batches_of, class_weights, targets_of
from bitfit_export.runtime.learning.parameters import RowParameters, with_new_head
from bitfit_export.runtime.learning.scores import score
from bitfit_export.runtime.learning.settings import LearningSettings
from bitfit_export.runtime.learning.train_step import TrainStep
from bitfit_export.runtime.predict.batches import plan_batches
from bitfit_export.runtime.session import BiasSession
from bitfit_export.runtime.tasks.task_store import Feeds
from bitfit_export.runtime.text.tokenizer import TokenIds

__all__ = ["BiasTrainer", "Epoch", "LearnedRow"]

Float32Array: TypeAlias = NDArray[np.float32]
_ROW_DTYPES = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Epoch:
    """One epoch that is over.

    Attributes:
        number: from 1.
        scores: on the held-out examples, and `loss`, the mean over the epoch's steps.
        is_best: whether no epoch before it had as good a score.
    """

    number: int
    scores: dict[str, float]
    is_best: bool


@dataclass(frozen=True)
class LearnedRow:
    """The row of the best epoch.

    Attributes:
        labels: their names in id order; empty for a regression.
        best_epoch: from 1; the first, where several are equal.
        history: the scores of each epoch.
    """

    row: BiasRow
    labels: tuple[str, ...]
    best_epoch: int
    history: list[dict[str, float]]

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the best epoch."""
        return self.history[self.best_epoch - 1]

    def save(self, path: Path) -> None:
        """Write the row's file, atomically.

        Raises:
            OutputError: it cannot be written.
        """
        write_bytes(path, encode_row(self.row))


class BiasTrainer:
    """Learns rows for the model of a session, which runs its tasks meanwhile.

    Args:
        session: of a bundle that was exported with `--trainable`.

    Raises:
        UsageError: the bundle cannot learn.
        BundleError: its program `train_step` cannot be loaded.
    """

    def __init__(self, session: BiasSession) -> None:
        self._session, self._manifest = session, session.manifest
        model = session._model
        self._folder = model._folder
        self._step = TrainStep(model._folder, self._manifest, model._engine, model._threads, model._options)

    def learn(
        self,
        task: str,
        train: LabelledTexts,
        validation: LabelledTexts,
        *,
        labels: Sequence[str] = (),
        problem_type: str = "single_label",
        settings: LearningSettings | None = None,
        start: BiasRow | None = None,
        checkpoint: Path | None = None,
        on_step: Callable[[int, int, float], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> LearnedRow:
        """Learn a task.

        The same arguments give the same row on the same machine, interrupted or not.

        Args:
            task: the row's name.
            validation: held-out examples, which choose the epoch.
            labels: names in id order; none for a regression.
            start: the row to start from, by default the base model's. Its head is kept if it is of the same problem
                type and number of labels; else the head is new.
            checkpoint: a file that is written on the way. Where it is there, the run resumes.
            on_step: called after each step with its number from 1, the number of all steps, and its loss.
            on_epoch: called after each epoch.

        Raises:
            DataError: examples that cannot be learnt from.
            UsageError: a problem type that is not learnt here, or a loss that is not a number.
            InputError: a start row or a checkpoint that does not fit.
            OutputError: the checkpoint cannot be written.
        """
        settings = settings or LearningSettings()
        names = tuple(labels)
        _check_task(problem_type, names)
        for what, examples in (("the training set", train), ("the validation set", validation)):
            examples.check(what, problem_type, names)
        if problem_type == "single_label":
            train.check_varied("the training set", names)
        first = self._start_row(start, problem_type, max(1, len(names)), settings.seed)
        run = _Run(self._session, self._step, first, train, validation, problem_type, settings, checkpoint)
        run.finish(on_step, on_epoch)
        run.parameters.values[:] = run.state.best_values
        row = run.parameters.row(task, _ROW_DTYPES[self._manifest.row_dtype])
        encode_row(row)  # a name or a value that no row can have is said here
        return LearnedRow(row, names, run.best_epoch, run.state.history)

    def _start_row(self, start: BiasRow | None, problem_type: str, labels: int, seed: int) -> BiasRow:
        layout = self._manifest.layout
        if start is None:
            start = read_row(self._folder / BASE_ROW_FILE, layout=layout)
            return with_new_head(start, layout, problem_type, labels, seed)
        if start.layout_digest != layout.digest:
            raise InputError(
                f"the start row has layout digest {start.layout_digest[:12]}, expected {layout.digest[:12]}",
                hint="pass a row that was made for this bundle",
            )
        if (start.problem_type, start.labels) == (problem_type, labels):
            return start
        return with_new_head(start, layout, problem_type, labels, seed)


def _check_task(problem_type: str, labels: tuple[str, ...]) -> None:
    if problem_type not in LEARNABLE:
        raise UsageError(f"the problem type is {quoted(problem_type)}, expected one of {', '.join(LEARNABLE)}")
    if problem_type == "regression" and labels:
        raise UsageError(f"a regression has {len(labels)} labels, expected none")
    if problem_type != "regression" and len(labels) < 2:
        raise UsageError(f"a {problem_type} task has {len(labels)} labels, expected at least two")


class _Run:
    """One run of learning: everything that stays, and the state that changes."""

    def __init__(
        self,
        session: BiasSession,
        step: TrainStep,
        first: BiasRow,
        train: LabelledTexts,
        validation: LabelledTexts,
        problem_type: str,
        settings: LearningSettings,
        checkpoint: Path | None,
    ) -> None:
        self._session, self._step = session, step
        self._train, self._validation = train, validation
        self._problem_type, self._settings, self._checkpoint = problem_type, settings, checkpoint
        manifest = session.manifest
        self.parameters = RowParameters(first, manifest.layout, manifest.layout_kind)
        self._tokens = self._tokenize(train)
        self._validation_tokens = self._tokenize(validation)
        self._targets = targets_of(problem_type, train.labels, first.labels)
        self._weights = np.ones(len(train), np.float32)
        if settings.balance and problem_type == "single_label":
            self._weights = class_weights(train.labels, first.labels)[np.asarray(train.labels)]
        self._steps_per_epoch = -(-len(train) // settings.batch_size)
        self._steps = settings.epochs * self._steps_per_epoch
        size = self.parameters.values.size
        self._optimiser = AdamW(size, epsilon=settings.epsilon, weight_decay=settings.weight_decay)
        self._name = self._digest(first)
        self.state = self._resumed(size)

    @property
    def best_epoch(self) -> int:
        """The epoch with the best first score, from 1."""
        scores = [next(iter(each.values())) for each in self.state.history]
        return scores.index(max(scores)) + 1

    def finish(
        self, on_step: Callable[[int, int, float], None] | None, on_epoch: Callable[[Epoch], None] | None
    ) -> None:
        """Do the steps that are left."""
        while self.state.step < self._steps and not self._is_enough():
            epoch, begun = divmod(self.state.step, self._steps_per_epoch)
            random = np.random.default_rng([self._settings.seed, epoch])
            batches = batches_of([len(each.ids) for each in self._tokens], self._settings.batch_size, random)
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
        weights = self._weights[batch] / self._weights[batch].sum()
        size = settings.part_size or len(batch)
        loss, gradient = 0.0, np.zeros_like(state.values)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            text = self._session._predictor.pad([self._tokens[place] for place in part])
            part_weights = weights[start : start + size].astype(np.float32)
            part_loss, part_gradient = self._step.run(
                self.parameters, text, self._targets[part], part_weights, self._problem_type
            )
            loss += part_loss
            gradient += part_gradient
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

    def _end_epoch(self, on_epoch: Callable[[Epoch], None] | None) -> None:
        state = self.state
        scores = score(self._problem_type, self._evaluate(), self._validation.labels)
        state.history.append(scores | {"loss": state.loss / self._steps_per_epoch})
        state.loss = 0.0
        is_best = self.best_epoch == len(state.history)
        if is_best:
            state.best_values = state.values.copy()
        if on_epoch is not None:
            on_epoch(Epoch(len(state.history), dict(state.history[-1]), is_best))

    def _evaluate(self) -> Float32Array:
        """The logits of the held-out examples, [examples, labels], by the program `infer`."""
        tokens = self._validation_tokens
        logits: Float32Array = np.zeros((len(tokens), self._targets.shape[1]), np.float32)
        for places in plan_batches([len(each.ids) for each in tokens], [""] * len(tokens)):
            text = self._session._predictor.pad([tokens[place] for place in places])
            (logits[places],) = self._session._model.run(text, Feeds({}, self.parameters.feeds), [LOGITS])
        return logits

    def _is_enough(self) -> bool:
        patience, done = self._settings.patience, len(self.state.history)
        return patience is not None and done > 0 and done - self.best_epoch >= patience

    def _tokenize(self, examples: LabelledTexts) -> list[TokenIds]:
        texts = [each[0] if len(each) == 1 else (each[0], each[1]) for each in examples.texts]
        limit = min(self._settings.max_length, self._session.manifest.longest_sequence)
        return self._session._encoder.tokenize(texts, truncate=True, max_length=limit)

    def _digest(self, first: BiasRow) -> str:
        """SHA-256 of all that the run's result depends on."""
        settings = {name: value for name, value in asdict(self._settings).items() if name != "checkpoint_steps"}
        about = [self._problem_type, settings, self._train.digest(), self._validation.digest()]
        sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for values in (first.biases, *first.head):
            sha.update(values.astype(np.float32).tobytes())
        sha.update(first.layout_digest.encode())
        return sha.hexdigest()

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
