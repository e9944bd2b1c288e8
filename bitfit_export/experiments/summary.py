"""Results of many trials as scores: mean and standard deviation over seeds, at the best learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bitfit_export.experiments.trial import Trial, TrialResult

__all__ = ["Score", "TaskSummary", "best_score", "score_of", "summarise"]


@dataclass(frozen=True)
class Score:
    """A metric over seeds.

    Attributes:
        std: the sample standard deviation (n - 1); None for one seed.
        seeds: the seeds that it is of, sorted.
        trials: the trials that it is of, in the order of the seeds.
    """

    metric: str
    mean: float
    std: float | None
    seeds: tuple[int, ...]
    learning_rate: float
    trials: tuple[str, ...]


@dataclass(frozen=True)
class TaskSummary:
    """A task's score by one method.

    Attributes:
        score: None where no trial has a result yet.
        wanted: how many trials there are to be, of all learning rates, and `done` how many have a result.
        best_trial: the one with the highest metric.
    """

    task: str
    method: str
    score: Score | None
    wanted: int
    done: int
    best_trial: str | None


def score_of(results: Sequence[TrialResult], metric: str) -> Score:
    """The score of trials that differ in their seed alone."""
    ordered = sorted(results, key=lambda result: result.trial.settings.seed)
    values = [result.metrics[metric] for result in ordered]
    return Score(
        metric=metric,
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        seeds=tuple(result.trial.settings.seed for result in ordered),
        learning_rate=ordered[0].trial.learning_rate,
        trials=tuple(result.trial.name for result in ordered),
    )


def best_score(results: Iterable[TrialResult], metric: str | None = None) -> Score | None:
    """The score at the learning rate whose mean over the seeds is the best by the task's first metric.

    Args:
        metric: the metric to give; None for the task's first one. The rate is chosen by the first one in any case.
            Results that lack it are left out.
    """
    rates: dict[float, list[TrialResult]] = {}
    for result in results:
        if metric is not None and metric not in result.metrics:
            continue
        rates.setdefault(result.trial.learning_rate, []).append(result)
    if not rates:
        return None
    best = max(rates.values(), key=lambda same: statistics.fmean(result.score for result in same))
    return score_of(best, metric or best[0].metric)


def summarise(trials: Sequence[Trial], results: Sequence[TrialResult]) -> list[TaskSummary]:
    """A summary for each task and method, in the order of the trials."""
    groups = dict.fromkeys((trial.task, trial.method) for trial in trials)
    summaries = []
    for group in groups:
        wanted = {trial for trial in trials if (trial.task, trial.method) == group}
        done = [result for result in results if (result.trial.task, result.trial.method) == group]
        best = max(done, key=lambda result: result.score, default=None)
        name = None if best is None else best.trial.name
        summaries.append(TaskSummary(*group, best_score(done), len(wanted), len(done), name))
    return summaries
