"""Series of trials: stored as they come, gone on with after a kill, not ended by one that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DataError, UsageError
from bitfit_export.experiments import Failure, Laboratory, LaboratoryOptions, Trial, TrialResult, Watcher, run_trials
from bitfit_export.experiments.trial_engine import pending_trials
from bitfit_export.files.locks import locked
from bitfit_export.training import TrainingSettings

from .conftest import write_task


def trial(task: str = "mood", **settings: Any) -> Trial:
    usual = {"pooling": "mean", "learning_rate": 0.01, "max_length": 16, "epochs": 2}
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


def test_every_trial_leaves_its_result_and_its_delta(laboratory: Laboratory) -> None:
    trials, diary = [trial(), trial("size")], Diary()
    assert run_trials(laboratory, trials, diary) == []
    assert diary.events == ["start 1/2 mood", "end mood", "start 2/2 size", "end size"]
    for each in trials:
        result = laboratory.load(each)
        assert result is not None
        assert result.metrics == TaskDelta.load(laboratory.store.delta_folder(each)).config.metrics
        assert len(result.history) == 2
        biases = {name: value.size for name, value in laboratory.base.biases.items() if not name.startswith("pooler")}
        assert set(result.bias_changes) == set(biases)
        assert result.trained_parameters == (sum(biases.values()), 2 * 32 + 2)
        assert result.base_parameters == sum(value.numel() for value in laboratory.base.module.state_dict().values())
    assert not list(laboratory.store.folder.glob("work/*"))


def test_a_trial_with_a_result_is_not_trained_again(laboratory: Laboratory) -> None:
    run_trials(laboratory, [trial()], Watcher())
    before = laboratory.store.result_file(trial()).stat()
    diary = Diary()
    assert run_trials(laboratory, [trial(), trial(), trial("size")], diary) == []
    assert diary.events == ["start 1/1 size", "end size"]
    assert laboratory.store.result_file(trial()).stat() == before


def test_a_trial_that_fails_does_not_end_the_others(laboratory: Laboratory) -> None:
    bad, diary = trial(max_length=500), Diary()
    (failure,) = run_trials(laboratory, [bad, trial("size")], diary)
    assert failure.trial == bad
    assert "--max-length is 500" in failure.reason
    assert diary.events == ["start 1/2 mood", "fail mood", "start 2/2 size", "end size"]
    assert "Traceback" in laboratory.store.failure_file(bad).read_text()
    assert laboratory.store.failure(bad) == failure.reason
    assert pending_trials(laboratory, [bad, trial("size")]) == [bad]


def test_an_error_that_nobody_expected_is_a_failure_too(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: Any) -> None:
        raise RuntimeError("out of memory\nand a long story")

    with monkeypatch.context() as patch:
        patch.setattr("bitfit_export.experiments.trial_runner.train_task", explode)
        (failure,) = run_trials(laboratory, [trial()], Watcher())
    assert failure.reason == "RuntimeError: out of memory"
    assert run_trials(laboratory, [trial()], Watcher()) == []
    assert laboratory.store.failure(trial()) is None


class KillAfterFirstEpoch(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **info: Any) -> None:
        if state.epoch == 1:
            raise KeyboardInterrupt


class CountSteps(TrainerCallback):
    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **info: Any) -> None:
        self.steps += 1


def test_a_trial_that_was_killed_goes_on_after_its_last_epoch(laboratory: Laboratory) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_trials(laboratory, [trial()], Diary(KillAfterFirstEpoch()))
    assert laboratory.load(trial()) is None
    count = CountSteps()
    run_trials(laboratory, [trial()], Diary(count))
    assert count.steps == 2  # 32 rows by 16: those of the second epoch alone
    whole = Laboratory(LaboratoryOptions(**vars(laboratory.options) | {"output": laboratory.store.folder / "whole"}))
    run_trials(whole, [trial()], Watcher())
    assert laboratory.load(trial()) == whole.load(trial())


def test_data_that_cannot_be_read_end_the_series_before_it_starts(laboratory: Laboratory) -> None:
    diary = Diary()
    with pytest.raises(DataError, match="or a folder smell"):
        run_trials(laboratory, [trial(), trial("smell")], diary)
    assert diary.events == []


def test_bias_terms_that_the_model_lacks_end_the_series_before_it_starts(laboratory: Laboratory) -> None:
    diary = Diary()
    with pytest.raises(UsageError, match="b_z selects none"):
        run_trials(laboratory, [trial(), trial(bias_terms=("b_z",))], diary)
    assert diary.events == []


def test_results_of_another_base_model_are_refused(laboratory: Laboratory) -> None:
    run_trials(laboratory, [trial()], Watcher())
    with pytest.raises(DataError, match="was trained on"):
        laboratory.store.load(trial(), "0" * 64)


def test_results_of_other_rows_are_refused(laboratory: Laboratory, data_folder: Path) -> None:
    run_trials(laboratory, [trial()], Watcher())
    (data_folder / "mood" / "dev.jsonl").write_text('{"sentence": "it is good", "label": 1}\n' * 4)
    again, diary = Laboratory(laboratory.options), Diary()
    with pytest.raises(DataError, match=r"mood-bitfit.*json was trained on other rows than the data has now"):
        run_trials(again, [trial()], diary)
    assert diary.events == []
    assert again.load(trial()) is not None  # a report still has it


def test_results_without_added_biases_are_refused_with_them(laboratory: Laboratory) -> None:
    run_trials(laboratory, [trial()], Watcher())
    laboratory.base = dataclasses.replace(laboratory.base, added_biases=("one.bias",))
    with pytest.raises(DataError, match=r"was trained without --add-biases"):
        run_trials(laboratory, [trial()], Watcher())


def test_results_with_another_pooling_than_auto_chooses_now_are_refused(laboratory: Laboratory, tmp_path: Path) -> None:
    """The model's folder has since come to name the mean, or an earlier release did not look."""
    run_trials(laboratory, [trial(pooling="auto"), trial("size", pooling="pooler")], Watcher())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    source = dataclasses.replace(laboratory.base.source, location=str(tmp_path))
    laboratory.base = dataclasses.replace(laboratory.base, source=source)
    with pytest.raises(DataError, match=r"was trained with --pooling pooler, where auto is mean now"):
        run_trials(laboratory, [trial(pooling="auto")], Watcher())
    assert run_trials(laboratory, [trial("size", pooling="pooler")], Watcher()) == []


