"""What `BiasSession.run` takes beyond its engine, for each layout.

    python benchmarks/session_overhead.py [--model minilm-l6] [--precision fp32] [--shapes 1x16,8x32] [--rounds 300]

The session, and ONNX Runtime's own `InferenceSession.run` with the same arrays, run in turn in one process with one
thread. Inside of each run the call into ONNX Runtime's library is timed as well. What remains of the run is what Python
takes around the library, which a difference of two whole runs would lose in their noise. "Beyond ONNX Runtime" is what
more of that the session takes than `InferenceSession.run`. Medians, as CPU time of the thread and by the wall clock.
Writes results/benchmarks/session_overhead.json.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import Results, make_parser, say
from models import MODELS, prepare
from onnxruntime.capi import onnxruntime_pybind11_state

from bitfit_export.baselines.exports import random_ids
from bitfit_export.baselines.timing import open_baseline, time_in_turn
from bitfit_export.bundle.interface import LAYOUT_KINDS, MODEL_FILE
from bitfit_export.bundle.manifest import PRECISIONS
from bitfit_export.cli.bench import parse_shapes
from bitfit_export.runtime import BiasSession

SESSION, RAW, MIXED = "session, one task", "InferenceSession.run", "session, mixed tasks"
#: What `InferenceSession` is in C++.
LIBRARY: Any = onnxruntime_pybind11_state.InferenceSession
CLOCKS = ("CPU", "wall")


class TimedLibrary:
    """Stands in for the method `run` of ONNX Runtime's library, and notes the last call and how long it took."""

    def __init__(self) -> None:
        self._run = LIBRARY.run
        self.arguments: tuple[Any, ...] = ()
        self.seconds = np.zeros(len(CLOCKS))

    def run(self, *arguments: Any) -> Any:
        self.arguments = arguments
        started = read_clocks()
        found = self._run(*arguments)
        self.seconds = np.subtract(read_clocks(), started)
        return found


def read_clocks() -> tuple[float, float]:
    """Seconds of each of `CLOCKS`."""
    return time.thread_time(), time.perf_counter()


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--shapes", default="1x16,8x32", help="BATCHxSEQUENCE (%(default)s)")
    parser.add_argument("--rounds", type=int, default=300, help="at most (%(default)s)")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds per layout and shape, about (%(default)s)")
    arguments = parser.parse_args(words)
    settings = {name: getattr(arguments, name) for name in ("model", "precision", "rounds")}
    results = Results(arguments.results, "session_overhead", settings)
    bench = prepare(arguments.model, arguments.scratch)
    for layout, shape in itertools.product(LAYOUT_KINDS, arguments.shapes.split(",")):
        figures = results.measured.setdefault(layout, {})
        if shape not in figures:
            bundle = bench.bundle(layout=layout, precision=arguments.precision)
            ids = random_ids(bench.base, *parse_shapes(shape)[0])
            figures[shape] = measure(bundle, bench.task, ids, arguments.rounds, arguments.limit)
            results.save()
            say(f"{layout} {shape}: {figures[shape]}")
    print(results.save())


def measure(
    bundle: Path, task: str, ids: Mapping[str, np.ndarray], rounds: int, limit: float
) -> dict[str, dict[str, float]]:
    """Milliseconds of each contender, and microseconds in Python around the library."""
    library = TimedLibrary()
    with mock.patch.object(LIBRARY, "run", lambda *arguments: library.run(*arguments)):
        session = BiasSession(bundle, threads=1)
        raw = open_baseline(bundle / MODEL_FILE, 1)
        session.run(task, **ids)
        outputs, feeds = library.arguments[1:3]
        calls: dict[str, Callable[[], object]] = {
            SESSION: lambda: session.run(task, **ids),
            RAW: lambda: raw.run(outputs, feeds),
        }
        rows = len(ids["input_ids"])
        if session.manifest.layout_kind == "table" and rows > 1:
            mixed = list(itertools.islice(itertools.cycle(session.tasks), rows))
            calls[MIXED] = lambda: session.run(mixed, **ids)
        around: dict[str, list[np.ndarray]] = {name: [] for name in calls}

        def timed(name: str) -> None:
            started = read_clocks()
            calls[name]()
            whole = np.subtract(read_clocks(), started)
            around[name].append(whole - library.seconds)

        work = {name: functools.partial(timed, name) for name in calls}
        times = time_in_turn(work, rounds=rounds, warm_up=0, clock=time.thread_time, limit=limit)
    figures = {name: {"CPU (ms)": times.median(name) * 1e3} for name in work}
    for name, each in around.items():
        more = np.subtract(each, around[RAW])
        for clock, one, two in zip(CLOCKS, np.median(each, axis=0), np.median(more, axis=0), strict=True):
            figures[name][f"around the library, {clock} (us)"] = float(one) * 1e6
            if name != RAW:
                figures[name][f"beyond ONNX Runtime, {clock} (us)"] = float(two) * 1e6
    return figures


if __name__ == "__main__":
    main()
