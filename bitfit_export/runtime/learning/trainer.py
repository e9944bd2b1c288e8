"""BiasTrainer: learns a task's row from examples, with NumPy and an inference engine alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bitfit_export.bundle import BiasRow, encode_row, read_row
from bitfit_export.bundle.interface import BASE_ROW_FILE, TOKEN_LOGITS
from bitfit_export.bundle.regular_files import COPY_AGAIN
from bitfit_export.errors import BundleError, InputError, UsageError, quoted
from bitfit_export.files import write_bytes
from bitfit_export.runtime.learning.examples import LEARNABLE, LabelledTexts
from bitfit_export.runtime.learning.items import LearningItems, items_of
from bitfit_export.runtime.learning.parameters import BY_TOKEN, RowParameters, with_new_head
from bitfit_export.runtime.learning.plan import Epoch, LearningPlan, check_memory
from bitfit_export.runtime.learning.run import LearningRun
from bitfit_export.runtime.learning.scores import metric_names
from bitfit_export.runtime.learning.settings import LearningSettings
from bitfit_export.runtime.learning.train_step import TrainStep
from bitfit_export.runtime.session import BiasSession, parts_of

__all__ = ["BiasTrainer", "LearnedRow"]

_TRAIN, _VALIDATION = "the training set", "the validation set"
_ROW_DTYPES = {"fp32": "float32", "fp16": "float16"}


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
        self._parts, self._manifest = parts_of(session), session.manifest
        model = self._parts.model
        self._step = TrainStep(model.folder, self._manifest, model.engine, model.threads, model.options)

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
        memory_limit: int | None = None,
        on_plan: Callable[[LearningPlan], None] | None = None,
        on_step: Callable[[int, int, float], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> LearnedRow:
        """Learn a task.

        The same arguments give the same row on the same machine, interrupted or not.

        Args:
            task: the row's name.
            validation: held-out examples, which choose the epoch.
            labels: names in id order; none for a regression, `("start", "end")` for a span task.
            start: the row to start from, by default the base model's. Its head is kept if it is of the same problem
                type and number of labels; else the head is new.
            checkpoint: a file that is written on the way. Where it is there, the run resumes.
            memory_limit: in bytes, for `LearningPlan.peak_bytes`.
            on_plan: called before the first step.
            on_step: called after each step with its number from 1, the number of all steps, and its loss.
            on_epoch: called after each epoch.

        Raises:
            DataError: examples that cannot be learnt from.
            UsageError: a problem type that the bundle has no output for, a loss that is not a number, or more memory
                than the limit.
            InputError: a start row or a checkpoint that does not fit.
            OutputError: the checkpoint cannot be written.
        """
        settings = settings or LearningSettings()
        names = tuple(labels)
        self._check_task(problem_type, names)
        _check_metric(settings.metric, metric_names(problem_type, names))
        items, held_out = self._read_examples(train, validation, problem_type, names, settings)
        first = self._start_row(start, problem_type, max(1, len(names)), settings.seed)
        parameters = RowParameters(first, self._manifest.layout, self._manifest.layout_kind)
        name = _digest(first, problem_type, settings, train, validation)
        run = LearningRun(
            self._parts, self._step, parameters, problem_type, items, held_out, settings, checkpoint, name
        )
        plan = run.plan()
        if on_plan is not None:
            on_plan(plan)
        check_memory(plan, memory_limit)
        run.finish(on_step, on_epoch)
        run.parameters.values[:] = run.state.best_values
        row = run.parameters.row(task, _ROW_DTYPES[self._manifest.row_dtype])
        encode_row(row)  # a name or a value that no row can have is said here
        return LearnedRow(row, names, run.best_epoch, run.state.history)

    def _read_examples(
        self,
        train: LabelledTexts,
        validation: LabelledTexts,
        problem_type: str,
        labels: tuple[str, ...],
        settings: LearningSettings,
    ) -> tuple[LearningItems, LearningItems]:
        """Both sets, checked and encoded."""
        both = ((_TRAIN, train), (_VALIDATION, validation))
        for what, examples in both:
            examples.check(what, problem_type, labels)
        if problem_type in ("single_label", "token"):
            train.check_varied(_TRAIN, labels)
        limit, encoder = min(settings.max_length, self._manifest.longest_sequence), self._parts.encoder
        items, held_out = (
            items_of(examples, what, problem_type, labels, encoder, max_length=limit, balance=settings.balance)
            for what, examples in both
        )
        return items, held_out

    def _start_row(self, start: BiasRow | None, problem_type: str, labels: int, seed: int) -> BiasRow:
        layout = self._manifest.layout
        if start is None:
            start = read_row(self._parts.model.folder / BASE_ROW_FILE, layout=layout, check=self._check_base_row)
            return with_new_head(start, layout, problem_type, labels, seed)
        if start.layout_digest != layout.digest:
            raise InputError(
                f"the start row has layout digest {start.layout_digest[:12]}, expected {layout.digest[:12]}",
                hint="pass a row that was made for this bundle",
            )
        if (start.problem_type, start.labels) == (problem_type, labels):
            return start
        return with_new_head(start, layout, problem_type, labels, seed)

    def _check_base_row(self, data: bytes, path: Path) -> None:
        """Refuse a file that is not the one that the manifest records, which may be signed."""
        found, expected = hashlib.sha256(data).hexdigest(), self._manifest.files[BASE_ROW_FILE].sha256
        if found != expected:
            raise BundleError(f"{path} has sha256 {found[:12]}, expected {expected[:12]}", hint=COPY_AGAIN)

    def _check_task(self, problem_type: str, labels: tuple[str, ...]) -> None:
        if problem_type not in LEARNABLE:
            raise UsageError(f"the problem type is {quoted(problem_type)}, expected one of {', '.join(LEARNABLE)}")
        if problem_type in BY_TOKEN and not self._step.reads_tokens:
            raise UsageError(
                f"a {problem_type} task reads each token, but the bundle has no output {TOKEN_LOGITS}",
                hint="export the bundle together with a token or span task",
            )
        if problem_type == "regression" and labels:
            raise UsageError(f"a regression has {len(labels)} labels, expected none")
        if problem_type == "span" and len(labels) != 2:
            raise UsageError(f"a span task has {len(labels)} labels, expected two: start and end")
        if problem_type != "regression" and len(labels) < 2:
            raise UsageError(f"a {problem_type} task has {len(labels)} labels, expected at least two")


def _check_metric(metric: str | None, known: Sequence[str]) -> None:
    if metric is not None and metric not in known:
        raise UsageError(f"the metric is {quoted(metric)}, expected one of {', '.join(known)}")


def _digest(
    first: BiasRow, problem_type: str, settings: LearningSettings, train: LabelledTexts, validation: LabelledTexts
) -> str:
    """SHA-256 of all that a run's result depends on."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "checkpoint_steps"}
    about = [problem_type, chosen, train.digest(), validation.digest()]
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for values in (first.biases, *first.head):
        sha.update(values.astype(np.float32).tobytes())
    sha.update(first.layout_digest.encode())
    return sha.hexdigest()
