"""How fast bundles are: beside baseline models of the same precision, and other runtimes, in turn in one process.

    python benchmarks/speed.py --model bert-base --threads 1 [--precisions fp32,int8] [--shapes 1x16,8x128]

With one thread the clock is the process's CPU time, which other processes disturb less; with more it is wall-clock
time, with a short rest before each call. Figures are medians over rounds; a ratio is the median of the rounds' own
ratios, to the fastest baseline model of the precision at that shape. All models are opened several times, and the
rounds counted together: two sessions of one model differ by up to a tenth, by where their weights lie in memory. Writes
results/benchmarks/speed-<model>-<threads>.json, precision by precision, and resumes where it stopped.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common import Results, clock_for, make_parser, say
from contenders import MIXED, ONE_BY_ONE, TABLE, Lineup, make_lineup
from models import MODELS, TASKS, Workbench, prepare

from bitfit_export.baselines.exports import random_ids
from bitfit_export.baselines.timing import BASELINE, Times, time_in_turn
from bitfit_export.bundle.manifest import PRECISIONS
from bitfit_export.cli.bench import parse_shapes
from bitfit_export.errors import BitfitError

SHAPES = "1x16,1x32,1x64,1x128,8x16,8x32,8x128"
#: Comparisons of contenders with each other, by the names that results have.
TASK_PAIR, SHORT_PAIR = "mixed / one task", "mixed / item by item"
PAIRS = {TASK_PAIR: (MIXED, TABLE), SHORT_PAIR: (MIXED, ONE_BY_ONE)}


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", default="fp32,int8", help=f"of {', '.join(PRECISIONS)} (%(default)s)")
    parser.add_argument("--shapes", default=SHAPES, help="BATCHxSEQUENCE (%(default)s)")
    parser.add_argument("--openings", type=int, default=5, help="of all models (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="of each opening, at most (%(default)s)")
    parser.add_argument("--leave-out", default="", help="contenders whose names have one of these words, by commas")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds per opening and shape, about (%(default)s)")
    arguments = parser.parse_args(words)
    settings = {
        "model": arguments.model,
        "threads": arguments.threads,
        "tasks": TASKS,
        "clock": clock_for(arguments.threads).name,
        "openings": arguments.openings,
    }
    results = Results(arguments.results, f"speed-{arguments.model}-{arguments.threads}", settings)
    bench = prepare(arguments.model, arguments.scratch)
    for precision in arguments.precisions.split(","):
        shapes = [shape for shape in arguments.shapes.split(",") if shape not in _done(results, precision)]
        if shapes:
            measure(bench, precision, shapes, arguments, results)
    print(results.save())


def measure(bench: Workbench, precision: str, shapes: Sequence[str], arguments: Any, results: Results) -> None:
    """Time one precision's contenders at these shapes."""
    seconds: dict[str, dict[str, list[float]]] = {shape: {} for shape in shapes}
    for opening in range(arguments.openings):
        try:
            left_out = list(filter(None, arguments.leave_out.split(",")))
            lineup = make_lineup(bench, precision, arguments.threads, left_out)
        except BitfitError as error:
            lineup = Lineup(refused={"all": error.message})
        for shape in shapes:
            for name, each in time_shape(bench, lineup, shape, arguments).items():
                seconds[shape].setdefault(name, []).extend(each)
        say(f"{bench.name} {precision}: {opening + 1} of {arguments.openings} openings")
        results.measured.setdefault("refused", {})[precision] = lineup.refused
        del lineup
        gc.collect()
    for shape, found in seconds.items():
        if found:
            # A contender that failed in one opening is left out of all.
            rounds = max(map(len, found.values()))
            found = {name: each for name, each in found.items() if len(each) == rounds}
            _done(results, precision)[shape] = describe(Times(found))
            say(f"{bench.name} {precision} {shape}: {shown(_done(results, precision)[shape])}")
    results.save()
    for name, reason in results.measured["refused"][precision].items():
        say(f"{bench.name} {precision}, {name}: {reason}")


def time_shape(bench: Workbench, lineup: Lineup, shape: str, arguments: Any) -> Mapping[str, Sequence[float]]:
    """The seconds of each contender in each round; none without a baseline model."""
    ((batch, sequence),) = parse_shapes(shape)
    clock = clock_for(arguments.threads)
    work = lineup.work(random_ids(bench.base, batch, sequence))
    if not any(name.startswith(BASELINE) for name in work):
        return {}
    times = time_in_turn(
        work, rounds=arguments.rounds, warm_up=1, clock=clock.seconds, limit=arguments.limit, pause=clock.pause
    )
    return times.seconds


def describe(times: Times) -> dict[str, Any]:
    """Milliseconds, the ratio to the fastest baseline model and its quartiles, for each contender; and the pairs."""
    baseline = times.fastest(name for name in times.seconds if name.startswith(BASELINE))
    contenders = {}
    for name in times.seconds:
        low, middle, high = statistics.quantiles(times.ratios(name, baseline), n=4, method="inclusive")
        contenders[name] = {"ms": times.median(name) * 1e3, "ratio": middle, "quartiles": [low, high]}
    pairs = {name: times.ratio(*pair) for name, pair in PAIRS.items() if set(pair) <= set(times.seconds)}
    return {"rounds": times.rounds, "fastest baseline": baseline, "contenders": contenders, "pairs": pairs}


def shown(shape: dict[str, Any]) -> str:
    """The bundles' ratios in a line."""
    ratios = [
        f"{name} {each['ratio']:.3f}" for name, each in shape["contenders"].items() if not name.startswith(BASELINE)
    ]
    return f"of {shape['fastest baseline']}: {'; '.join(ratios)}"


def _done(results: Results, precision: str) -> dict[str, Any]:
    shapes: dict[str, Any] = results.measured.setdefault("shapes", {}).setdefault(precision, {})
    return shapes


if __name__ == "__main__":
    main()
