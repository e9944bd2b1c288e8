"""Draw how each run went, epoch by epoch, and list what it reached: the tables and figures of docs/training.md.

    python examples/train_shipped_deltas/curves.py [--model minilm-l6] --update docs/training.md

Reads what `train.py` left in `results/`. The figure lies beside the page, as `training-<model>.svg`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publish import METHOD_NAMES, metric_of
from train import ROOT

from bitfit_export.delta.plots import render
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
    parser.add_argument("--update", type=Path, metavar="PAGE.md", required=True, help="write them into this page")
    arguments = parser.parse_args()
    runs = read_runs(arguments.model)
    picture = arguments.update.with_name(f"training-{arguments.model}.svg")
    write_bytes(picture, render(lambda: draw(runs), "svg"))
    text = f"![The metric on the dev set, epoch by epoch]({picture.name})\n\n{table(runs)}"
    write_bytes(arguments.update, filled(arguments.update.read_text(), arguments.model, text).encode())


def read_runs(model: str) -> Runs:
    """The results of a model by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "results" / model).glob("*.json"))}


def filled(page: str, model: str, text: str) -> str:
    """The page with this text between the model's marks."""
    begin, end = f"<!-- {model}: written by curves.py -->", f"<!-- {model}: to here -->"
    found = re.sub(f"(?<={re.escape(begin)}\n).*(?={re.escape(end)})", lambda _: f"\n{text}\n", page, flags=re.DOTALL)
    if begin not in page or end not in page:
        sys.exit(f"the page lacks the lines {begin} and {end}")
    return found


def table(runs: Runs) -> str:
    """Each run in a line: its settings, and its metric after the first and the best epoch."""
    lines = ["| task | method | pooling | learning rate | epochs | metric | epoch 1 | best | in epoch |"]
    lines.append("| --- |" + " --- |" * 8)
    for run in runs.values():
        settings, values = run["settings"], history_of(run)
        cells = [run["task"], METHOD_NAMES[run["method"]], settings["pooling"], f"{settings['learning_rate']:g}"]
        cells += [str(settings["epochs"]), metric_of(run["task"]).replace("_", " "), f"{values[0]:.3f}"]
        lines.append(f"| {' | '.join(cells)} | {max(values):.3f} | {values.index(max(values)) + 1} |")
    return "\n".join([*lines, ""])


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
