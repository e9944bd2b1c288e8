"""Merge a task delta into its base model: a checkpoint that transformers loads, with the same logits.

example: bitfit merge minilm-l6 deltas/minilm-l6/spam --output spam-model
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.base_model.loading import load_base_model
from bitfit_export.base_model.source import ALIASES, resolve_model
from bitfit_export.cli.streams import say
from bitfit_export.delta import TaskDelta
from bitfit_export.files import check_output
from bitfit_export.interop.merging import MERGED, merge_task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help=f"{', '.join(ALIASES)}, a Hub id, or a folder")
    parser.add_argument("delta", type=Path, metavar="DELTA", help="a delta's folder")
    parser.add_argument("--revision", help="the base model's revision on the Hub (the delta's)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the checkpoint's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")


def run(options: argparse.Namespace) -> int:
    source = resolve_model(options.base)
    replaces = MERGED if options.overwrite else None
    check_output(options.output, inputs=[source.location, options.delta], replaces=replaces)
    delta = TaskDelta.load(options.delta)
    recorded = delta.config.base_revision if source.name == delta.config.base_model else None
    base = load_base_model(options.base, revision=options.revision or recorded)
    made = merge_task(base, delta, options.output, overwrite=options.overwrite)
    say(f"{made}: the logits are those of {base.source.name} with {delta.config.task}")
    print(options.output)
    return 0
