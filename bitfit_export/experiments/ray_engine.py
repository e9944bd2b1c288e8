"""The engine that trains trials on a Ray cluster, with Ray Tune. Needs the `[ray]` extra.

A trial is Ray Tune's trial, in a process of its own. It does what the local engine does with one, and leaves its result
in the same store; so every machine of a cluster must see the output folder and the data at the same paths, as Ray
Tune's own storage asks for too. Trials that were killed resume from what is in the store, on either engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitfit_export.cluster import connected
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.experiments.trial import Trial
from bitfit_export.experiments.trial_engine import Failure, Watcher, attempt, check_trials, pending_trials
from bitfit_export.experiments.trial_runner import TrialRunner, TrialRunnerOptions
from bitfit_export.files import scratch_folder

__all__ = ["RayOptions", "check_resources", "run_trials_on_ray"]

_NO_REPORT = "its process ended without a report"
#: What Ray Tune's own records are named after, which lie in the output folder while trials run.
_RECORDS = "ray"


@dataclass(frozen=True)
class RayOptions:
    """Where Ray is, and what of it a trial takes.

    Attributes:
        address: of a running cluster, `auto` for the one of this machine; None starts one here for the trials.
    """

    address: str | None = None
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0

    def __post_init__(self) -> None:
        for name, value in (("cpus", self.cpus_per_trial), ("gpus", self.gpus_per_trial)):
            if value < 0:
                raise UsageError(f"--{name}-per-trial is {value:g}, expected 0 or more")


def run_trials_on_ray(
    runner: TrialRunner, trials: Sequence[Trial], watcher: Watcher, ray_options: RayOptions
) -> list[Failure]:
    """Train all trials that have no result yet, as many at a time as the cluster has room for; give those that failed.

    Raises:
        BusyError: other trials run on Ray in the same output folder.
        MissingExtraError: Ray Tune is not installed.
        UsageError: no cluster answers at the address, or this machine has less than a trial is to have.
    """
    pending = pending_trials(runner, trials)
    check_trials(runner, pending)
    if not pending:
        return []
    tune = _import_tune()
    options = _absolute(runner.options)
    by_name = {trial.name: trial for trial in pending}
    with scratch_folder(options.output / _RECORDS) as records, connected(ray_options.address) as ray:
        if ray_options.address is None:
            check_resources(ray.cluster_resources(), ray_options)
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_train_one, options=options, trials=by_name),
                {"cpu": ray_options.cpus_per_trial, "gpu": ray_options.gpus_per_trial},
            ),
            param_space={"trial": tune.grid_search(list(by_name))},
            tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(
                name=records.name,
                storage_path=str(records.parent),
                callbacks=[_make_callback(tune, by_name, runner, watcher)],
                verbose=0,
            ),
        ).fit()
    return [_failure(runner, trial) for trial in pending if runner.load(trial) is None]


def _train_one(config: dict[str, Any], options: TrialRunnerOptions, trials: Mapping[str, Trial]) -> None:
    """What a worker process does: one trial, as the local engine does it."""
    from ray import tune

    runner = TrialRunner(options)
    outcome = attempt(runner, trials[config["trial"]], Watcher())
    failed = isinstance(outcome, Failure)
    tune.report({"failed": failed} if isinstance(outcome, Failure) else {"failed": failed, **outcome.metrics})


def _make_callback(tune: Any, trials: Mapping[str, Trial], runner: TrialRunner, watcher: Watcher) -> Any:
    """Ray Tune's callback in this process, which tells the watcher what happens on the cluster."""

    class Callback(tune.Callback):
        # Nothing from around the class is used in it: Ray pickles it, for a resumption of its own that is not used.
        def __init__(self, tell_start: Any, tell_end: Any) -> None:
            self.tell_start, self.tell_end = tell_start, tell_end

        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.tell_start(trial.config["trial"])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.tell_end(trial.config["trial"])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.tell_end(trial.config["trial"])

    started: set[str] = set()

    def tell_start(name: str) -> None:
        started.add(name)
        watcher.started(trials[name], len(started), len(trials))

    def tell_end(name: str) -> None:
        result = runner.load(trials[name])
        if result is None:
            watcher.failed(_failure(runner, trials[name]))
        else:
            watcher.finished(trials[name], result)

    return Callback(tell_start, tell_end)


def _failure(runner: TrialRunner, trial: Trial) -> Failure:
    """Why a trial without a result has none; a process that was killed left no account of it."""
    reason = runner.store.failure(trial)
    if reason is None:
        reason = _NO_REPORT
        runner.store.save_failure(trial, f"{reason}\n")
    return Failure(trial, reason)


def _absolute(options: TrialRunnerOptions) -> TrialRunnerOptions:
    """The options with absolute paths: Ray gives each trial a working folder of its own."""
    folder = options.data.folder
    data = replace(options.data, folder=None if folder is None else folder.resolve())
    model = str(Path(options.model).resolve()) if Path(options.model).is_dir() else options.model
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    return replace(options, data=data, output=output, model=model)


def _import_tune() -> Any:
    try:
        from ray import tune
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    return tune


def check_resources(found: Mapping[str, float], options: RayOptions) -> None:
    """Refuse a trial that needs more than Ray found here: it would wait for more to come, without a word.

    A cluster of several machines may grow, so this is for one alone.

    Raises:
        UsageError: see above.
    """
    for name, wanted in (("cpu", options.cpus_per_trial), ("gpu", options.gpus_per_trial)):
        there = found.get(name.upper(), 0)
        if wanted > there:
            raise UsageError(f"--{name}s-per-trial is {wanted:g}, and this machine has {there:g}")
