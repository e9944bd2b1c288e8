"""Figure 2 of the BitFit paper, SQuAD against the number of training examples, and the second paper's stability: GLUE
tasks against the share of training examples and against training time.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitfit_export.delta.plots import render
from bitfit_export.experiments.reproduce.context import Cell, Context, method_title, metric_title, task_title
from bitfit_export.experiments.reproduce.report import Report, markdown_table
from bitfit_export.experiments.summary import best_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["report_shares", "report_sizes"]

_SPAN_METRICS = ("exact_match", "f1")
_STYLES = ("-", "--", ":")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class _Line:
    """A line of a plot: x, and at each the mean and the standard deviation."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class _Panel:
    title: str
    x_title: str
    lines: Sequence[_Line]
    logarithmic: bool = False


def report_sizes(context: Context) -> Report:
    """Exact match and F1 for each method and number of training examples."""
    sizes = context.experiment.sizes
    body: list[list[str]] = []
    data: list[dict[str, Any]] = []
    panels: list[_Panel] = []
    for task in context.experiment.tasks:
        for metric in _metrics(context, task):
            lines = []
            for method in context.experiment.methods:
                cells = [context.cell(task, method, metric, size=size) for size in sizes]
                title = f"{task_title(task)} {metric_title(str(metric))}"
                body.append([title, method_title(method), *(cell.text for cell in cells)])
                named = {str(size): cell.as_json() for size, cell in zip(sizes, cells, strict=True)}
                data.append({"task": task, "method": method, "metric": metric, "by_rows": named})
                lines.append(_line(method, sizes, cells))
            panels.append(_Panel(f"{title} on {context.model}", "training examples", lines, logarithmic=True))
    text = markdown_table(["", "training examples", *(f"{size:,}" for size in sizes)], body)
    return Report(text, {"rows": data}, _plots({"": panels}))


def _metrics(context: Context, task: str) -> Sequence[str | None]:
    """Returns both metrics of a span task, also for a task without results; else the task's first metric."""
    known, metric = context.metrics_of(task), context.metric_of(task)
    return _SPAN_METRICS if known.issuperset(_SPAN_METRICS) or metric is None else (metric,)


def report_shares(context: Context) -> Report:
    """The task's metric for each method and share of the training examples, and after each epoch on all of them."""
    shares = context.experiment.shares or (1.0,)
    body: list[list[str]] = []
    data: list[dict[str, Any]] = []
    by_share: list[_Panel] = []
    by_time: list[_Panel] = []
    for task in context.experiment.tasks:
        metric = context.metric_of(task)
        title = task_title(task) if metric is None else f"{task_title(task)} {metric_title(metric)}"
        lines, curves = [], []
        for method in context.experiment.methods:
            cells = [context.cell(task, method, share=share) for share in shares]
            body.append([title, method_title(method), *(cell.text for cell in cells)])
            named = {f"{share:g}": cell.as_json() for share, cell in zip(shares, cells, strict=True)}
            curve = _curve(context, task, method)
            data.append({"task": task, "method": method, "by_share": named, "by_epoch": list(curve.mean)})
            lines.append(_line(method, shares, cells))
            curves.append(curve)
        by_share.append(_Panel(f"{title} on {context.model}", "share of the training examples", lines))
        by_time.append(_Panel(f"{title} on {context.model}", "epoch", curves))
    text = markdown_table(["", "share of the training examples", *(f"{share:.0%}" for share in shares)], body)
    return Report(text, {"rows": data}, _plots({"": by_share, "-time": by_time}))


def _line(method: str, x: Sequence[float], cells: Sequence[Cell]) -> _Line:
    known = [(place, cell.score) for place, cell in zip(x, cells, strict=True) if cell.score is not None]
    return _Line(
        method_title(method),
        [place for place, _ in known],
        [score.mean for _, score in known],
        [score.std or 0.0 for _, score in known],
    )


def _curve(context: Context, task: str, method: str) -> _Line:
    """The metric after each epoch, over the seeds, of trainings on all examples."""
    results = context.results_of(task, method, share=1.0)
    best = best_score(results)
    chosen = [] if best is None else [result for result in results if result.trial.name in best.trials]
    epochs = min((len(result.history) for result in chosen), default=0)
    values = [[result.history[epoch][result.metric] for result in chosen] for epoch in range(epochs)]
    return _Line(
        method_title(method),
        [float(epoch + 1) for epoch in range(epochs)],
        [statistics.fmean(each) for each in values],
        [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values],
    )


def _plots(panels: Mapping[str, Sequence[_Panel]]) -> dict[str, Callable[[str], bytes]]:
    """Returns a drawing function for each group of panels that has a point to draw."""
    return {
        end: functools.partial(render, functools.partial(_figure, group))
        for end, group in panels.items()
        if any(line.x for panel in group for line in panel.lines)
    }


def _figure(panels: Sequence[_Panel]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: _Panel) -> None:
    looks = itertools.cycle(itertools.product(_STYLES, _COLOURS))
    for line, (style, colour) in zip(panel.lines, looks, strict=False):
        percent = [100 * value for value in line.mean], [100 * value for value in line.std]
        look = f"o{style}"
        axes.errorbar(line.x, percent[0], yerr=percent[1], fmt=look, color=colour, capsize=3, label=line.name)
    if panel.logarithmic:
        axes.set_xscale("log")
        places = sorted({place for line in panel.lines for place in line.x})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    axes.set_xlabel(panel.x_title)
    axes.set_title(panel.title, fontsize=10, parse_math=False)
    axes.legend(fontsize=8)
