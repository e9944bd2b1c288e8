"""Trials: stored as they come, gone on with after a kill, not ended by one that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DataError, UsageError
from bitfit_export.experiments import Failure, Trial, TrialResult, TrialRunner, TrialRunnerOptions, Watcher, run_trials
from bitfit_export.experiments.trial_engine import pending_trials
from bitfit_export.files.locks import locked
from bitfit_export.training import TrainingSettings

from .conftest import write_task

pytestmark = pytest.mark.slow


def trial(task: str = "mood", **settings: Any) -> Trial:
    usual = {"pooling": "mean", "learning_rate": 0.01, "max_length": 16, "epochs": 1}
    return Trial(task, TrainingSettings(**usual | settings))


class Diary(Watcher):
    def __init__(self, *callbacks: TrainerCallback) -> None:
        self.events: list[str] = []
        self._callbacks = callbacks

    def started(self, trial: Trial, number: int, total: int) -> None:
        self.events.append(f"start {number}/{total} {trial.task}")

    def finished(self, trial: Trial, result: TrialResult) -> None:
        self.events.append(f"end {trial.task}")

    def failed(self, failure: Failure) -> None:
        self.events.append(f"fail {failure.trial.task}")

    def callbacks(self, metric: str) -> Sequence[TrainerCallback]:
        return self._callbacks


def test_every_trial_leaves_its_result_and_its_delta(runner: TrialRunner) -> None:
    trials, diary = [trial(epochs=2), trial("size", epochs=2)], Diary()
    assert run_trials(runner, trials, diary) == []
    assert diary.events == ["start 1/2 mood", "end mood", "start 2/2 size", "end size"]
    for each in trials:
        result = runner.load(each)
        assert result is not None
        assert result.metrics == TaskDelta.load(runner.store.delta_folder(each)).config.metrics
        assert len(result.history) == 2
        biases = {name: value.size for name, value in runner.base.biases.items() if not name.startswith("pooler")}
        assert set(result.bias_changes) == set(biases)
        assert result.trained_parameters == (sum(biases.values()), 2 * 32 + 2)
        assert result.base_parameters == sum(value.numel() for value in runner.base.module.state_dict().values())
    assert not list(runner.store.folder.glob("work/*"))


def test_a_trial_with_a_result_is_not_trained_again(runner: TrialRunner) -> None:
    run_trials(runner, [trial()], Watcher())
    before = runner.store.result_file(trial()).stat()
    diary = Diary()
    assert run_trials(runner, [trial(), trial(), trial("size")], diary) == []
    assert diary.events == ["start 1/1 size", "end size"]
    assert runner.store.result_file(trial()).stat() == before


def test_a_trial_that_fails_does_not_end_the_others(runner: TrialRunner) -> None:
    bad, diary = trial(max_length=500), Diary()
    (failure,) = run_trials(runner, [bad, trial("size")], diary)
    assert failure.trial == bad
    assert "--max-length is 500" in failure.reason
    assert diary.events == ["start 1/2 mood", "fail mood", "start 2/2 size", "end size"]
    assert "Traceback" in runner.store.failure_file(bad).read_text()
    assert runner.store.failure(bad) == failure.reason
    assert pending_trials(runner, [bad, trial("size")]) == [bad]


def test_an_error_that_nobody_expected_is_a_failure_too(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any) -> None:
        raise RuntimeError("out of memory\nand a long story")

    with monkeypatch.context() as patch:
        patch.setattr("bitfit_export.experiments.trial_runner.train_task", explode)
        (failure,) = run_trials(runner, [trial()], Watcher())
    assert failure.reason == "RuntimeError: out of memory"
    assert run_trials(runner, [trial()], Watcher()) == []
    assert runner.store.failure(trial()) is None


class KillAfterFirstEpoch(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **info: Any) -> None:
        if state.epoch == 1:
            raise KeyboardInterrupt


class CountSteps(TrainerCallback):
    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **info: Any) -> None:
        self.steps += 1


def test_a_trial_that_was_killed_goes_on_after_its_last_epoch(runner: TrialRunner) -> None:
    killed = trial(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run_trials(runner, [killed], Diary(KillAfterFirstEpoch()))
    assert runner.load(killed) is None
    count = CountSteps()
    run_trials(runner, [killed], Diary(count))
    assert count.steps == 2  # 32 examples by 16: those of the second epoch alone
    whole = TrialRunner(TrialRunnerOptions(**vars(runner.options) | {"output": runner.store.folder / "whole"}))
    run_trials(whole, [killed], Watcher())
    assert runner.load(killed) == whole.load(killed)


def test_data_that_cannot_be_read_end_all_trials_before_the_first(runner: TrialRunner) -> None:
    diary = Diary()
    with pytest.raises(DataError, match="or a folder smell"):
        run_trials(runner, [trial(), trial("smell")], diary)
    assert diary.events == []


def test_bias_terms_that_the_model_lacks_end_all_trials_before_the_first(runner: TrialRunner) -> None:
    diary = Diary()
    with pytest.raises(UsageError, match="b_z selects none"):
        run_trials(runner, [trial(), trial(bias_terms=("b_z",))], diary)
    assert diary.events == []


def test_results_of_another_base_model_are_refused(runner: TrialRunner) -> None:
    run_trials(runner, [trial()], Watcher())
    with pytest.raises(DataError, match="was trained on"):
        runner.store.load(trial(), "0" * 64)


def test_results_of_other_rows_are_refused(runner: TrialRunner, data_folder: Path) -> None:
    run_trials(runner, [trial()], Watcher())
    (data_folder / "mood" / "dev.jsonl").write_text('{"sentence": "it is good", "label": 1}\n' * 4)
    again, diary = TrialRunner(runner.options), Diary()
    with pytest.raises(DataError, match=r"mood-bitfit.*json was trained on other examples than the data has now"):
        run_trials(again, [trial()], diary)
    assert diary.events == []
    assert again.load(trial()) is not None  # a report still has it


def test_results_without_added_biases_are_refused_with_them(runner: TrialRunner) -> None:
    run_trials(runner, [trial()], Watcher())
    runner.base = dataclasses.replace(runner.base, added_biases=("one.bias",))
    with pytest.raises(DataError, match=r"was trained without --add-biases"):
        run_trials(runner, [trial()], Watcher())


def test_results_with_another_pooling_than_auto_chooses_now_are_refused(runner: TrialRunner, tmp_path: Path) -> None:
    """The model's folder has since come to name the mean, or an earlier release did not look."""
    run_trials(runner, [trial(pooling="auto"), trial("size", pooling="pooler")], Watcher())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    source = dataclasses.replace(runner.base.source, location=str(tmp_path))
    runner.base = dataclasses.replace(runner.base, source=source)
    with pytest.raises(DataError, match=r"was trained with --pooling pooler, where auto is mean now"):
        run_trials(runner, [trial(pooling="auto")], Watcher())
    assert run_trials(runner, [trial("size", pooling="pooler")], Watcher()) == []


