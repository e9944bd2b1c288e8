"""Ship the best BitFit run of each task: its delta goes into the package, with a card that has the comparison.

    python examples/train_shipped_deltas/publish.py

Reads what `train.py` left in `results/` and `runs/`, and `notes.json`: a paragraph for a task's card. Prints the table
of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from train import ROOT

from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import SHIPPED
from bitfit_export.training.model_card import ComparedRun, render_card
from bitfit_export.training.tasks import GLUE_TASKS

#: By which the best run is chosen, where the task is not one of GLUE's.
_METRICS = {"ewt": "accuracy", "squad": "f1"}
METHOD_NAMES = {"bitfit": "BitFit", "frozen": "head only, frozen body", "full": "full fine-tuning"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l6")
    model = parser.parse_args().model
    notes = json.loads((Path(__file__).parent / "notes.json").read_text())
    files = sorted((ROOT / "results" / model).glob("*.json"))
    results = {path.stem: json.loads(path.read_text()) for path in files}
    print("| task | metric | " + " | ".join(METHOD_NAMES.values()) + " |")
    print("| --- | --- |" + " --- |" * len(METHOD_NAMES))
    for task in sorted({record["task"] for record in results.values()}):
        own = {name: record for name, record in results.items() if record["task"] == task}
        publish(model, task, own, notes.get(task, ""))
        print(_line(task, own))


def _line(task: str, results: dict[str, dict[str, Any]]) -> str:
    """A line of the table of docs/results.md: the best run of each method."""
    metric = metric_of(task)
    best = [_best(results, method, metric) for method in METHOD_NAMES]
    cells = ["not run yet" if name is None else f"{results[name]['metrics'][metric]:.3f}" for name in best]
    return " | ".join([f"| {task}", metric.replace("_", " "), *cells]) + " |"


def metric_of(task: str) -> str:
    return _METRICS.get(task) or GLUE_TASKS[task].metrics[0]


def publish(model: str, task: str, results: dict[str, dict[str, Any]], notes: str) -> None:
    """Write the package's delta of one task."""
    metric = metric_of(task)
    best = {method: _best(results, method, metric) for method in METHOD_NAMES}
    if best["bitfit"] is None:
        return
    kept = ROOT / "runs" / model / f"{best['bitfit']}.delta"
    delta = _delta_of(kept, results[best["bitfit"]], SHIPPED / model / task)
    runs = [_compared(METHOD_NAMES[method], results[name]) for method, name in best.items() if name is not None]
    text = f"{_tried(results, metric)}\n{notes}\n" if notes else _tried(results, metric)
    delta.save(SHIPPED / model / task, card=render_card(delta, model, runs, text), overwrite=True)


def _delta_of(kept: Path, record: dict[str, Any], shipped: Path) -> TaskDelta:
    """The delta of a run: kept by `train.py`, or shipped already, which shows in its record."""
    delta = TaskDelta.load(kept if kept.exists() else shipped)
    if delta.config.training != record["settings"]:
        raise SystemExit(f"{kept} is not there; train it again: remove results/*/{kept.stem}.json and run train.py")
    return delta


def _best(results: dict[str, dict[str, Any]], method: str, metric: str) -> str | None:
    names = [name for name, record in results.items() if record["method"] == method]
    return max(names, key=lambda name: results[name]["metrics"][metric], default=None)


def _compared(name: str, record: dict[str, Any]) -> ComparedRun:
    trained = record["trained_parameters"]
    return ComparedRun(
        name=f"{name}, {record['settings']['epochs']} epochs",
        trained=trained["base"] + trained["head"],
        pooling=record["settings"]["pooling"],
        learning_rate=record["settings"]["learning_rate"],
        best_epoch=record["best_epoch"],
        metrics=record["metrics"],
    )


def _tried(results: dict[str, dict[str, Any]], metric: str) -> str:
    """Every run of the task, so that a reader sees what the best one was chosen from."""
    lines = [
        f"| {record['method']} | {record['settings']['pooling']} | {record['settings']['learning_rate']:g} | "
        f"{record['settings']['epochs']} | {record['metrics'][metric]:.4f} |"
        for _, record in sorted(results.items())
    ]
    header = f"| method | pooling | learning rate | epochs | {metric} |"
    return "\n".join(["## What was tried\n", header, "| --- | --- | --- | --- | --- |", *lines, ""])


if __name__ == "__main__":
    main()
