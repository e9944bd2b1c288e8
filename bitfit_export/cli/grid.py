"""The common part of the commands that train many trials: options, and progress on stderr."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.cli.streams import say
from bitfit_export.cli.words import numbers, words
from bitfit_export.errors import UsageError
from bitfit_export.experiments import DataOptions, Failure, Trial, TrialResult, TrialRunner, TrialRunnerOptions, Watcher
from bitfit_export.experiments.trial_engine import run_trials
from bitfit_export.runtime.threads import check_threads
from bitfit_export.training import PROBLEM_TYPES, TrainingSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = [
    "ENGINES",
    "Report",
    "add_engine_arguments",
    "add_model_arguments",
    "add_settings_arguments",
    "given_settings",
    "seeds",
    "train_trials",
    "trial_runner_options",
]

ENGINES = ("local", "ray")
#: What a sweep or an experiment varies itself, or derives from its `--methods`.
_SWEPT = ("method", "bias_terms", "learning_rate", "seed")
#: Here the option says where trials run, and not what computes their steps.
_ENGINE = "engine"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the base model: an alias, a Hub id, or a folder")
    parser.add_argument("--revision", help="the base model's revision on the Hub")
    parser.add_argument("--add-biases", action="store_true", help="give each linear layer without a bias one of zeros")
    parser.add_argument("--output", type=Path, help="folder for results; an unfinished run in it resumes")
    parser.add_argument("--data", type=Path, help="folder with TASK/train.* and TASK/dev.* (GLUE: from the Hub)")
    parser.add_argument("--data-revision", help="commit or tag of GLUE on the Hub (a fixed commit)")
    parser.add_argument("--columns", help="text columns of a task of your own, separated by commas")
    parser.add_argument("--label-column", help="column of the labels")
    parser.add_argument("--labels", help="label names in id order, separated by commas")
    parser.add_argument("--problem-type", choices=PROBLEM_TYPES, help="kind of task (found from the columns)")


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("where it is trained")
    engine.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="where trials run: this process, or Ray Tune (%(default)s)",
    )
    engine.add_argument("--address", help="address of a Ray cluster, which sees --output and --data at the same paths")
    engine.add_argument(
        "--cpus-per-trial", type=float, default=1, help="CPUs that Ray reserves for a trial (%(default)s)"
    )
    engine.add_argument(
        "--gpus-per-trial", type=float, default=0, help="GPUs that Ray reserves for a trial (%(default)s)"
    )
    engine.add_argument("--threads", type=int, help="CPU threads of a trial")


def add_settings_arguments(
    parser: argparse.ArgumentParser,
    title: str = "training (bitfit-train --help explains these)",
    *,
    defaults: bool = True,
) -> None:
    """An option for every field of `TrainingSettings` that a sweep or an experiment does not vary itself.

    Args:
        defaults: whether those of `TrainingSettings` hold where an option is left out; the help names them.
    """
    group = parser.add_argument_group(title)
    for field in fields(TrainingSettings):
        if field.name in (*_SWEPT, _ENGINE):
            continue
        option, default = f"--{field.name.replace('_', '-')}", field.default
        if isinstance(default, bool):
            group.add_argument(option, action="store_true", default=None)
        else:
            kind: Callable[[str], Any] = int if default is None else type(default)
            group.add_argument(option, type=kind, help=f"({default})" if defaults and default is not None else None)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, by their field's name."""
    values = {field.name: getattr(options, field.name, None) for field in fields(TrainingSettings)}
    return {name: value for name, value in values.items() if value is not None and name != _ENGINE}


def trial_runner_options(options: argparse.Namespace, output: Path) -> TrialRunnerOptions:
    data = DataOptions(
        folder=options.data,
        columns=words(options.columns),
        label_column=options.label_column,
        problem_type=options.problem_type,
        labels=words(options.labels),
        revision=options.data_revision,
    )
    if options.threads is not None:
        check_threads(options.threads, "--threads")
    return TrialRunnerOptions(
        model=options.model,
        output=output,
        data=data,
        revision=options.revision,
        add_biases=options.add_biases,
        threads=options.threads,
    )


def seeds(text: str) -> tuple[int, ...]:
    """`3` is three seeds, 0 to 2; `3,17` is these two."""
    found = numbers("--seeds", text, int)
    if "," in text:
        return found
    if found[0] < 1:
        raise UsageError(f"--seeds is {text}, expected at least 1")
    return tuple(range(found[0]))


def train_trials(
    options: argparse.Namespace, runner: TrialRunner, trials: Sequence[Trial], watcher: Watcher
) -> list[Failure]:
    """Train what has no result yet, on the engine that was asked for, and report what failed."""
    if options.engine == "ray":
        from bitfit_export.experiments.ray_engine import RayOptions, run_trials_on_ray

        cluster = RayOptions(options.address, options.cpus_per_trial, options.gpus_per_trial)
        failures = run_trials_on_ray(runner, trials, watcher, cluster)
    else:
        failures = run_trials(runner, trials, watcher)
    if failures:
        say(f"{len(failures)} trials failed; the same command tries them again:")
    for failure in failures:
        say(f"  {failure.trial.name}: {failure.reason}")
        if not failure.busy:
            say(f"  (traceback: {runner.store.failure_file(failure.trial)})")
    return failures


class Report(Watcher):
    """Says on stderr which trial is trained, and what it gave."""

    def __init__(self, *, epochs: bool) -> None:
        self._epochs = epochs

    def started(self, trial: Trial, number: int, total: int) -> None:
        say(f"trial {number} of {total}: {trial.name}")

    def finished(self, trial: Trial, result: TrialResult) -> None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
        say(f"{trial.name}: {scores}; best epoch {result.best_epoch}")

    def failed(self, failure: Failure) -> None:
        what = "is left for later" if failure.busy else "failed"
        say(f"{failure.trial.name} {what}: {failure.reason}")

    def callbacks(self, metric: str) -> Sequence[TrainerCallback]:
        from bitfit_export.cli.progress import EpochReport

        return [EpochReport(metric)] if self._epochs else ()
