"""How long a prediction takes by the most tokens that a batch may have, which is the default of `batch_tokens`.

    python benchmarks/batch_tokens.py [--model minilm-l6] [--precision fp32] [--limits 128,256,512,1024,2048,4096]

A list of texts with seeded lengths, most of them short and a few near the longest, is predicted with each limit in
turn, in one process with one thread. Ratios are to a batch that is limited by its number of items alone, the median of
the rounds' own; the clock is the process's CPU time. Peak memory is that of a process per limit. Writes
results/benchmarks/batch_tokens.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import memory
import numpy as np
from common import Results, make_parser, say
from models import MODELS, prepare
from processes import run_json

from bitfit_export.baselines.timing import time_in_turn
from bitfit_export.bundle.manifest import PRECISIONS
from bitfit_export.runtime import BiasSession

LIMITS = "128,256,512,1024,2048,4096"
#: More than any batch has.
_UNLIMITED = 2**31 - 1
#: Lengths are lognormal: half of the texts are shorter than this, in words.
_MEDIAN, _SPREAD = 40, 1.0


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--limits", default=LIMITS, help="tokens (%(default)s)")
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", nargs=2, metavar=("BUNDLE", "LIMIT"), help=argparse.SUPPRESS)  # a process of its own
    arguments = parser.parse_args(words)
    if arguments.peak:
        print(json.dumps(peak(Path(arguments.peak[0]), int(arguments.peak[1]), arguments.texts)))
        return
    settings = {name: getattr(arguments, name) for name in ("model", "precision", "limits", "texts", "rounds")}
    results = Results(arguments.results, "batch_tokens", settings)
    bench = prepare(arguments.model, arguments.scratch)
    if not results.measured:
        bundle = bench.bundle(layout="table", precision=arguments.precision)
        limits = [*map(int, arguments.limits.split(",")), _UNLIMITED]
        results.measured = measure(bundle, bench.task, limits, arguments.texts, arguments.rounds)
        say(str(results.measured))
    print(results.save())


def measure(bundle: Path, task: str, limits: Sequence[int], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """The time by each limit over that without one, and the peak of memory."""
    session = BiasSession(bundle, threads=1)
    texts = make_texts(count, session.manifest.max_positions)
    work = {
        str(limit): functools.partial(session.predict, texts, task, truncate=True, batch_tokens=limit)
        for limit in limits
    }
    times = time_in_turn(work, rounds=rounds, warm_up=1, clock=time.process_time)
    figures = {}
    for limit in work:
        held = run_json(Path(__file__).name, "--peak", str(bundle), limit, "--texts", str(count))
        name = "no limit" if limit == str(_UNLIMITED) else f"{limit} tokens"
        figures[name] = {"time / no limit": times.ratio(limit, str(_UNLIMITED)), "peak memory (MB)": held["peak"] / 1e6}
    return figures


def peak(bundle: Path, limit: int, count: int) -> dict[str, int]:
    """The peak of memory of this process after it has predicted all texts."""
    session = BiasSession(bundle, threads=1)
    texts = make_texts(count, session.manifest.max_positions)
    session.predict(texts, session.tasks[0], truncate=True, batch_tokens=limit)
    return {"peak": memory.peak()}


def make_texts(count: int, longest: int) -> list[str]:
    """Texts of seeded lengths, in words of one token."""
    lengths = np.random.default_rng(0).lognormal(np.log(_MEDIAN), _SPREAD, count)
    return ["word " * int(length) for length in lengths.clip(1, longest)]


if __name__ == "__main__":
    main()
