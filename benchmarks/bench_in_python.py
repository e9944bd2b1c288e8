"""The process that `cpp_runtime.py` measures beside `bitfit_bench`: the same work by the Python session.

    python benchmarks/bench_in_python.py BUNDLE [--rounds N] [--shapes ROWSxTOKENS,...] [--tasks N,...]

It prints one line of JSON with the keys that `bitfit_bench` has, whose work it follows step by step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import memory
import numpy as np

from bitfit_export.bundle import row_file
from bitfit_export.runtime import BiasSession

_TEXT = "A warm, funny film."


def main() -> None:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--shapes", default="1x128")
    parser.add_argument("--tasks", default="1")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    session = BiasSession(arguments.bundle, threads=1)
    report["open_ms"] = (time.perf_counter() - started) * 1e3
    task = session.tasks[0]
    session.predict([_TEXT], task)
    report["first_answer_ms"] = (time.perf_counter() - started) * 1e3
    report["peak_memory_mb_after_first_answer"] = memory.peak() / 1e6
    shapes = [(int(rows), int(tokens)) for rows, tokens in (each.split("x") for each in arguments.shapes.split(","))]
    report["runs"] = {
        f"{rows}x{tokens}": time_shape(session, rows, tokens, arguments.rounds) for rows, tokens in shapes
    }
    row = arguments.bundle / row_file(task)
    counts = [int(count) for count in arguments.tasks.split(",")]
    report["switch"] = {str(count): time_switch(session, row, count, arguments.rounds) for count in counts}
    report["peak_memory_mb"] = memory.peak() / 1e6
    print(json.dumps(report))


def time_shape(session: BiasSession, rows: int, tokens: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a batch of one task, and of one in which neighbours have different tasks."""
    run = runner(session, rows, tokens)
    mixed = [session.tasks[row % len(session.tasks)] for row in range(rows)]
    run([session.tasks[0]])
    one_times, mixed_times = [], []
    for _ in range(rounds):
        one_times.append(run([session.tasks[0]]))
        if rows > 1:
            mixed_times.append(run(mixed))
    times = {"one_task_ms": statistics.median(one_times) * 1e3}
    return times | ({"mixed_ms": statistics.median(mixed_times) * 1e3} if mixed_times else {})


def time_switch(session: BiasSession, row: Path, count: int, rounds: int) -> dict[str, float]:
    """Microseconds of the smallest batch with the same task each time and with another one, of `count` tasks."""
    for name in session.tasks[count:]:
        session.unload_task(name)
    loads = range(len(session.tasks), count)
    started = time.perf_counter()
    for number in loads:
        session.load_task(row, name=f"copy-{number}")
    seconds = time.perf_counter() - started
    run, names = runner(session, 1, 1), session.tasks
    run([names[0]])
    same, other = [], []
    for number in range(rounds * 10):
        same += [run([names[0]]), run([names[0]])]
        other += [run([names[(number * factor + 1) % len(names)]]) for factor in (37, 91)]
    times = {"same_task_us": statistics.median(same) * 1e6, "other_task_us": statistics.median(other) * 1e6}
    return times | ({"load_task_ms": seconds * 1e3 / len(loads)} if loads else {})


def runner(session: BiasSession, rows: int, tokens: int) -> Callable[[Sequence[str]], float]:
    """A function that runs a batch and gives the seconds that it took."""
    ids = np.ones((rows, tokens), np.int64)

    def run(tasks: Sequence[str]) -> float:
        started = time.perf_counter()
        session.run(tasks[0] if len(tasks) == 1 else tasks, input_ids=ids, attention_mask=ids)
        return time.perf_counter() - started

    return run


if __name__ == "__main__":
    main()
