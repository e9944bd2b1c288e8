"""bitfit merge: a checkpoint for transformers, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import PreTrainedModel

from bitfit_export.delta import TaskDelta
from tests.cli.conftest import Bitfit


def test_transformers_loads_what_is_written(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, tiny_deltas: dict[str, TaskDelta]
) -> None:
    done = bitfit("merge", model_folder, deltas_folder / "three_way", "--output", "merged")
    assert (done.status, done.out) == (0, "merged\n"), done.err
    assert done.err == "BertForSequenceClassification: the logits are those of tiny-bert with three_way\n"
    answer = transformers.pipeline("text-classification", model="merged", device="cpu")("a funny film")[0]
    assert answer["label"] in tiny_deltas["three_way"].config.labels
    assert os.listdir(workplace) == ["merged"]


def test_what_is_written_gives_the_delta_back(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    bitfit("merge", model_folder, deltas_folder / "three_way", "--output", "merged")
    assert bitfit("diff", model_folder, "merged", "--task", "three_way", "--output", "again").status == 0
    first, again = TaskDelta.load(deltas_folder / "three_way"), TaskDelta.load(workplace / "again")
    assert again.config.bias_terms == first.config.bias_terms
    for name, value in first.biases.items():
        # Differences of about 0.3 on biases of about 0.1: float32 steps there are below 1.2e-7.
        assert abs(again.biases[name] - value).max() <= 2e-7


def test_a_mean_head_is_refused_and_nothing_is_written(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    done = bitfit("merge", model_folder, deltas_folder / "two_way", "--output", "merged")
    assert done.status == 2
    assert "has pooling mean and one linear layer, but BertForSequenceClassification has pooling pooler" in done.err
    assert "hint: train with --pooling pooler, or compile the task with bitfit-export" in done.err
    assert list(workplace.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    words = ["merge", model_folder, deltas_folder / "three_way", "--output", "merged"]
    assert bitfit(*words).status == 0
    made = (workplace / "merged").stat().st_ino
    assert bitfit(*words).err.startswith("error: the output merged exists already")
    assert (workplace / "merged").stat().st_ino == made
    assert bitfit(*words, "--overwrite").status == 0
    assert (workplace / "merged").stat().st_ino != made
    assert os.listdir(workplace) == ["merged"]


@pytest.mark.parametrize("file", ["training_args.bin", "model.safetensors"])
def test_a_merged_checkpoint_that_was_trained_on_is_not_replaced(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, file: str
) -> None:
    words = ["merge", model_folder, deltas_folder / "three_way", "--output", "merged"]
    assert bitfit(*words).status == 0
    (workplace / "merged" / file).write_bytes(b"days of work")
    refused = bitfit(*words, "--overwrite")
    assert refused.status == 2
    assert f"the output merged holds '{file}'" in refused.err
    assert (workplace / "merged" / file).read_bytes() == b"days of work"


def test_base_model_and_delta_are_never_the_output(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    shutil.copytree(model_folder, workplace / "own")
    shutil.copytree(deltas_folder / "three_way", workplace / "three_way")
    for output in ("own", "own/merged", "three_way", "."):
        done = bitfit("merge", "own", "three_way", "--output", output, "--overwrite")
        assert done.status == 2
        assert "which this command reads" in done.err
    assert sorted(os.listdir(workplace / "own")) == sorted(os.listdir(model_folder))
    assert sorted(os.listdir(workplace)) == ["own", "three_way"]


def test_what_is_no_delta_is_refused(bitfit: Bitfit, model_folder: str, workplace: Path) -> None:
    (workplace / "empty").mkdir()
    done = bitfit("merge", model_folder, "empty", "--output", "merged")
    assert done.status == 2
    assert "bitfit_config.json cannot be read" in done.err
    assert os.listdir(workplace) == ["empty"]


def test_an_interrupted_merge_leaves_what_was_there(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C arrives when the weights are written and the tokenizer is not."""
    words = ["merge", model_folder, deltas_folder / "three_way", "--output", "merged"]
    assert bitfit(*words).status == 0
    made = (workplace / "merged").stat().st_ino
    save = PreTrainedModel.save_pretrained

    def interrupted(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", interrupted)
    done = bitfit(*words, "--overwrite")
    assert done.status == 130
    assert done.err.splitlines()[-1] == "interrupted; merged was not changed"
    assert os.listdir(workplace) == ["merged"]
    assert (workplace / "merged").stat().st_ino == made


def test_the_help_shows_both_commands_with_examples(bitfit: Bitfit, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["diff", "--help"], ["merge", "--help"]):
        with pytest.raises(SystemExit) as left:
            bitfit(*words)
        assert left.value.code == 0
        text = capsys.readouterr().out
        assert "example: bitfit" in text
        assert words[0] == "--help" or f"bitfit {words[0]}" in text
    with pytest.raises(SystemExit):
        bitfit("--help")
    text = capsys.readouterr().out
    assert "bitfit diff bert-base" in text
    assert "bitfit merge bert-base" in text