def test_a_trial_that_another_process_is_at_comes_last(laboratory: Laboratory) -> None:
    work_folder, diary = laboratory.store.work_folder(trial()), Diary()
    work_folder.mkdir(parents=True)
    with locked(work_folder / "lock", "busy"):
        (failure,) = run_trials(laboratory, [trial(), trial("size")], diary)
    assert failure.busy
    assert diary.events == [
        "start 1/2 mood",
        "fail mood",
        "start 2/2 size",
        "end size",
        "start 1/1 mood",
        "fail mood",
    ]
    assert laboratory.store.failure(trial()) is None
    assert run_trials(laboratory, [trial()], Watcher()) == []


def test_a_file_that_is_no_result_is_refused(laboratory: Laboratory) -> None:
    run_trials(laboratory, [trial()], Watcher())
    laboratory.store.result_file(trial()).write_text("{}")
    with pytest.raises(DataError, match="not a trial's result"):
        laboratory.load(trial())


def test_rows_are_chosen_by_number_and_by_share(laboratory: Laboratory) -> None:
    settings = trial().settings
    assert len(laboratory.data_of(Trial("mood", settings, train_rows=6)).train) == 6
    assert len(laboratory.data_of(Trial("mood", settings, train_share=0.25)).train) == 8
    assert len(laboratory.data_of(Trial("mood", settings, validation_rows=3)).validation) == 3


def test_training_rows_are_scored_too(laboratory: Laboratory) -> None:
    scored = Trial("mood", trial().settings, scored_train_rows=10)
    run_trials(laboratory, [scored, trial()], Watcher())
    result, plain = laboratory.load(scored), laboratory.load(trial())
    assert result is not None
    assert plain is not None
    assert set(result.metrics) - set(plain.metrics) == {"train_accuracy", "train_macro_f1"}
    assert {name: result.metrics[name] for name in plain.metrics} == plain.metrics
    assert TaskDelta.load(laboratory.store.delta_folder(scored)).config.metrics == plain.metrics


def test_a_task_may_be_the_data_folder_itself(laboratory: Laboratory, tmp_path: Path) -> None:
    write_task(tmp_path / "own")
    options = {"data": type(laboratory.options.data)(tmp_path / "own")}
    own = Laboratory(LaboratoryOptions(**vars(laboratory.options) | options))
    assert run_trials(own, [trial("anything")], Watcher()) == []
