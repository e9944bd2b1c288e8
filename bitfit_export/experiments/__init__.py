"""Many trainings: sweeps, and the papers' experiments. Needs the `[train]` extra.

Data goes one way: trials -> engine -> store -> summary, tables and plots. Training knows nothing of this room.
"""

from __future__ import annotations

from bitfit_export.experiments.summary import Score, TaskSummary, summarise
from bitfit_export.experiments.trial import Trial, TrialResult
from bitfit_export.experiments.trial_engine import Failure, Watcher, run_trials
from bitfit_export.experiments.trial_runner import DataOptions, TrialRunner, TrialRunnerOptions
from bitfit_export.experiments.trial_store import TrialStore

__all__ = [
    "DataOptions",
    "Failure",
    "Score",
    "TaskSummary",
    "Trial",
    "TrialResult",
    "TrialRunner",
    "TrialRunnerOptions",
    "TrialStore",
    "Watcher",
    "run_trials",
    "summarise",
]
