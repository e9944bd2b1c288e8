"""Time a bundle beside single-task baselines of its precision, in one run: one task, and mixed batches.

example: bitfit bench bundles/minilm-l6 --threads 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.baselines.timing import SHAPES, ShapeTimes, bench_bundle
from bitfit_export.bundle import read_manifest
from bitfit_export.cli.engine_choice import add_engine_arguments, engine_options
from bitfit_export.cli.streams import json_text, say
from bitfit_export.cli.text_tables import print_table
from bitfit_export.cli.verify import tasks_of_bundle
from bitfit_export.cli.words import names
from bitfit_export.errors import UsageError
from bitfit_export.runtime.threads import check_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--model", help="the base model (the one that the manifest names)")
    parser.add_argument("--add-biases", action="store_true", help="as given to bitfit-export")
    parser.add_argument("--deltas", type=Path, help="folder with a delta for each task")
    parser.add_argument(
        "--task", help="the baseline model's task (the bundle's first); NAME=PATH names a delta's folder"
    )
    usual = ",".join(f"{batch}x{sequence}" for batch, sequence in SHAPES)
    parser.add_argument(
        "--shapes", help=f"BATCHxSEQUENCE, separated by commas ({usual}; the bundle's own where it is fixed)"
    )
    parser.add_argument("--rounds", type=int, default=30, help="the number of runs of each model (%(default)s)")
    add_engine_arguments(parser)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument("--check-hashes", action="store_true", help="also compare the SHA-256 of the bundle's files")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise UsageError(f"--rounds is {options.rounds}, expected at least 1")
    check_threads(options.threads, "--threads")
    shapes = parse_shapes(options.shapes) if options.shapes is not None else None
    manifest = read_manifest(options.bundle)
    wanted = options.task or next(iter(manifest.tasks))
    task = wanted.partition("=")[0]
    if task not in manifest.tasks:
        raise UsageError(f"--task is {task!r}, expected one of the bundle's: {', '.join(manifest.tasks)}")
    base, deltas = tasks_of_bundle(manifest, options.model, wanted, options.deltas, add_biases=options.add_biases)
    say(f"exporting {task} as baselines in {manifest.precision}")
    times = list(
        bench_bundle(
            options.bundle,
            base,
            task,
            deltas[task],
            engine=options.engine,
            engine_options=engine_options(options),
            threads=options.threads,
            rounds=options.rounds,
            shapes=shapes,
            check_hashes=options.check_hashes,
            on_refused=lambda name, reason: say(f"no baseline model by {name}: {reason}"),
        )
    )
    print_times(times)
    if options.json:
        print(json_text({f"{each.batch}x{each.sequence}": each.describe() for each in times}, indent=2))
    return 0


def parse_shapes(text: str) -> list[tuple[int, int]]:
    """`1x16,8x128` as pairs of batch and sequence.

    Raises:
        UsageError: anything else.
    """
    shapes = []
    for word in names("--shapes", text):
        batch, _, sequence = word.partition("x")
        if not (batch.isdecimal() and sequence.isdecimal() and int(batch) and int(sequence)):
            raise UsageError(f"--shapes has {word!r}, expected BATCHxSEQUENCE", hint="for example 1x16,8x128")
        shapes.append((int(batch), int(sequence)))
    return shapes


def print_times(times: list[ShapeTimes]) -> None:
    """A line a shape: milliseconds, and in brackets the ratio to the fastest baseline model."""
    columns = list(times[0].describe())
    lines = []
    for each in times:
        cells = each.describe()
        shown = [f"{cells[name]['ms']:.2f} ms ({cells[name]['of baseline']:.2f})" for name in columns]
        lines.append([f"{each.batch} x {each.sequence}", *shown])
    print_table(("batch x sequence", *columns), lines)
