"""Many trainings: sweeps, and the papers' experiments. Needs the `[train]` extra.

Data goes one way: trials -> engine -> store -> summary, tables and plots. Training knows nothing of this room.
"""

from __future__ import annotations

from bitfit_export.experiments.engine import Failure, Watcher, run_trials
from bitfit_export.experiments.laboratory import DataOptions, Laboratory, LaboratoryOptions
from bitfit_export.experiments.store import TrialStore
from bitfit_export.experiments.summary import Score, TaskSummary, summarise
from bitfit_export.experiments.trial import Trial, TrialResult

__all__ = [
    "DataOptions",
    "Failure",
    "Laboratory",
    "LaboratoryOptions",
    "Score",
    "TaskSummary",
    "Trial",
    "TrialResult",
    "TrialStore",
    "Watcher",
    "run_trials",
    "summarise",
]
