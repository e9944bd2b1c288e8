"""The papers' experiments, each as what a protocol trains for it and a report of what that gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bitfit_export.experiments.reproduce.bias_changes import report_changes
from bitfit_export.experiments.reproduce.context import Context
from bitfit_export.experiments.reproduce.learning_curves import report_shares, report_sizes
from bitfit_export.experiments.reproduce.paper_tables import report_gap, report_methods
from bitfit_export.experiments.reproduce.protocol import PAPER, Experiment, Protocol, Round
from bitfit_export.experiments.reproduce.protocol_file import read_protocol
from bitfit_export.experiments.reproduce.report import Report, write_report
from bitfit_export.experiments.trial import Trial
from bitfit_export.experiments.trial_runner import TrialRunner
from bitfit_export.training.stored_names import to_stored

__all__ = [
    "PAPER",
    "REPORTS",
    "Experiment",
    "PaperReport",
    "Protocol",
    "Report",
    "Round",
    "make_report",
    "read_protocol",
    "write_report",
]


@dataclass(frozen=True)
class PaperReport:
    """The report of one of the papers' experiments: what it says, in a sentence, and how it is made."""

    title: str
    report: Callable[[Context], Report]
    has_plots: bool = False


REPORTS: Mapping[str, PaperReport] = {
    "table2": PaperReport("Full fine-tuning and BitFit (BitFit paper, table 2)", report_methods),
    "table3": PaperReport(
        "Subsets of the bias terms, random subsets, other methods (BitFit paper, table 3)", report_methods
    ),
    "pos": PaperReport("Part-of-speech tagging (BitFit paper, section 4, token-level tasks)", report_methods),
    "figure1": PaperReport(
        "Change of each bias term by layer (BitFit paper, figure 1)", report_changes, has_plots=True
    ),
    "figure2": PaperReport("SQuAD by size of the training data (BitFit paper, figure 2)", report_sizes, has_plots=True),
    "data-size": PaperReport(
        "Stability by share of the training data, and by training time (second paper)", report_shares, has_plots=True
    ),
    "gap": PaperReport("Generalisation gap (BitFit paper, section 4)", report_gap),
}


def make_report(name: str, runner: TrialRunner, model: str, experiment: Experiment, trials: list[Trial]) -> Report:
    """The report of what has a result so far, with the settings of every trial beside it."""
    found = {trial: runner.load(trial) for trial in trials}
    results = [result for result in found.values() if result is not None]
    missing = [trial for trial, result in found.items() if result is None]
    failed = frozenset(trial.name for trial in missing if runner.store.failure(trial) is not None)
    report = REPORTS[name].report(Context(model, experiment, trials, results, failed))
    record: dict[str, Any] = {
        "experiment": name,
        "title": REPORTS[name].title,
        "model": runner.base.source.name,
        "base_digest": runner.base.digest,
        "series": asdict(experiment) | {"settings": to_stored(experiment.settings)},
        "settings": {trial.name: trial.as_json() for trial in trials},
        "missing_trials": [trial.name for trial in missing],
    }
    return replace(report, data={**report.data, **record})
