"""Train the papers' experiments on a model, and make their tables and figures of it.

A trial's result is stored as soon as it ends, and the report is renewed; the same command resumes where it
stopped. Experiments share trials: what one has trained, another one only reads. docs/reproduce.md says what each does.

example: bitfit reproduce table3 --model minilm-l6 --data glue/ --settings examples/reproduce/minilm-l6.json
"""

from __future__ import annotations

import argparse
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
from bitfit_export.cli.streams import say
from bitfit_export.cli.words import add_renamed_option, names, numbers
from bitfit_export.delta.plots import require_matplotlib
from bitfit_export.errors import UsageError, one_line
from bitfit_export.experiments import Trial, TrialResult, TrialRunner
from bitfit_export.experiments.reproduce import (
    PAPER,
    REPORTS,
    Experiment,
    make_report,
    read_protocol,
    write_report,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", choices=REPORTS, help="; ".join(f"{n}: {e.title}" for n, e in REPORTS.items()))
    add_model_arguments(parser)
    what = parser.add_argument_group("what is trained (the papers' protocol, or that of --settings)")
    what.add_argument("--settings", type=Path, metavar="FILE.json", help="a protocol, see docs/reproduce.md")
    what.add_argument("--tasks", help="the tasks, separated by commas")
    what.add_argument("--methods", help="bitfit, full, ... or bias terms such as b_q+b_m2, separated by commas")
    what.add_argument(
        "--seeds", help="the number of seeds, counted from 0, or the seeds themselves, separated by commas"
    )
    what.add_argument("--learning-rates", help="learning rates, separated by commas; the best one is reported")
    add_renamed_option(
        what,
        "--train-examples",
        once="--train-rows",
        help="the number of training examples; for figure2 several, separated by commas",
    )
    add_renamed_option(
        what,
        "--validation-examples",
        once="--validation-rows",
        type=int,
        help="the number of validation examples",
    )
    what.add_argument("--report", action="store_true", help="train nothing; report the results so far")
    add_settings_arguments(parser, "training, as bitfit-train has it (the protocol's)", defaults=False)
    add_engine_arguments(parser)


def run(options: argparse.Namespace) -> int:
    name, protocol = options.experiment, PAPER if options.settings is None else read_protocol(options.settings)
    if REPORTS[name].has_plots:
        require_matplotlib()
    experiment = _narrowed(options, protocol.experiments[name])
    model = resolve_model(options.model).short_name
    output = options.output or Path("results") / "reproduce" / model
    runner = TrialRunner(trial_runner_options(options, output))
    trials = protocol.trials(experiment, runner.base, _overrides(options, experiment))
    failures = []
    if not options.report:
        failures = train_trials(options, runner, trials, _Renewing(options, runner, model, experiment, trials))
    report = make_report(name, runner, model, experiment, trials)
    for path in write_report(output, name, report, plots=True):
        say(str(path))
    for line in report.text.splitlines():
        print(one_line(line))
    return TRIAL_FAILED if failures else 0


def _narrowed(options: argparse.Namespace, experiment: Experiment) -> Experiment:
    sizes = None
    if options.train_examples is not None and experiment.sizes:
        sizes = numbers("--train-examples", options.train_examples, int)
    return experiment.narrowed(
        tasks=None if options.tasks is None else names("--tasks", options.tasks),
        seeds=None if options.seeds is None else seeds(options.seeds),
        methods=None if options.methods is None else names("--methods", options.methods),
        sizes=sizes,
    )


def _overrides(options: argparse.Namespace, experiment: Experiment) -> dict[str, object]:
    found: dict[str, object] = given_settings(options)
    if options.learning_rates is not None:
        found["learning_rate"] = numbers("--learning-rates", options.learning_rates, float)
    if options.validation_examples is not None:
        found["validation_examples"] = options.validation_examples
    if options.train_examples is not None and experiment.shares:
        raise UsageError(f"--train-examples for {options.experiment}, which trains on shares of all examples")
    if options.train_examples is not None and not experiment.sizes:
        counts = numbers("--train-examples", options.train_examples, int)
        if len(counts) != 1:
            raise UsageError(
                f"--train-examples is {options.train_examples}, expected one number for {options.experiment}"
            )
        found["train_examples"] = counts[0]
    return found


class _Renewing(Report):
    """Renews the report after each trial, so that there is something to see early."""

    def __init__(
        self, options: argparse.Namespace, runner: TrialRunner, model: str, experiment: Experiment, trials: list[Trial]
    ) -> None:
        super().__init__(epochs=options.engine == "local")
        self._experiment = options.experiment
        self._runner, self._model, self._plan, self._trials = runner, model, experiment, trials

    def finished(self, trial: Trial, result: TrialResult) -> None:
        super().finished(trial, result)
        report = make_report(self._experiment, self._runner, self._model, self._plan, self._trials)
        write_report(self._runner.store.folder, self._experiment, report, plots=False)
