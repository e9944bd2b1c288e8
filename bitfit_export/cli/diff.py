"""List what a fine-tuned checkpoint or a PEFT adapter changed in its base model, and make a task delta of it.

example: bitfit diff bert-base my-finetuned-bert
         bitfit diff bert-base my-finetuned-bert --task spam --output deltas/bert-base/spam
         bitfit-export --model bert-base --tasks spam
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bitfit_export.base_model.loading import load_base_model
from bitfit_export.base_model.source import ALIASES, resolve_model
from bitfit_export.bundle import TASK_NAME
from bitfit_export.cli.streams import json_text, say
from bitfit_export.cli.text_tables import print_table
from bitfit_export.cli.words import words
from bitfit_export.delta import DELTA, PROBLEM_TYPES, TOKEN_PROBLEMS
from bitfit_export.errors import UsageError
from bitfit_export.files import check_output
from bitfit_export.interop.difference import Difference, compare_with_base
from bitfit_export.interop.importing import CHOSEN_REGRESSION, chose_regression, render_import_card, task_of_checkpoint
from bitfit_export.interop.reading import read_checkpoint

#: Of token and span tasks the class says it.
_PROBLEM_TYPES = tuple(name for name in PROBLEM_TYPES if name not in TOKEN_PROBLEMS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help=f"{', '.join(ALIASES)}, a Hub id, or a folder")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a checkpoint or of an adapter")
    parser.add_argument("--revision", help="the base model's revision on the Hub")
    parser.add_argument("--output", type=Path, metavar="DELTA", help="write the task's delta to this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")
    parser.add_argument("--task", help="the task's name (the output folder's)")
    parser.add_argument("--labels", help="label names in id order, separated by commas (the checkpoint's)")
    parser.add_argument(
        "--problem-type",
        choices=_PROBLEM_TYPES,
        help="kind of a sentence task (the checkpoint's, or found from its outputs)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    task = _task_name(options)
    if options.output is not None:
        inputs = [resolve_model(options.base).location, options.checkpoint]
        check_output(options.output, inputs=inputs, replaces=DELTA if options.overwrite else None)
    if not options.checkpoint.is_dir():
        raise UsageError(f"{options.checkpoint} is not a folder", hint="name the folder of a checkpoint or an adapter")
    base = load_base_model(options.base, revision=options.revision)
    checkpoint = read_checkpoint(base, options.checkpoint)
    difference = compare_with_base(base, checkpoint)
    print_difference(difference)
    if options.json:
        print(json_text(describe(difference), indent=2))
    if options.output is None:
        return 0
    delta = task_of_checkpoint(base, checkpoint, task, words(options.labels), options.problem_type)
    if options.problem_type is None and chose_regression(checkpoint, delta):
        say(f"{task}: {CHOSEN_REGRESSION}")
    delta.save(options.output, card=render_import_card(delta, base.source.short_name), overwrite=options.overwrite)
    (say if options.json else print)(str(options.output))
    return 0


def describe(difference: Difference) -> dict[str, Any]:
    """The difference as plain values."""
    return {
        "unchanged": difference.unchanged,
        "weights changed": len(difference.weights),
        "rounded to": difference.rounded,
        "changes": [
            {
                "name": change.name,
                "kind": change.kind,
                "shape": list(change.shape),
                "largest": change.largest,
                "mean": change.mean,
            }
            for change in difference.changes
        ],
        "head": {name: list(shape) for name, shape in difference.head.items()},
    }


def print_difference(difference: Difference) -> None:
    """A line a tensor that is not the base model's, and what follows from them."""
    lines = [
        (change.name, change.kind, _shape(change.shape), _number(change.largest), _number(change.mean))
        for change in difference.changes
    ]
    lines += [(name, "head", _shape(shape), "", "") for name, shape in difference.head.items()]
    print_table(("tensor", "kind", "shape", "largest change", "mean change"), lines)
    changed = len(difference.changes) - len(difference.weights)
    say(
        f"{difference.unchanged} tensors are the base model's, {changed} bias terms changed, "
        f"and {len(difference.weights)} other tensors"
    )


def _task_name(options: argparse.Namespace) -> str:
    if options.output is None:
        if any(option is not None for option in (options.task, options.labels, options.problem_type)):
            raise UsageError("--task, --labels and --problem-type are for a delta", hint="pass --output DELTA as well")
        return ""
    name = str(options.task or options.output.resolve().name)
    if not TASK_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a task's name", hint="pass --task with letters, digits, '.', '_' and '-'")
    return name


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
