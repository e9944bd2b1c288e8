"""The same trials on Ray Tune, for real: a cluster of one machine that the engine starts."""

from __future__ import annotations

import pytest

from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.experiments import TrialRunner, TrialRunnerOptions, run_trials
from bitfit_export.experiments.ray_engine import RayOptions, check_resources, run_trials_on_ray

from .test_trial_engine import Diary, trial


@pytest.mark.slow
def test_ray_gives_what_the_local_engine_gives(runner: TrialRunner) -> None:
    pytest.importorskip("ray", reason="needs bitfit-export[ray]")
    bad, trials, diary = trial(max_length=500), [trial(), trial("size")], Diary()
    run_trials(runner, [trials[0]], Diary())
    failures = run_trials_on_ray(runner, [bad, *trials], diary, RayOptions(cpus_per_trial=0.5))
    assert [failure.trial for failure in failures] == [bad]
    assert "--max-length is 500" in failures[0].reason
    # Two start together, and either may be the first to say so.
    mood_first = ["end size", "fail mood", "start 1/2 mood", "start 2/2 size"]
    size_first = ["end size", "fail mood", "start 1/2 size", "start 2/2 mood"]
    assert sorted(diary.events) in (mood_first, size_first)
    alone = TrialRunner(TrialRunnerOptions(**vars(runner.options) | {"output": runner.store.folder / "alone"}))
    run_trials(alone, trials[1:], Diary())
    assert runner.load(trials[1]) == alone.load(trials[1]) is not None
    assert not (runner.store.folder / "ray").exists()


def test_without_ray_the_extra_is_named(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError) as caught:
        run_trials_on_ray(runner, [trial()], Diary(), RayOptions())
    assert "bitfit-export[ray]" in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [({"cpus_per_trial": -1}, "cpus"), ({"gpus_per_trial": -0.5}, "gpus")])
def test_less_than_nothing_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=f"--{message}-per-trial is"):
        RayOptions(**options)


def test_a_trial_that_this_machine_has_no_room_for_is_refused() -> None:
    found = {"CPU": 2.0}
    check_resources(found, RayOptions(cpus_per_trial=2))
    with pytest.raises(UsageError, match="--cpus-per-trial is 4, and this machine has 2"):
        check_resources(found, RayOptions(cpus_per_trial=4))
    with pytest.raises(UsageError, match=r"--gpus-per-trial is 0\.5, and this machine has 0"):
        check_resources(found, RayOptions(gpus_per_trial=0.5))
