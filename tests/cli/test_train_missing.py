"""bitfit-export --train-missing: tasks without a delta are trained first, from files or from the Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import read_manifest
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DataError
from bitfit_export.training.data_files import HUB_DATASET
from tests.cli.conftest import Bitfit, write_lines
from tests.hub_server import COMMIT, hub_server

EXAMPLES = [{"sentence": "it is bad", "label": 0}, {"sentence": "it is good", "label": 1}]


@pytest.fixture
def data(workplace: Path) -> Path:
    """Two tasks of two examples each."""
    for task in ("mood", "tone"):
        for name in ("train", "dev"):
            (workplace / "data" / task).mkdir(parents=True, exist_ok=True)
            write_lines(workplace / "data" / task / f"{name}.jsonl", EXAMPLES)
    return workplace / "data"


@pytest.mark.usefixtures("shared_trace")
def test_what_has_no_delta_is_trained_and_stays_trained(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, data: Path, workplace: Path
) -> None:
    words = ["export", "--model", model_folder, "--deltas", deltas_folder, "--data", data, "--train-missing"]
    done = bitfit(*words, "--tasks", "tone,two_way,mood")
    assert done.status == 0, done.err
    assert "training 1 of 2: tone, with 2 examples" in done.err
    assert "training 2 of 2: mood, with 2 examples" in done.err
    assert tuple(read_manifest(workplace / "bundles/tiny-bert").tasks) == ("mood", "tone", "two_way")
    again = bitfit(*words, "--tasks", "mood,tone", "--overwrite")
    assert again.status == 0, again.err
    assert "training" not in again.err


def test_an_interrupted_command_keeps_the_task_that_was_trained(
    bitfit: Bitfit, model_folder: str, data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitfit_export.cli import train

    learn = train.train_task

    def interrupted(base: BaseModel, task_data: train.TaskData, *arguments: object) -> object:
        if task_data.spec.name == "tone":
            raise KeyboardInterrupt
        return learn(base, task_data, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train_task", interrupted)
    words = ["export", "--model", model_folder, "--data", data, "--train-missing", "--tasks", "mood,tone"]
    assert bitfit(*words).status == 130
    assert TaskDelta.load(workplace / "deltas/tiny-bert/mood").config.task == "mood"
    assert not (workplace / "bundles").exists()


def test_data_that_cannot_be_used_ends_it_before_any_training(
    bitfit: Bitfit, model_folder: str, data: Path, workplace: Path
) -> None:
    (data / "tone/train.jsonl").write_text("{")
    words = ["export", "--model", model_folder, "--data", data, "--tasks", "mood,tone"]
    done = bitfit(*words, "--train-missing")
    assert done.status == DataError.exit_code
    assert "train.jsonl" in done.err
    assert "training" not in done.err
    assert not (workplace / "deltas").exists()
    refused = bitfit(*words)
    assert refused.err == "error: --data without --train-missing, which trains on it\nhint: add --train-missing\n"


@pytest.mark.slow
def test_model_and_data_come_from_the_hub(tiny_base: BaseModel, tmp_path: Path) -> None:
    """The first command that people type, with a Hub on this machine, whose bert-base is a tiny one."""
    pytest.importorskip("datasets", reason="needs bitfit-export[train]")
    import pyarrow
    from pyarrow import parquet

    model = tmp_path / "hub/models/google-bert/bert-base-cased"
    tiny_base.module.save_pretrained(model)
    tiny_base.tokenizer.save_pretrained(model)
    glue = tmp_path / "hub/datasets" / HUB_DATASET
    pair = [{"sentence1": each["sentence"], "sentence2": "it is", "label": each["label"]} for each in EXAMPLES]
    configs = []
    for task, examples in {"rte": pair, "sst2": EXAMPLES}.items():
        (glue / task).mkdir(parents=True)
        for split in ("train", "validation"):
            parquet.write_table(pyarrow.Table.from_pylist(examples), glue / task / f"{split}-00000-of-00001.parquet")
        files = "".join(f"  - split: {split}\n    path: {task}/{split}-*\n" for split in ("train", "validation"))
        configs.append(f"- config_name: {task}\n  data_files:\n{files}")
    (glue / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    command = [sys.executable, "-m", "bitfit_export", "export", "--model", "bert-base", "--tasks", "rte,sst2"]
    with hub_server(tmp_path / "hub") as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [*command, "--train-missing"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "bundles/bert-base")
    assert tuple(manifest.tasks) == ("rte", "sst2")
    assert (manifest.base.name, manifest.base.revision) == ("google-bert/bert-base-cased", COMMIT)
