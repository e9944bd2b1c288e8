"""Compare a bundle with PyTorch, on every task and on mixed batches. Exit status 1 when they differ.

example: bitfit verify bundles/minilm-l6
         bitfit verify bundles/minilm-l6 --files     its files with the manifest alone, by SHA-256; without PyTorch
         bitfit verify bundles/small --headroom --row new.bias    what tasks use of the ranges of an int8 bundle
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.source import ALIASES, resolve_model
from bitfit_export.bundle import Manifest, check_files, read_manifest, read_recorded_row, read_row
from bitfit_export.cli.engine_choice import add_engine_arguments, engine_options
from bitfit_export.cli.text_tables import print_comparisons, print_table
from bitfit_export.cli.words import words
from bitfit_export.compiler.calibration.sample_texts import SAMPLE_PAIRS, SAMPLE_TEXTS
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import UsageError, shown
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas
from bitfit_export.verification.bundle import verify_bundle
from bitfit_export.verification.headroom import measure_headroom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--files", action="store_true", help="compare the files with the manifest, and nothing else")
    parser.add_argument(
        "--headroom", action="store_true", help="show how much of an int8 or int8-static bundle's ranges each task uses"
    )
    parser.add_argument(
        "--row", action="append", default=[], type=Path, help="with --headroom: a bias row besides the bundle's"
    )
    parser.add_argument("--model", help="the base model, where it is not the one that the manifest names")
    parser.add_argument("--add-biases", action="store_true", help="as it was given to bitfit-export")
    parser.add_argument("--deltas", type=Path, help="folder with a delta for each task")
    parser.add_argument("--tasks", help="the tasks to compare; NAME=PATH names a delta's folder (all of the bundle's)")
    add_engine_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the ids (%(default)s)")


def run(options: argparse.Namespace) -> int:
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}, expected 0 or more")
    if options.files:
        print(describe_files(options.bundle))
        return 0
    if options.row and not options.headroom:
        raise UsageError("--row goes with --headroom", hint="bitfit verify BUNDLE --headroom --row FILE")
    manifest = read_manifest(options.bundle)
    if options.headroom:
        _print_headroom(options.bundle, manifest, words(options.tasks) if options.tasks else (), options.row)
        return 0
    base, deltas = tasks_of_bundle(
        manifest, options.model, options.tasks, options.deltas, add_biases=options.add_biases
    )
    report = verify_bundle(
        options.bundle,
        base,
        deltas,
        seed=options.seed,
        engine=options.engine,
        engine_options=engine_options(options),
    )
    print_comparisons(report)
    return 0


def describe_files(bundle: Path) -> str:
    """Check every file of a bundle by its manifest: sizes, CRC-32C, SHA-256, and all that rows say of themselves.

    Raises:
        BundleError: one that differs; RowError, if it is a row.
    """
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hash_files=True)
    for task in manifest.tasks.values():
        read_recorded_row(bundle, manifest, task)
    return f"{len(manifest.files)} files and {len(manifest.tasks)} rows are those of the manifest"


def _print_headroom(bundle: Path, manifest: Manifest, tasks: Sequence[str], files: Sequence[Path]) -> None:
    unknown = [task for task in tasks if task not in manifest.tasks]
    if unknown:
        raise UsageError(f"the bundle has no task {shown(unknown[0])}, expected one of {', '.join(manifest.tasks)}")
    rows = [read_recorded_row(bundle, manifest, manifest.tasks[task]) for task in tasks or manifest.tasks]
    rows += [read_row(path, layout=manifest.layout) for path in files]
    found = measure_headroom(bundle, rows, [*SAMPLE_TEXTS, *SAMPLE_PAIRS])
    print_table(
        ("task", "largest / range", "when calibrated", "product", "beyond the range"),
        [
            (each.task, f"{each.used:.2f}", f"{each.calibrated:.2f}", each.product, f"{each.saturated:.4%}")
            for each in found
        ],
        stream=sys.stdout,
    )


def tasks_of_bundle(
    manifest: Manifest, model: str | None, tasks: str | None, folder: Path | None, *, add_biases: bool = False
) -> tuple[BaseModel, dict[str, TaskDelta]]:
    """The base model of a bundle, and the deltas of its tasks."""
    # A Hub id has an alias by which its deltas are filed; a folder's name is not a place, so it must be given.
    aliases = {hub_id: alias for alias, hub_id in ALIASES.items()}
    model = model or aliases.get(manifest.base.name, manifest.base.name)
    found = find_deltas(resolve_model(model).short_name, words(tasks) if tasks else tuple(manifest.tasks), folder)
    base = load_base_model(model, revision=manifest.base.revision, add_biases=add_biases)
    return base, load_deltas(found, base)
