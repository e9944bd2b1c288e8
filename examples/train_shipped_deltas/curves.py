"""How each run went, epoch by epoch: prints the tables of docs/training.md, and draws their figures.

    python examples/train_shipped_deltas/curves.py --model minilm-l6 --figure docs/training-minilm-l6.svg

Reads what `train.py` left in `results/`. A test fails where the page lacks a run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publish import METHOD_NAMES, metric_of
from train import ROOT

from bitfit_export.delta.plots import render
from bitfit_export.experiments.reproduce.report import markdown_table
from bitfit_export.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"bitfit": "#0072b2", "frozen": "#999999", "full": "#e69f00"}
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_COLUMNS = 4

Runs = Mapping[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw the curves into this file")
    arguments = parser.parse_args()
    runs = read_runs(arguments.model)
    print(table(runs), end="")
    if arguments.figure is not None:
        write_bytes(arguments.figure, render(lambda: draw(runs), "svg"))


def read_runs(model: str) -> Runs:
    """The results of a model by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "results" / model).glob("*.json"))}


def table(runs: Runs) -> str:
    """Each run in a line: its settings, and its metric after the first and the best epoch."""
    header = ("task", "method", "pooling", "learning rate", "epochs", "metric", "epoch 1", "best", "in epoch")
    rows = []
    for run in runs.values():
        settings, values = run["settings"], history_of(run)
        how = [
            METHOD_NAMES[run["method"]],
            settings["pooling"],
            f"{settings['learning_rate']:g}",
            str(settings["epochs"]),
        ]
        best = [f"{values[0]:.3f}", f"{max(values):.3f}", str(values.index(max(values)) + 1)]
        rows.append([run["task"], *how, metric_of(run["task"]).replace("_", " "), *best])
    return markdown_table(header, rows)


def history_of(run: Mapping[str, Any]) -> list[float]:
    """The task's metric after each epoch."""
    return [float(epoch[metric_of(run["task"])]) for epoch in run["history"]]


def draw(runs: Runs) -> Figure:
    """A panel for each task that was trained for more than one epoch."""
    from matplotlib.figure import Figure

    tasks = sorted({run["task"] for run in runs.values() if len(run["history"]) > 1})
    rows = -(-len(tasks) // _COLUMNS)
    figure = Figure(figsize=(3.4 * min(len(tasks), _COLUMNS), 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, min(len(tasks), _COLUMNS), squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        draw_task(axes, task, [run for run in runs.values() if run["task"] == task])
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    return figure


def draw_task(axes: Axes, task: str, runs: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    seen = dict.fromkeys(_COLOURS, 0)
    for run in runs:
        method, settings, values = run["method"], run["settings"], history_of(run)
        axes.plot(
            range(1, len(values) + 1),
            values,
            linestyle=_STYLES[seen[method] % len(_STYLES)],
            color=_COLOURS[method],
            marker=".",
            label=f"{method}, {settings['pooling']}, {settings['learning_rate']:g}",
        )
        seen[method] += 1
    axes.set_title(f"{task}: {metric_of(task).replace('_', ' ')}", fontsize=9)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6)


if __name__ == "__main__":
    main()
