"""The material of an experiment's report: what was to be trained, and what has a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitfit_export.experiments.reproduce.protocol import Experiment
from bitfit_export.experiments.summary import Score, best_score
from bitfit_export.experiments.trial import Trial, TrialResult
from bitfit_export.training.tasks import GLUE_TASKS

__all__ = ["Cell", "Context", "method_title", "metric_title", "task_title"]

_TASK_TITLES = {
    "qnli": "QNLI",
    "sst2": "SST-2",
    "mnli": "MNLI",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "rte": "RTE",
    "qqp": "QQP",
    "ewt": "EWT",
    "squad": "SQuAD",
}
_METHOD_TITLES = {
    "full": "Full-FT",
    "bitfit": "BitFit",
    "frozen": "Frozen",
    "rand-uniform": "rand uniform",
    "rand-row-col": "rand row/col",
    "adapters": "Adapters",
    "diff-pruning": "Diff-Prune",
}
_METRIC_TITLES = {
    "f1": "F1",
    "matthews_correlation": "Matthews",
    "spearman": "Spearman",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
}
NOT_TRAINED = "not trained"


def task_title(task: str) -> str:
    """What the papers call a task."""
    return _TASK_TITLES.get(task, task)


def method_title(method: str) -> str:
    """What the papers call a method; bias terms as they are."""
    return _METHOD_TITLES.get(method, method.replace("+", ", "))


def metric_title(metric: str) -> str:
    return _METRIC_TITLES.get(metric, metric.replace("_", " "))


@dataclass(frozen=True)
class Cell:
    """One figure of a table: a score over seeds, or why there is none.

    Attributes:
        wanted: how many seeds there are to be.
        failed: a trial of it failed when it was last tried.
    """

    score: Score | None
    wanted: int
    failed: bool = False

    @property
    def text(self) -> str:
        """In percent, mean and standard deviation as the papers write them; never a value that was not measured."""
        if self.score is None:
            return "failed" if self.failed else NOT_TRAINED
        spread = "" if self.score.std is None else f" ± {100 * self.score.std:.1f}"
        seeds = len(self.score.seeds)
        missing = "" if seeds == self.wanted else f" ({seeds} of {self.wanted} seeds)"
        return f"{100 * self.score.mean:.1f}{spread}{missing}"

    def as_json(self) -> dict[str, Any]:
        if self.score is None:
            return {"status": self.text, "wanted_seeds": self.wanted}
        score = self.score
        return {
            "metric": score.metric,
            "mean": score.mean,
            "std": score.std,
            "seeds": list(score.seeds),
            "wanted_seeds": self.wanted,
            "learning_rate": score.learning_rate,
            "trials": list(score.trials),
        }


@dataclass(frozen=True)
class Context:
    """One experiment on one model.

    Attributes:
        model: the name on the command line.
        trials: all that were to be trained.
        results: those of them that have a result.
        failed: the names of those that failed when they were last tried.
    """

    model: str
    experiment: Experiment
    trials: Sequence[Trial]
    results: Sequence[TrialResult]
    failed: frozenset[str] = frozenset()

    def results_of(
        self, task: str, method: str, *, size: int | None = None, share: float | None = None
    ) -> list[TrialResult]:
        """The results of a task by a method, of all seeds and learning rates."""
        return [result for result in self.results if _is_of(result.trial, task, method, size, share)]

    def cell(
        self,
        task: str,
        method: str,
        metric: str | None = None,
        *,
        size: int | None = None,
        share: float | None = None,
    ) -> Cell:
        """The score at the best learning rate; by the task's first metric where none is named."""
        own = [trial for trial in self.trials if _is_of(trial, task, method, size, share)]
        score = best_score(self.results_of(task, method, size=size, share=share), metric)
        failed = any(trial.name in self.failed for trial in own)
        return Cell(score, len({trial.settings.seed for trial in own}), failed)

    def metric_of(self, task: str) -> str | None:
        """The task's first metric; None for a task of one's own of which nothing has a result."""
        found = next((result.metric for result in self.results if result.trial.task == task), None)
        return found or (GLUE_TASKS[task].metrics[0] if task in GLUE_TASKS else None)

    def metrics_of(self, task: str) -> set[str]:
        """Every metric that some result of the task has; none where it has no result."""
        return {metric for result in self.results if result.trial.task == task for metric in result.metrics}

    def share_trained(self, method: str) -> float | None:
        """The share of the base's parameters that a method trains; None where it has no result."""
        result = next((result for result in self.results if result.trial.method == method), None)
        return None if result is None else result.trained_parameters[0] / result.base_parameters


def _is_of(trial: Trial, task: str, method: str, size: int | None, share: float | None) -> bool:
    if (trial.task, trial.method) != (task, method):
        return False
    return (size is None or trial.train_examples == size) and (
        share is None or trial.train_share == (share if share < 1 else None)
    )
