"""Where trials are trained: a base model, data, and the store of results."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.source import resolve_model
from bitfit_export.delta import TaskDelta
from bitfit_export.delta.change_plot import mean_absolute_change
from bitfit_export.errors import BitfitError, DataError
from bitfit_export.experiments.trial import TRAIN_PREFIX, Trial, TrialResult
from bitfit_export.experiments.trial_store import TrialStore
from bitfit_export.files.outputs import refuse_overlap
from bitfit_export.training import TaskData, TrainingResult, load_task_data, train_task
from bitfit_export.training.data import sample_examples
from bitfit_export.training.heads import with_pooling
from bitfit_export.training.model_card import render_card
from bitfit_export.training.work_folder import claimed_work_folder

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["DataOptions", "TrialRunner", "TrialRunnerOptions"]

#: Data sets that are kept in memory: neighbouring trials mostly have the same task.
_KEPT_DATA = 4


@dataclass(frozen=True)
class DataOptions:
    """Where examples come from, and what is said of a task of one's own; see `load_task_data`."""

    folder: Path | None = None
    columns: tuple[str, ...] | None = None
    label_column: str | None = None
    problem_type: str | None = None
    labels: tuple[str, ...] | None = None
    revision: str | None = None


@dataclass(frozen=True)
class TrialRunnerOptions:
    """What a process needs to train trials: small, and the same in every process of a sweep.

    Attributes:
        output: the folder of a `TrialStore`.
        threads: of torch on the CPU; None for its default.
    """

    model: str
    output: Path
    data: DataOptions = DataOptions()
    revision: str | None = None
    add_biases: bool = False
    threads: int | None = None


class TrialRunner:
    """Trains trials, one at a time. Base model and data are loaded when they are first needed, and kept.

    Raises:
        OutputError: the output folder is that of the base model or of the data, or is above or below one.
    """

    def __init__(self, options: TrialRunnerOptions) -> None:
        refuse_overlap(options.output, [resolve_model(options.model).location, options.data.folder])
        self.options = options
        self.store = TrialStore(options.output)
        self._load_data = functools.lru_cache(_KEPT_DATA)(self._read_data)
        self._digest_and_problem = functools.cache(self._read_digest_and_problem)

    @functools.cached_property
    def base(self) -> BaseModel:
        options = self.options
        return load_base_model(options.model, revision=options.revision, add_biases=options.add_biases)

    def data_of(self, trial: Trial) -> TaskData:
        """The examples of a trial."""
        data = self._load_data(*_examples_of(trial))
        if not trial.scored_train_examples:
            return data
        scored = sample_examples(data.train, trial.scored_train_examples)
        return replace(data, more_validation={**data.more_validation, TRAIN_PREFIX.rstrip("_"): scored})

    def load(self, trial: Trial) -> TrialResult | None:
        """The result that the store has of a trial, once it is sure that it is this base model's."""
        return self.store.load(trial, self.base.digest)

    def finished(self, trial: Trial) -> TrialResult | None:
        """The stored result of a trial, once it is sure that training it now would give the same.

        Raises:
            DataError: it was trained on other examples, without the biases that were added to the base model, or with,
                or with another pooling than the one that `auto` chooses now.
        """
        result = self.load(trial)
        if result is None:
            return None
        digest, problem_type = self._digest_and_problem(*_examples_of(trial))
        pooling = with_pooling(self.base, problem_type, trial.settings).pooling
        if result.record.get("data_digest") != digest:
            what = "on other examples than the data has now"
        elif result.record.get("pooling", pooling) != pooling:
            what = f"with --pooling {result.record['pooling']}, where {trial.settings.pooling} is {pooling} now"
        elif tuple(result.record.get("added_biases", ())) != self.base.added_biases:
            what = f"{'without' if self.base.added_biases else 'with'} --add-biases"
        else:
            return result
        raise DataError(
            f"{self.store.result_file(trial)} was trained {what}",
            hint="choose another --output, or remove the file and the trial is trained again",
        )

    def run(self, trial: Trial, callbacks: Sequence[TrainerCallback] = ()) -> TrialResult:
        """Train a trial, or resume one that was killed, and store its result.

        Raises:
            BitfitError: data, settings or output that cannot be used, or another process that is at this trial.
        """
        if self.options.threads is not None:
            import torch

            torch.set_num_threads(self.options.threads)
        data, work_folder = self.data_of(trial), self.store.work_folder(trial)
        with claimed_work_folder(work_folder, self.base, data, trial.settings):
            # Another process may have ended this trial while this one was at an earlier one.
            done = self.finished(trial)
            if done is not None:
                self.store.forget_work(trial)
                return done
            trained = train_task(self.base, data, trial.settings, work_folder, callbacks)
            result = self._result(trial, data, trained)
            delta = None if trained.delta is None else _own_metrics(trained.delta)
            card = "" if delta is None else render_card(delta, self.base.source.short_name)
            self.store.save(result, delta, card)
        return result

    def _read_digest_and_problem(
        self, task: str, train_examples: int | None, train_share: float | None, validation_examples: int | None
    ) -> tuple[str, str]:
        data = self._load_data(task, train_examples, train_share, validation_examples)
        return data.digest, data.spec.problem_type

    def _read_data(
        self, task: str, train_examples: int | None, train_share: float | None, validation_examples: int | None
    ) -> TaskData:
        options = self.options.data
        if train_share is not None:
            whole = self._load_data(task, None, None, validation_examples)
            train_examples = max(1, round(train_share * len(whole.train)))
        return load_task_data(
            task,
            data=options.folder,
            columns=options.columns,
            label_column=options.label_column,
            problem_type=options.problem_type,
            labels=options.labels,
            train_examples=train_examples,
            validation_examples=validation_examples,
            revision=options.revision,
        )

    def _result(self, trial: Trial, data: TaskData, trained: TrainingResult) -> TrialResult:
        values = [value for metrics in (trained.metrics, *trained.history) for value in metrics.values()]
        if not all(map(math.isfinite, values)):
            raise BitfitError(
                "the training diverged: a loss or a metric is not a finite number",
                hint=f"train with a lower --learning-rate than {trial.learning_rate:g}",
            )
        return TrialResult(
            trial=trial,
            base_model=self.base.source.name,
            base_digest=self.base.digest,
            base_parameters=sum(parameter.numel() for parameter in self.base.module.parameters()),
            metric=data.spec.metrics[0],
            metrics=trained.metrics,
            best_epoch=trained.best_epoch,
            history=trained.history,
            trained_parameters=trained.trained_parameters,
            bias_changes={} if trained.delta is None else mean_absolute_change(trained.delta),
            record=trained.record,
        )


def _examples_of(trial: Trial) -> tuple[str, int | None, float | None, int | None]:
    """What decides which examples a trial has."""
    return trial.task, trial.train_examples, trial.train_share, trial.validation_examples


def _own_metrics(delta: TaskDelta) -> TaskDelta:
    """The delta without the metrics on training examples: a card tells how a task does on those it has not seen."""
    metrics = {name: value for name, value in delta.config.metrics.items() if not name.startswith(TRAIN_PREFIX)}
    return replace(delta, config=replace(delta.config, metrics=metrics))
