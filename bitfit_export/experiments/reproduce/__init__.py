"""The papers' experiments, each as a protocol's series of trials and a report of what they gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bitfit_export.experiments.reproduce.bias_changes import report_changes
from bitfit_export.experiments.reproduce.context import Context
from bitfit_export.experiments.reproduce.learning_curves import report_shares, report_sizes
from bitfit_export.experiments.reproduce.paper_tables import report_gap, report_methods
from bitfit_export.experiments.reproduce.protocol import PAPER, Protocol, Round, Series
from bitfit_export.experiments.reproduce.protocol_file import read_protocol
from bitfit_export.experiments.reproduce.report import Report, write_report
from bitfit_export.experiments.trial import Trial
from bitfit_export.experiments.trial_runner import TrialRunner

__all__ = [
    "EXPERIMENTS",
    "PAPER",
    "Experiment",
    "Protocol",
    "Report",
    "Round",
    "Series",
    "make_report",
    "read_protocol",
    "write_report",
]


@dataclass(frozen=True)
class Experiment:
    """One of the papers' experiments: what its report says, in a sentence, and how it is made."""

    title: str
    report: Callable[[Context], Report]
    has_plots: bool = False


EXPERIMENTS: Mapping[str, Experiment] = {
    "table2": Experiment("Full fine-tuning and BitFit (BitFit paper, table 2)", report_methods),
    "table3": Experiment(
        "Subsets of the bias terms, random subsets, other methods (BitFit paper, table 3)", report_methods
    ),
    "pos": Experiment("Part-of-speech tagging (BitFit paper, section 4, token-level tasks)", report_methods),
    "figure1": Experiment("Change of each bias term by layer (BitFit paper, figure 1)", report_changes, has_plots=True),
    "figure2": Experiment("SQuAD by size of the training data (BitFit paper, figure 2)", report_sizes, has_plots=True),
    "data-size": Experiment(
        "Stability by share of the training data, and by training time (second paper)", report_shares, has_plots=True
    ),
    "gap": Experiment("Generalisation gap (BitFit paper, section 4)", report_gap),
}


def make_report(name: str, runner: TrialRunner, model: str, series: Series, trials: list[Trial]) -> Report:
    """The report of what has a result so far, with the settings of every trial beside it."""
    found = {trial: runner.load(trial) for trial in trials}
    results = [result for result in found.values() if result is not None]
    missing = [trial for trial, result in found.items() if result is None]
    failed = frozenset(trial.name for trial in missing if runner.store.failure(trial) is not None)
    report = EXPERIMENTS[name].report(Context(model, series, trials, results, failed))
    record: dict[str, Any] = {
        "experiment": name,
        "title": EXPERIMENTS[name].title,
        "model": runner.base.source.name,
        "base_digest": runner.base.digest,
        "series": asdict(series),
        "settings": {trial.name: trial.as_json() for trial in trials},
        "missing_trials": [trial.name for trial in missing],
    }
    return replace(report, data={**report.data, **record})
