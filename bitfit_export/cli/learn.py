"""Learn a task's row from examples, without PyTorch: the bundle's program train_step computes the gradients.

example: bitfit learn bundles/minilm-l6 --task spam --data spam/ --output spam.bias
         bitfit run bundles/minilm-l6 --row spam.bias --text 'You have won'
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bitfit_export.bundle import BiasRow, Manifest, read_row
from bitfit_export.cli.engine_choice import add_engine_arguments, engine_options
from bitfit_export.cli.streams import say
from bitfit_export.cli.words import words
from bitfit_export.errors import InputError, OutputError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, Epoch, LabelledTexts, LearningPlan, LearningSettings
from bitfit_export.runtime.learning.examples import LEARNABLE
from bitfit_export.runtime.learning.plan import megabytes
from bitfit_export.runtime.learning.settings import SCHEDULES
from bitfit_export.training.data import TaskData, load_task_data

_DEFAULTS = LearningSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="folder of a bundle that was exported with --trainable")
    parser.add_argument("--task", required=True, help="the task's name; a GLUE task has its known labels")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the row, such as spam.bias")
    parser.add_argument("--overwrite", action="store_true", help="replace the row if it exists")
    parser.add_argument(
        "--start", metavar="TASK|FILE", help="a task of the bundle or a row to start from (the base model)"
    )
    parser.add_argument("--restart", action="store_true", help="start again instead of resuming an interrupted run")
    parser.add_argument("--threads", type=int, help="threads of a step (the engine's choice)")
    parser.add_argument("--memory", type=int, metavar="MB", help="refuse to learn where that takes more memory")
    add_engine_arguments(parser)
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, help="folder with train.* and dev.* (JSONL, CSV, TSV, Parquet)")
    data.add_argument("--train-file", type=Path, help="training examples, instead of --data")
    data.add_argument("--validation-file", type=Path, help="held-out examples, instead of --data")
    data.add_argument("--columns", help="one text column, or two separated by a comma")
    data.add_argument("--label-column", help="column of the labels")
    data.add_argument("--labels", help="label names in id order, separated by commas")
    data.add_argument("--problem-type", choices=LEARNABLE, help="kind of task (found from the columns)")
    data.add_argument("--train-examples", type=int, help="the number of training examples (all)")
    data.add_argument("--validation-examples", type=int, help="the number of held-out examples (all)")
    learning = parser.add_argument_group("learning")
    for name, kind, text in (
        ("learning-rate", float, "peak learning rate"),
        ("epochs", int, "the number of epochs"),
        ("batch-size", int, "examples in a step"),
        ("part-size", int, "examples that are computed at once, which bounds the memory (a whole batch)"),
        ("warmup", float, "share of the steps in which the rate rises"),
        ("weight-decay", float, "of AdamW"),
        ("clip", float, "the largest norm of a gradient"),
        ("max-length", int, "tokens at which texts are cut"),
        ("seed", int, "of the new head and the order of examples"),
        ("patience", int, "epochs without a better score after which learning ends (never)"),
        ("checkpoint-steps", int, "steps between checkpoints"),
    ):
        default = getattr(_DEFAULTS, name.replace("-", "_"))
        shown = "" if default is None else " (%(default)s)"
        learning.add_argument(f"--{name}", type=kind, default=default, help=text + shown)
    learning.add_argument("--schedule", choices=SCHEDULES, default=_DEFAULTS.schedule, help="of the rate (%(default)s)")
    learning.add_argument("--metric", help="score that chooses the best epoch (that of bitfit-train for the task)")
    learning.add_argument("--balance", action="store_true", help="weigh classes by the inverse of their frequency")


def run(options: argparse.Namespace) -> int:
    chosen = {each.name: getattr(options, each.name) for each in fields(_DEFAULTS) if hasattr(options, each.name)}
    settings = LearningSettings(**chosen)
    if options.output.exists() and not options.overwrite:
        raise OutputError(f"the output {options.output} exists already, expected a new name", hint="pass --overwrite")
    if not options.output.absolute().parent.is_dir():
        raise OutputError(f"the folder of the output {options.output} does not exist", hint="make the folder first")
    data = _read_data(options)
    if settings.metric is None:
        settings = replace(settings, metric=data.spec.metrics[0])
    session = BiasSession(
        options.bundle, engine=options.engine, engine_options=engine_options(options), threads=options.threads
    )
    trainer = BiasTrainer(session)
    checkpoint = options.output.with_name(f".{options.output.name}.learning")
    if options.restart:
        checkpoint.unlink(missing_ok=True)
    elif checkpoint.exists():
        say(f"resuming from {checkpoint}")
    progress = _Progress()
    with progress:
        learnt = trainer.learn(
            options.task,
            LabelledTexts(data.train.texts, data.train.labels),
            LabelledTexts(data.validation.texts, data.validation.labels),
            labels=data.spec.labels,
            problem_type=data.spec.problem_type,
            settings=settings,
            start=_start_row(options.start, options.bundle, session.manifest),
            checkpoint=checkpoint,
            memory_limit=None if options.memory is None else options.memory * 10**6,
            on_plan=_say_plan,
            on_step=progress.step,
            on_epoch=progress.epoch,
        )
    learnt.save(options.output)
    checkpoint.unlink(missing_ok=True)
    say(f"epoch {learnt.best_epoch} is the best: {_scores(learnt.scores)}")
    if learnt.labels:
        say(f"labels in id order: {','.join(learnt.labels)}")
    print(options.output)
    return 0


def _read_data(options: argparse.Namespace) -> TaskData:
    return load_task_data(
        options.task,
        data=options.data,
        train_file=options.train_file,
        validation_file=options.validation_file,
        columns=None if options.columns is None else words(options.columns),
        label_column=options.label_column,
        problem_type=options.problem_type,
        labels=None if options.labels is None else words(options.labels),
        train_examples=options.train_examples,
        validation_examples=options.validation_examples,
    )


def _start_row(start: str | None, bundle: Path, manifest: Manifest) -> BiasRow | None:
    if start is None:
        return None
    if start in manifest.tasks:
        return read_row(bundle / manifest.tasks[start].file, layout=manifest.layout)
    if not Path(start).exists():
        known = ", ".join(sorted(manifest.tasks))
        raise InputError(f"--start {start} is not a file and not a task of the bundle, expected one of {known}")
    return read_row(Path(start), layout=manifest.layout)


def _say_plan(plan: LearningPlan) -> None:
    memory = f", in at most {megabytes(plan.peak_bytes)} of memory" if plan.peak_bytes else ""
    say(
        f"learning {plan.values} values in {plan.steps} steps; at most {plan.part_items} texts of {plan.part_tokens} "
        f"tokens at once{memory}"
    )


class _Progress:
    """A bar over the steps, and a line of scores after each epoch, both on stderr."""

    def __init__(self) -> None:
        self._last = 0
        self._is_terminal = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._clear()

    def step(self, number: int, total: int, loss: float) -> None:
        """Move the bar; on what is no terminal there is none."""
        if self._is_terminal:
            filled = 30 * number // total
            line = f"\rlearning [{'#' * filled}{' ' * (30 - filled)}] {number}/{total}, loss {loss:.4f}"
            sys.stderr.write(line.ljust(self._last))
            sys.stderr.flush()
            self._last = len(line)

    def epoch(self, epoch: Epoch) -> None:
        """Say the scores of an epoch."""
        self._clear()
        say(f"epoch {epoch.number}: {_scores(epoch.scores)}{' (best so far)' if epoch.is_best else ''}")

    def _clear(self) -> None:
        if self._last:
            sys.stderr.write("\r" + " " * self._last + "\r")
            self._last = 0


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
