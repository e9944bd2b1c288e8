"""What a device learns beside what bitfit-train learns, from the same examples with the same settings.

    bitfit-export --model minilm-l6 --tasks sst2,mrpc --trainable --output bundles/minilm-l6
    python benchmarks/learn_scores.py --bundle bundles/minilm-l6 --data glue/ --python device/bin/python

Three programs learn mrpc from all examples and sst2 from 2,000, at the same time: `bitfit learn`, in an environment
that may have the runtime alone, `bitfit_learn` (C++) and `bitfit-train`. They read the same two files. Writes
results/benchmarks/learn_scores-TASK.json: the scores of each epoch and the CPU seconds, and how far the row of C++ is
from Python's. `report.py` makes the table of docs/learning.md of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, make_parser, say
from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, read_row
from bitfit_export.training.data import Examples, TaskData, load_task_data

_ROOT = Path(__file__).resolve().parents[1]
#: The number of training examples of each task, None for all of them; and of epochs.
_TASKS = {"mrpc": (None, 2), "sst2": (2000, 3)}
_SETTINGS = {"learning-rate": "1e-3", "schedule": "linear", "warmup": "0.1", "seed": "0"}
#: The key of the comparison of the two rows.
BESIDE = "C++ beside Python"
_EPOCH = re.compile(r"^epoch \d+: (.*?)(?: \(best so far\))?$", re.MULTILINE)


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="exported with --trainable")
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder for each task")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the device (this one)")
    parser.add_argument("--cpp", type=Path, default=_ROOT / "build/cpp/default/bitfit_learn", help="(%(default)s)")
    parser.add_argument("--tasks", default=",".join(_TASKS), help="(%(default)s)")
    parser.add_argument("--model", default="minilm-l6", help="of the bundle (%(default)s)")
    arguments = parser.parse_args(words)
    for task in arguments.tasks.split(","):
        examples, epochs = _TASKS[task]
        settings = _SETTINGS | {"training examples": examples, "epochs": epochs, "threads": 1}
        results = Results(arguments.results, f"learn_scores-{task}", settings)
        if not results.measured:
            folder = arguments.scratch / "learn_scores" / task
            (folder / "data").mkdir(parents=True, exist_ok=True)
            data = load_task_data(task, data=arguments.data, train_examples=examples)
            labels = _write_examples(data, folder / "data")
            commands = _commands(arguments, folder, ["--task", task, "--labels", labels, "--epochs", str(epochs)])
            results.measured = _run(commands, folder) | {BESIDE: _distance(arguments.bundle, folder)}
            say(f"{task}: {json.dumps(results.measured, indent=2)}")
        print(results.save())


def _write_examples(data: TaskData, folder: Path) -> str:
    """The files that all three read; returns the labels, as `--labels` takes them."""

    def write(name: str, examples: Examples) -> None:
        lines = (
            dict(zip(data.spec.columns, texts, strict=True)) | {"label": data.spec.labels[label]}
            for texts, label in zip(examples.texts, examples.labels, strict=True)
        )
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("train.jsonl", data.train)
    write("dev.jsonl", data.validation)
    return ",".join(data.spec.labels)


def _commands(arguments: argparse.Namespace, folder: Path, own: Sequence[str]) -> dict[str, list[str]]:
    shared = [*own, "--data", str(folder / "data"), "--overwrite", "--restart", "--threads", "1"]
    shared += [word for name, value in _SETTINGS.items() for word in (f"--{name}", value)]
    bundle, module = str(arguments.bundle), ["-m", "bitfit_export"]
    learn = [str(arguments.python), *module, "learn", bundle]
    train = [sys.executable, *module, "train", "--model", arguments.model]
    return {
        "bitfit learn": [*learn, *shared, "--output", str(folder / "python.bias")],
        "bitfit_learn (C++)": [str(arguments.cpp), bundle, *shared, "--output", str(folder / "cpp.bias")],
        "bitfit-train": [*train, *shared, "--output", str(folder / "delta")],
    }


def _run(commands: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Any]:
    """CPU seconds and the scores of each epoch, of which each program says first the one that chooses the epoch."""
    found: dict[str, Any] = {}
    running = {}
    for name, command in commands.items():
        with (folder / f"{name}.log").open("w") as log:
            running[subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log).pid] = name
    while running:
        pid, status, used = os.wait4(-1, 0)
        name = running.pop(pid)
        said = (folder / f"{name}.log").read_text()
        if status:
            sys.exit(f"{name}: {said}")
        epochs = [_scores(line) for line in _EPOCH.findall(said)]
        seconds = used.ru_utime + used.ru_stime
        found[name] = {"CPU seconds": seconds, "epochs": epochs}
        say(f"{name}: {json.dumps(found[name])}")
    return found


def _scores(line: str) -> dict[str, float]:
    return {name: float(value) for name, value in (each.split(" ") for each in line.split(", "))}


def _distance(bundle: Path, folder: Path) -> dict[str, float]:
    """The two rows: their largest difference, and the norm of it as a share of the norm of what was learnt."""
    base = read_row(bundle / "base.bias").biases
    rows = [read_row(folder / f"{name}.bias") for name in ("python", "cpp")]
    first, second = map(_values, rows)
    learnt = np.linalg.norm(rows[0].biases - base)
    return {
        "largest difference": float(np.abs(first - second).max()),
        "norm of the biases' difference / of what was learnt": float(
            np.linalg.norm(rows[0].biases - rows[1].biases) / learnt
        ),
    }


def _values(row: BiasRow) -> NDArray[np.float32]:
    return np.concatenate([row.biases, *(tensor.reshape(-1) for tensor in row.head)])


if __name__ == "__main__":
    main()
