"""Tables 2 and 3 of the BitFit paper and its token-level comparison: methods by tasks; and the generalisation gap."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bitfit_export.experiments.reproduce.context import Cell, Context, method_title, metric_title, task_title
from bitfit_export.experiments.reproduce.report import Report, markdown_table
from bitfit_export.experiments.summary import best_score
from bitfit_export.experiments.trial import TRAIN_PREFIX, TrialResult

__all__ = ["report_gap", "report_methods"]

#: Tasks that are judged on a second validation set: the paper's column, and the prefix of its metrics.
_SECOND_SETS = {"mnli": ("mm", "mismatched_")}
_NO_VALUE = "-"


def report_methods(context: Context) -> Report:
    """A line for each method, a column for each task; the mean over the columns where all of them have a value."""
    columns = list(_columns(context))
    body, data = [], []
    for method in context.experiment.methods:
        cells = [context.cell(task, method, metric) for task, metric, _ in columns]
        share = context.share_trained(method)
        average = _average(cells)
        texts = [method_title(method), _NO_VALUE if share is None else _percent(share), *(cell.text for cell in cells)]
        body.append([*texts, *([] if len(columns) < 2 else [_NO_VALUE if average is None else f"{100 * average:.1f}"])])
        named = {title: cell.as_json() for (_, _, title), cell in zip(columns, cells, strict=True)}
        data.append({"method": method, "share_trained": share, "cells": named, "average": average})
    header = [context.model, "% Param", *(title for _, _, title in columns), *(["Avg."] if len(columns) > 1 else [])]
    return Report(markdown_table(header, body), {"rows": data})


def _columns(context: Context) -> Iterator[tuple[str, str | None, str]]:
    """(task, metric, title); a metric that is not known yet is the task's first one."""
    for task in context.experiment.tasks:
        metric = context.metric_of(task)
        shown = "" if metric is None else f" {metric_title(metric)}"
        yield task, metric, task_title(task) + shown
        if task in _SECOND_SETS and metric is not None:
            end, prefix = _SECOND_SETS[task]
            known = context.metrics_of(task)
            if not known or prefix + metric in known:
                yield task, prefix + metric, f"{task_title(task)}-{end}{shown}"


def _average(cells: list[Cell]) -> float | None:
    means = [cell.score.mean for cell in cells if cell.score is not None]
    return statistics.fmean(means) if len(means) == len(cells) else None


def _percent(share: float) -> str:
    """As many digits as the smallest subset of bias terms needs."""
    return "100%" if share == 1 else f"{share:.2%}"


def report_gap(context: Context) -> Report:
    """The metric on training examples less that on the validation set, for each task and method."""
    body, data = [], []
    for task in context.experiment.tasks:
        for method in context.experiment.methods:
            cell, gaps = context.cell(task, method), _gaps(context, task, method)
            train = statistics.fmean(train for train, _ in gaps) if gaps else None
            values = [train - validation for train, validation in gaps]
            gap = statistics.fmean(values) if values else None
            std = statistics.stdev(values) if len(values) > 1 else None
            spread = "" if std is None else f" ± {100 * std:.1f}"
            body.append(
                [
                    _title_with_metric(context, task),
                    method_title(method),
                    _NO_VALUE if train is None else f"{100 * train:.1f}",
                    cell.text,
                    _NO_VALUE if gap is None else f"{100 * gap:.1f}{spread}",
                ]
            )
            data.append({"task": task, "method": method, "train": train, "gap": gap, "gap_std": std} | cell.as_json())
    return Report(markdown_table(["", context.model, "training examples", "validation", "gap"], body), {"rows": data})


def _title_with_metric(context: Context, task: str) -> str:
    metric = context.metric_of(task)
    return task_title(task) if metric is None else f"{task_title(task)} {metric_title(metric)}"


def _gaps(context: Context, task: str, method: str) -> list[tuple[float, float]]:
    """(on training examples, on the validation set) for each seed at the best learning rate."""
    results = context.results_of(task, method)
    best = best_score(results)
    if best is None:
        return []
    chosen = [result for result in results if result.trial.name in best.trials]
    return [(result.metrics[TRAIN_PREFIX + result.metric], result.score) for result in chosen if _has_train(result)]


def _has_train(result: TrialResult) -> bool:
    return TRAIN_PREFIX + result.metric in result.metrics
