"""What a switch of task costs: the same runs with one task and with another task each time, for 5 and 1,000 tasks.

    python benchmarks/switch_tasks.py BUNDLE

Writes results/benchmarks/switch_tasks.json. The rows beyond the bundle's own are copies with small random changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import write_results

from bitfit_export.bench import time_in_turn
from bitfit_export.bundle import BiasRow, read_row, row_file, write_row
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.table import BiasTable

ROUNDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=Path, default=Path("demo/benchmark-rows"), help="a scratch folder for rows")
    arguments = parser.parse_args()
    measured = {str(count): measure(arguments.bundle, count, arguments.rows) for count in (5, 1000)}
    for count, figures in measured.items():
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
        print(f"{count} tasks: {shown}", file=sys.stderr)
    print(write_results("switch_tasks", measured))


def measure(bundle: Path, count: int, scratch: Path) -> dict[str, float]:
    """Microseconds, median: a run of one task, a run after a switch, and choosing a task's row by itself."""
    session = BiasSession(bundle, threads=1)
    rows = make_rows(session, bundle, count)
    load_rows(session, rows, scratch)
    names = [row.task for row in rows]
    text = session.encode(["Which task is this?"])
    switching = itertools.cycle(shuffled(names))
    seconds = time_in_turn(
        {
            "same task": lambda: session.run(names[0], **text),
            "another task each time": lambda: session.run(next(switching), **text),
        },
        rounds=ROUNDS,
    )
    micros = {f"{name} (us)": value * 1e6 for name, value in seconds.items()}
    return micros | {
        "ratio": seconds["another task each time"] / seconds["same task"],
        "choosing a row (us)": time_choice(session, rows) * 1e6,
    }


def make_rows(session: BiasSession, bundle: Path, count: int) -> list[BiasRow]:
    """Copies of the bundle's first row under other names."""
    row = read_row(bundle / row_file(session.tasks[0]), layout=session.manifest.layout)
    random = np.random.default_rng(1)
    noise = [random.normal(0, 1e-3, row.biases.shape).astype(np.float32) for _ in range(count)]
    return [
        dataclasses.replace(row, task=f"copy-{number}", biases=row.biases + change)
        for number, change in enumerate(noise)
    ]


def load_rows(session: BiasSession, rows: Sequence[BiasRow], scratch: Path) -> None:
    """Load rows as a user does, from files; the session then has these tasks alone."""
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "copy.bias"
    own = session.tasks
    for row in rows:
        write_row(path, row)
        session.load_task(path)
    for name in own:
        session.unload_task(name)
    path.unlink(missing_ok=True)


def time_choice(session: BiasSession, rows: Sequence[BiasRow]) -> float:
    """Seconds that choosing a task's row takes: all that a switch adds to a run, and too little to be seen in one."""
    table = BiasTable(session.manifest.layout, rows=len(rows), labels=max(row.labels for row in rows))
    for row in rows:
        table.add(row)
    order = [[name] for name in shuffled([row.task for row in rows])]

    def choose_all() -> None:
        for name in order:
            with table.lease(name):
                pass

    return time_in_turn({"choose": choose_all}, rounds=50)["choose"] / len(order)


def shuffled(names: Sequence[str]) -> list[str]:
    return [str(name) for name in np.random.default_rng(0).permutation(names)]


if __name__ == "__main__":
    main()
