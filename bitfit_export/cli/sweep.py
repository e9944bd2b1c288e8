"""Train tasks x methods x learning rates x seeds, and say which learning rate is the best.

A result is stored as soon as its trial ends; the same command resumes where it stopped.

example: bitfit sweep --model minilm-l6 --tasks rte,mrpc --data glue/ --learning-rates 4e-4,1e-3 --seeds 3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bitfit_export.base_model.source import resolve_model
from bitfit_export.cli.grid import (
    Report,
    add_engine_arguments,
    add_model_arguments,
    add_settings_arguments,
    given_settings,
    seeds,
    train_trials,
    trial_runner_options,
)
from bitfit_export.cli.status import TRIAL_FAILED
from bitfit_export.cli.text_tables import print_table
from bitfit_export.cli.words import add_renamed_option, names, numbers
from bitfit_export.experiments import TaskSummary, Trial, TrialRunner, summarise
from bitfit_export.experiments.trial import parse_method
from bitfit_export.files import canonical_json, write_bytes
from bitfit_export.training import METHODS, TrainingSettings
from bitfit_export.training.settings import FULL_LEARNING_RATES, LEARNING_RATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    sweep = parser.add_argument_group("what is varied")
    sweep.add_argument("--tasks", required=True, help="GLUE tasks, or sub-folders of --data, separated by commas")
    sweep.add_argument(
        "--methods", default="bitfit", help=f"{', '.join(METHODS)}, or bias terms such as b_q+b_m2 (bitfit)"
    )
    sweep.add_argument(
        "--learning-rates", help="learning rates, separated by commas (those that the paper searches, for each method)"
    )
    sweep.add_argument(
        "--seeds",
        default="1",
        help="the number of seeds, counted from 0, or the seeds themselves, separated by commas (1)",
    )
    add_renamed_option(
        sweep,
        "--train-examples",
        once="--train-rows",
        type=int,
        help="the number of training examples, always the same ones (all)",
    )
    add_renamed_option(
        sweep,
        "--validation-examples",
        once="--validation-rows",
        type=int,
        help="the number of validation examples (all)",
    )
    add_settings_arguments(parser)
    add_engine_arguments(parser)


def run(options: argparse.Namespace) -> int:
    trials = _trials(options)
    output = options.output or Path("sweeps") / resolve_model(options.model).short_name
    runner = TrialRunner(trial_runner_options(options, output))
    failures = train_trials(options, runner, trials, Report(epochs=options.engine == "local"))
    results = [result for result in map(runner.load, trials) if result is not None]
    summaries = summarise(trials, results)
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(output / "summary.json", canonical_json([asdict(summary) for summary in summaries]))
    _print(summaries, output)
    return TRIAL_FAILED if failures else 0


def _trials(options: argparse.Namespace) -> list[Trial]:
    """Every combination; first all of one seed, so that there is something to see early."""
    given = given_settings(options)
    tasks, methods = names("--tasks", options.tasks), names("--methods", options.methods)
    trials = (
        Trial(
            task,
            TrainingSettings(**given, method=method, bias_terms=terms, learning_rate=rate, seed=seed),
            train_examples=options.train_examples,
            validation_examples=options.validation_examples,
        )
        for seed in seeds(options.seeds)
        for task in tasks
        for method, terms in map(parse_method, methods)
        for rate in _rates(options.learning_rates, method)
    )
    return list(dict.fromkeys(trials))


def _rates(text: str | None, method: str) -> tuple[float, ...]:
    if text is not None:
        return numbers("--learning-rates", text, float)
    return FULL_LEARNING_RATES if method == "full" else LEARNING_RATES


def _print(summaries: Sequence[TaskSummary], output: Path) -> None:
    header = ("task", "method", "metric", "mean", "std", "learning rate", "seeds", "trials", "best delta")
    print_table(header, [_line(summary, output) for summary in summaries], stream=sys.stdout)


def _line(summary: TaskSummary, output: Path) -> tuple[str, ...]:
    trials, score = f"{summary.done} of {summary.wanted}", summary.score
    if score is None:
        return (summary.task, summary.method, "-", "-", "-", "-", "-", trials, "-")
    delta = output / "deltas" / str(summary.best_trial)
    return (
        summary.task,
        summary.method,
        score.metric,
        f"{score.mean:.4f}",
        "-" if score.std is None else f"{score.std:.4f}",
        f"{score.learning_rate:g}",
        str(len(score.seeds)),
        trials,
        str(delta) if delta.is_dir() else "-",
    )
