"""Train the deltas that the package ships, beside a frozen body and full fine-tuning with the same budget.

    python examples/train_shipped_deltas/train.py --data DIR [--model mpnet-base --model-folder DIR] [--runs 1,2]

Every run of `runs/<model>.json` is trained once: its result goes to `results/<model>/` as JSON when it ends, and a run
that has a result is skipped, so an interrupted sweep resumes where it stopped. The delta of each bitfit run is
kept under `runs/`. No time is recorded, for a run that was interrupted has none. `publish.py` then ships the best run
of each task.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.source import resolve_model
from bitfit_export.cli.progress import EpochReport
from bitfit_export.files import canonical_json, write_bytes
from bitfit_export.training import TrainingSettings, load_task_data, train_task
from bitfit_export.training.stored_names import from_stored

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with rte/, sst2/, ... (see docs/guide.md)")
    parser.add_argument("--model", default="minilm-l6", help="one of the names that --model of bitfit-train knows")
    parser.add_argument("--model-folder", type=Path, help="the model's files (the Hub, its cache or a package)")
    parser.add_argument("--runs", default="", help="numbers of the runs to train, from 1, comma-separated (all)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = json.loads((HERE / "runs" / f"{arguments.model}.json").read_text())
    base = load_base_model(str(arguments.model_folder or arguments.model))
    base = replace(base, source=resolve_model(arguments.model))
    chosen = [int(number) for number in filter(None, arguments.runs.split(","))] or range(1, len(runs) + 1)
    for number in chosen:
        train_once(base, arguments.data, runs[number - 1], number)


def run_name(run: dict[str, Any]) -> str:
    """A file name that says what is different about the run."""
    parts = [run["task"], run["method"], run["pooling"], f"{run['learning_rate']:g}", f"{run['epochs']}ep"]
    if "train_rows" in run:
        parts.append(f"{run['train_rows']}ex")
    return "-".join([*parts, f"seed{run.get('seed', 0)}"])


def train_once(base: BaseModel, data_folder: Path, run: dict[str, Any], number: int) -> None:
    """Train one run and write its result, unless there is one."""
    name = run_name(run)
    result_file = ROOT / "results" / base.source.short_name / f"{name}.json"
    if result_file.exists():
        return
    print(f"run {number}: {name}", file=sys.stderr)
    settings = from_stored(run)
    counts = {name: settings.pop(name) for name in ("train_examples", "validation_examples") if name in settings}
    data = load_task_data(settings.pop("task"), data=data_folder, **counts)
    runs = ROOT / "runs" / base.source.short_name
    result = train_task(base, data, TrainingSettings(**settings), runs / name, [EpochReport(data.spec.metrics[0])])
    if result.delta is not None:
        result.delta.save(runs / f"{name}.delta", card="", overwrite=True)
    record = {
        "task": run["task"],
        "method": run["method"],
        "metrics": result.metrics,
        "best_epoch": result.best_epoch,
        "history": result.history,
        "trained_parameters": {"base": result.trained_parameters[0], "head": result.trained_parameters[1]},
        "settings": result.record,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "platform": platform.platform()},
    }
    result_file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(result_file, canonical_json(record))
    print(f"{name}: {result.metrics}", file=sys.stderr)


if __name__ == "__main__":
    main()