def test_a_trial_that_another_process_is_at_comes_last(runner: TrialRunner) -> None:
    work_folder, diary = runner.store.work_folder(trial()), Diary()
    work_folder.mkdir(parents=True)
    with locked(work_folder / "lock", "busy"):
        (failure,) = run_trials(runner, [trial(), trial("size")], diary)
    assert failure.busy
    assert diary.events == [
        "start 1/2 mood",
        "fail mood",
        "start 2/2 size",
        "end size",
        "start 1/1 mood",
        "fail mood",
    ]
    assert runner.store.failure(trial()) is None
    assert run_trials(runner, [trial()], Watcher()) == []


def test_a_file_that_is_no_result_is_refused(runner: TrialRunner) -> None:
    run_trials(runner, [trial()], Watcher())
    runner.store.result_file(trial()).write_text("{}")
    with pytest.raises(DataError, match="not a trial's result"):
        runner.load(trial())


def test_rows_are_chosen_by_number_and_by_share(runner: TrialRunner) -> None:
    settings = trial().settings
    assert len(runner.data_of(Trial("mood", settings, train_examples=6)).train) == 6
    assert len(runner.data_of(Trial("mood", settings, train_share=0.25)).train) == 8
    assert len(runner.data_of(Trial("mood", settings, validation_examples=3)).validation) == 3


def test_training_rows_are_scored_too(runner: TrialRunner) -> None:
    scored = Trial("mood", trial().settings, scored_train_examples=10)
    run_trials(runner, [scored, trial()], Watcher())
    result, plain = runner.load(scored), runner.load(trial())
    assert result is not None
    assert plain is not None
    assert set(result.metrics) - set(plain.metrics) == {"train_accuracy", "train_macro_f1"}
    assert {name: result.metrics[name] for name in plain.metrics} == plain.metrics
    assert TaskDelta.load(runner.store.delta_folder(scored)).config.metrics == plain.metrics


def test_a_task_may_be_the_data_folder_itself(runner: TrialRunner, tmp_path: Path) -> None:
    write_task(tmp_path / "own")
    options = {"data": type(runner.options.data)(tmp_path / "own")}
    own = TrialRunner(TrialRunnerOptions(**vars(runner.options) | options))
    assert run_trials(own, [trial("anything")], Watcher()) == []
