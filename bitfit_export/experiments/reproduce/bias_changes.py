"""Figure 1 of the BitFit paper, and its appendix's figures 3 to 5: how much each bias term changed."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Mapping
from typing import Any

from bitfit_export.base_model.bias_terms import PAPER_NAMES, select_bias_terms
from bitfit_export.delta.change_plot import draw_grid, lay_out
from bitfit_export.errors import UsageError
from bitfit_export.experiments.reproduce.context import NOT_TRAINED, Context, method_title, task_title
from bitfit_export.experiments.reproduce.report import Report, markdown_table
from bitfit_export.experiments.summary import best_score

__all__ = ["mean_by_term", "report_changes"]


def report_changes(context: Context) -> Report:
    """1/dim(b) * |b_0 - b_F|_1 for each bias term and layer, the mean over the seeds, as a heat map for each task.

    The text has the mean over the layers.
    """
    body: list[list[str]] = []
    data: dict[str, Any] = {}
    plots = {}
    several = len(context.experiment.methods) > 1
    for task, method in itertools.product(context.experiment.tasks, context.experiment.methods):
        name = f"{task}-{method}" if several else task
        title = f"{task_title(task)}, {method_title(method)}" if several else task_title(task)
        changes = _changes(context, task, method)
        by_term = mean_by_term(changes)
        body.append([title, *(_cell(by_term.get(term)) for term in PAPER_NAMES)])
        data[name] = {"changes": changes, "mean_by_term": by_term} if changes else {"status": NOT_TRAINED}
        if changes:
            plots[f"-{name}"] = functools.partial(draw_grid, lay_out(changes), f"{title} on {context.model}")
    header = [f"change on {context.model}, x 1000", *PAPER_NAMES]
    return Report(markdown_table(header, body), {"tasks": data}, plots)


def _changes(context: Context, task: str, method: str) -> dict[str, float]:
    """Bias term -> change, the mean over seeds, at the best learning rate, in the model's order."""
    results = context.results_of(task, method)
    best = best_score(results)
    if best is None:
        return {}
    chosen = [result.bias_changes for result in results if result.trial.name in best.trials]
    return {term: statistics.fmean(changes[term] for changes in chosen) for term in chosen[0]}


def mean_by_term(changes: Mapping[str, float]) -> dict[str, float]:
    """The paper's term -> the mean of its changes over the layers; terms that the model lacks are left out."""
    found = {}
    for term in PAPER_NAMES:
        try:
            names = select_bias_terms(changes, (term,))
        except UsageError:
            continue
        found[term] = statistics.fmean(changes[name] for name in names)
    return found


def _cell(change: float | None) -> str:
    return NOT_TRAINED if change is None else f"{1000 * change:.3g}"
