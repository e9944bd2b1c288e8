"""A work folder belongs to one run; a checkpoint in it is whole or is none."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.source import ModelSource
from bitfit_export.errors import OutputError
from bitfit_export.training import TrainingSettings
from bitfit_export.training.data import TaskData
from bitfit_export.training.work_folder import (
    checkpoint_folder,
    claimed_work_folder,
    last_checkpoint,
    mark_begun,
    mark_complete,
    remove_other_checkpoints,
)
from tests.training.test_trainer import make_data

DATA = make_data()
SETTINGS = TrainingSettings(epochs=3)


def checkpoint(work_folder: Path, step: int, *, whole: bool = True) -> Path:
    folder = checkpoint_folder(work_folder, step)
    mark_begun(work_folder, step)
    (folder / "trained.safetensors").touch()
    if whole:
        mark_complete(work_folder, step)
    return folder


def begin(folder: Path, base: BaseModel, data: TaskData = DATA, settings: TrainingSettings = SETTINGS) -> None:
    with claimed_work_folder(folder, base, data, settings):
        pass


def others(base: BaseModel) -> dict[str, tuple[BaseModel, TaskData, TrainingSettings]]:
    more_labels = dataclasses.replace(DATA.spec, labels=(*DATA.spec.labels, "so-so"))
    return {
        "settings": (base, DATA, TrainingSettings(epochs=4)),
        "examples": (base, dataclasses.replace(DATA, digest="e" * 64), SETTINGS),
        "labels": (base, dataclasses.replace(DATA, spec=more_labels), SETTINGS),
        "base": (dataclasses.replace(base, digest="e" * 64), DATA, SETTINGS),
        "added biases": (dataclasses.replace(base, added_biases=("one.bias",)), DATA, SETTINGS),
    }


@pytest.mark.parametrize("what", ["settings", "examples", "labels", "base", "added biases"])
def test_another_run_is_refused_once_there_is_a_checkpoint(tiny_base: BaseModel, tmp_path: Path, what: str) -> None:
    begin(tmp_path, tiny_base)
    checkpoint(tmp_path, 6)
    with pytest.raises(OutputError, match="holds an interrupted run with other settings or data"):
        begin(tmp_path, *others(tiny_base)[what])
    begin(tmp_path, tiny_base)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"


@pytest.mark.parametrize("what", ["settings", "examples"])
def test_a_run_that_left_no_checkpoint_is_in_nobodys_way(tiny_base: BaseModel, tmp_path: Path, what: str) -> None:
    begin(tmp_path, tiny_base)
    checkpoint(tmp_path, 6, whole=False)
    begin(tmp_path, *others(tiny_base)[what])
    assert not list(tmp_path.glob("checkpoint-*"))


def old_run(folder: Path, base: BaseModel, **settings: object) -> None:
    """What a release with other defaults left: checkpoints, and the settings that were not at its defaults."""
    begin(folder, base)
    checkpoint(folder, 6)
    record = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps(record | {"settings": {"epochs": 3, **settings}}))


PAPERS = dataclasses.replace(SETTINGS, schedule="constant", warmup=0.0)


def test_a_run_that_began_with_another_default_is_refused_or_resumes_as_it_was(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    old_run(tmp_path, tiny_base)
    with pytest.raises(OutputError, match=r"\(schedule constant, now linear; warmup 0\.0, now 0\.1\)") as caught:
        begin(tmp_path, tiny_base)
    assert "with its settings" in (caught.value.hint or "")
    begin(tmp_path, tiny_base, settings=PAPERS)


def test_a_run_that_began_with_the_class_s_pooling_is_not_mixed_with_the_model_s_own(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    pooled = dataclasses.replace(tiny_base, source=ModelSource("mine", "mine", str(tmp_path / "model")))
    old_run(tmp_path / "work", pooled)
    with pytest.raises(OutputError, match=r"\(pooling pooler, now mean\)"):
        begin(tmp_path / "work", pooled, settings=PAPERS)
    begin(tmp_path / "work", pooled, settings=dataclasses.replace(PAPERS, pooling="pooler"))
    begin(tmp_path / "work", tiny_base, settings=PAPERS)


def test_a_run_resumes_by_the_pooling_that_it_has_whether_named_or_chosen(tiny_base: BaseModel, tmp_path: Path) -> None:
    begin(tmp_path, tiny_base)
    checkpoint(tmp_path, 6)
    begin(tmp_path, tiny_base, settings=dataclasses.replace(SETTINGS, pooling="pooler"))
    begin(tmp_path, tiny_base)


def test_restart_forgets_an_interrupted_run(tiny_base: BaseModel, tmp_path: Path) -> None:
    begin(tmp_path, tiny_base)
    checkpoint(tmp_path, 6)
    with claimed_work_folder(tmp_path, *others(tiny_base)["examples"], restart=True):
        assert last_checkpoint(tmp_path) is None


def test_the_newest_whole_checkpoint_is_the_last_one(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (6, 12, 96):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 102, whole=False)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-96"
    assert not (tmp_path / "checkpoint-102").exists()


def test_a_checkpoint_of_another_program_is_neither_taken_nor_removed_nor_written_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-6/model.safetensors").write_text("days of work")
    checkpoint(tmp_path, 12)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    remove_other_checkpoints(tmp_path, ())
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(OutputError, match="this package did not write"):
        mark_begun(tmp_path, 6)
    assert os.listdir(tmp_path) == ["checkpoint-6"]
    assert (tmp_path / "checkpoint-6/model.safetensors").read_text() == "days of work"


def test_only_the_checkpoints_that_are_named_stay(tmp_path: Path) -> None:
    for step in (6, 12, 18):
        checkpoint(tmp_path, step)
    remove_other_checkpoints(tmp_path, {6, 18, None})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-18", "checkpoint-6"]


def test_a_checkpoint_that_is_half_removed_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    checkpoint(tmp_path, 6)
    checkpoint(tmp_path, 12)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_other_checkpoints(tmp_path, {6})
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
