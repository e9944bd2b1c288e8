"""What a switch of task costs: the same runs with one task and with another task each time, for 5 and 1,000 tasks.

    python benchmarks/switch_tasks.py [--model minilm-l6]

The rows beyond the bundle's own are copies with small random changes. Writes results/benchmarks/switch_tasks.json.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Results, make_parser, say
from models import MODELS, prepare

from bitfit_export.baselines.timing import time_in_turn
from bitfit_export.bundle import BiasRow, read_row, row_file, write_row
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.tasks.bias_table import BiasTable

COUNTS = (5, 1000)


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args(words)
    results = Results(arguments.results, "switch_tasks", {"model": arguments.model, "rounds": arguments.rounds})
    bench = prepare(arguments.model, arguments.scratch)
    bundle = bench.bundle(layout="table", precision="fp32")
    for count in COUNTS:
        if str(count) not in results.measured:
            figures = measure(bundle, count, bench.folder, arguments.rounds)
            results.measured[str(count)] = figures
            results.save()
            say(f"{count} tasks: {', '.join(f'{name} {value:.3f}' for name, value in figures.items())}")
    print(results.save())


def measure(bundle: Path, count: int, scratch: Path, rounds: int) -> dict[str, float]:
    """Microseconds, median: a run of one task, a run after a switch, and choosing a task's row by itself."""
    session = BiasSession(bundle, threads=1)
    rows = make_rows(session, bundle, count)
    load_rows(session, rows, scratch)
    names = [row.task for row in rows]
    text = session.encode(["Which task is this?"])
    switching = itertools.cycle(shuffled(names))
    same, other = "same task", "another task each time"
    times = time_in_turn(
        {
            same: lambda: session.run(names[0], **text),
            other: lambda: session.run(next(switching), **text),
        },
        rounds=rounds,
    )
    micros = {f"{name} (us)": times.median(name) * 1e6 for name in (same, other)}
    return micros | {
        "ratio": times.ratio(other, same),
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
    table = BiasTable(session.manifest.layout, dict, rows=len(rows), labels=max(row.labels for row in rows))
    for row in rows:
        table.add(row)
    order = [[name] for name in shuffled([row.task for row in rows])]

    def choose_all() -> None:
        for name in order:
            with table.lease(name):
                pass

    return time_in_turn({"choose": choose_all}, rounds=50).median("choose") / len(order)


def shuffled(names: Sequence[str]) -> list[str]:
    return [str(name) for name in np.random.default_rng(0).permutation(names)]


if __name__ == "__main__":
    main()
