"""The engine that trains trials in this process, one after another, and what every engine keeps to.

A trial that has a result is not trained again, so trials that were killed resume where they stopped, also inside
one. A trial that fails is reported, and the others are trained all the same; the next time it is tried anew.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfit_export.base_model.bias_terms import select_bias_terms
from bitfit_export.errors import BitfitError, BusyError, first_line
from bitfit_export.experiments.trial import Trial, TrialResult
from bitfit_export.experiments.trial_runner import TrialRunner

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["Failure", "Watcher", "attempt", "check_trials", "pending_trials", "run_trials"]


@dataclass(frozen=True)
class Failure:
    """A trial that gave no result, and why, in one line.

    Attributes:
        busy: another process is training it, so nothing has failed.
    """

    trial: Trial
    reason: str
    busy: bool = False


class Watcher:
    """Is told what happens to the trials; does nothing by itself."""

    def started(self, trial: Trial, number: int, total: int) -> None:
        """The trial, which is so many-th, from 1, of all that are to be trained."""

    def finished(self, trial: Trial, result: TrialResult) -> None:
        """The trial's result is in the store."""

    def failed(self, failure: Failure) -> None:
        """The trial's failure is in the store."""

    def callbacks(self, metric: str) -> Sequence[TrainerCallback]:
        """For transformers' Trainer, where it runs in this process; `metric` chooses the best epoch."""
        return ()


def pending_trials(runner: TrialRunner, trials: Sequence[Trial]) -> list[Trial]:
    """The trials without a result, each once, in their order.

    Raises:
        DataError: a result that was trained on other examples, or on another base model.
    """
    return [trial for trial in dict.fromkeys(trials) if runner.finished(trial) is None]


def check_trials(runner: TrialRunner, trials: Sequence[Trial]) -> None:
    """Read every task's data and bias terms before anything is trained, so that what is wrong with them shows at once.

    Raises:
        BitfitError: a task's data cannot be loaded or used, or the base model has no such bias terms.
    """
    for terms in {trial.settings.bias_terms for trial in trials}:
        select_bias_terms(runner.base.biases, terms)
    for trial in {trial.task: trial for trial in reversed(trials)}.values():
        runner.data_of(trial)


def run_trials(runner: TrialRunner, trials: Sequence[Trial], watcher: Watcher) -> list[Failure]:
    """Train all trials that have no result yet, in their order; give those that failed.

    Those that another process is training come last; it may be done with them by then.
    """
    pending = pending_trials(runner, trials)
    check_trials(runner, pending)
    failures = _train(runner, pending, watcher)
    busy = [failure.trial for failure in failures if failure.busy]
    return [failure for failure in failures if not failure.busy] + _train(runner, busy, watcher)


def _train(runner: TrialRunner, trials: Sequence[Trial], watcher: Watcher) -> list[Failure]:
    failures: list[Failure] = []
    for number, trial in enumerate(trials, start=1):
        watcher.started(trial, number, len(trials))
        outcome = attempt(runner, trial, watcher)
        if isinstance(outcome, Failure):
            watcher.failed(outcome)
            failures.append(outcome)
        else:
            watcher.finished(trial, outcome)
    return failures


def attempt(runner: TrialRunner, trial: Trial, watcher: Watcher) -> TrialResult | Failure:
    """Train one trial; a failure, whatever it is, goes to the store with its traceback and is returned."""
    runner.store.forget_failure(trial)
    try:
        return runner.run(trial, watcher.callbacks(runner.data_of(trial).spec.metrics[0]))
    except BusyError as error:
        return Failure(trial, first_line(error), busy=True)
    except Exception as error:
        # Also what no one expected, such as a GPU that is out of memory: the other trials must not fall with it.
        reason = first_line(error) if isinstance(error, BitfitError) else f"{type(error).__name__}: {first_line(error)}"
        runner.store.save_failure(trial, f"{reason}\n\n{traceback.format_exc()}")
        return Failure(trial, reason)
