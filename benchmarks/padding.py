"""What removing padding saves on real texts, and what it costs where there is none to remove.

    python benchmarks/padding.py --model minilm-l6 --threads 1 [--precisions fp32,int8]

Two bundles that differ in `--keep-padding` alone run in turn as raw ONNX Runtime sessions, with another task in each
item. The batches of each size have the lengths of real texts; those of a shape are random ids without any padding.
Times are as in `speed.py`. Writes results/benchmarks/padding-<model>-<threads>.json, and resumes where it stopped.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from common import Clock, Results, clock_for, make_parser, say
from models import MODELS, Workbench, prepare
from raw_session import Raw, open_raw
from servers import prepare_batches
from traffic import (
    BATCHINGS,
    Batch,
    Request,
    add_traffic_options,
    describe_traffic,
    make_requests,
    padding_of,
    read_lengths,
)

from bitfit_export.baselines.timing import time_in_turn
from bitfit_export.cli.bench import parse_shapes

__all__ = ["RATIO"]

RATIO = "removed / kept"
_REMOVED, _KEPT = "removed", "kept"
_OPTIONS: Mapping[str, Mapping[str, bool]] = {_REMOVED: {}, _KEPT: {"keep_padding": True}}


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", default="fp32,int8", help="(%(default)s)")
    parser.add_argument("--batches", default="1,4,8,16,32", help="items in a batch of real lengths (%(default)s)")
    parser.add_argument("--shapes", default="1x16,1x64,8x32,32x128", help="batches without padding (%(default)s)")
    parser.add_argument("--rounds", type=int, default=25, help="at most (%(default)s)")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for each line, about (%(default)s)")
    add_traffic_options(parser, requests=128)
    arguments = parser.parse_args(words)
    bench = prepare(arguments.model, arguments.scratch)
    lengths = read_lengths(arguments.lengths, bench.base.tokenizer)
    requests = make_requests(list(bench.deltas), lengths, arguments.requests)
    clock = clock_for(arguments.threads)
    settings = {"model": bench.name, "threads": arguments.threads, "clock": clock.name}
    settings |= describe_traffic(requests, lengths)
    results = Results(arguments.results, f"padding-{bench.name}-{arguments.threads}", settings)
    cases = make_cases(bench, requests, arguments.batches, arguments.shapes)
    for precision in arguments.precisions.split(","):
        done = results.measured.setdefault(precision, {})
        if done.keys() >= cases.keys():
            continue
        raw = {
            name: open_raw(bench.bundle(layout="table", precision=precision, **options), arguments.threads)
            for name, options in _OPTIONS.items()
        }
        for name, batches in cases.items():
            if name not in done:
                done[name] = measure(bench, raw, batches, arguments.rounds, arguments.limit, clock)
                results.save()
                say(f"{bench.name} {precision}, {name}: {RATIO} {done[name][RATIO]:.3f}")
    print(results.save())


def make_cases(bench: Workbench, requests: Sequence[Request], sizes: str, shapes: str) -> dict[str, list[Batch]]:
    """The batches of each line of the results, by its name."""
    cases = {f"real lengths, batches of {size}": BATCHINGS["mixed"](requests, int(size)) for size in sizes.split(",")}
    for shape in shapes.split(","):
        ((items, sequence),) = parse_shapes(shape)
        batch = [Request(task, sequence) for task in islice(cycle(bench.deltas), items)]
        cases[f"no padding, {items}x{sequence}"] = [batch]
    return cases


def measure(
    bench: Workbench, raw: Mapping[str, Raw], batches: Sequence[Batch], rounds: int, limit: float, clock: Clock
) -> dict[str, Any]:
    """Milliseconds per batch with padding removed and kept, their ratio and its quartiles."""
    prepared = prepare_batches(batches, bench.base.input_names, bench.base.module.config.vocab_size)
    work = {name: functools.partial(run_all, [run(*batch) for batch in prepared]) for name, run in raw.items()}
    times = time_in_turn(work, rounds=rounds, warm_up=1, clock=clock.seconds, limit=limit, pause=clock.pause)
    low, ratio, high = statistics.quantiles(times.ratios(_REMOVED, _KEPT), n=4, method="inclusive")
    milliseconds = {f"{name} (ms)": times.median(name) / len(batches) * 1e3 for name in raw}
    return {"padding": padding_of(batches), **milliseconds, RATIO: ratio, "quartiles": [low, high]}


def run_all(runs: Sequence[Callable[[], object]]) -> None:
    """Run batch after batch."""
    for run in runs:
        run()


if __name__ == "__main__":
    main()
