"""bitfit-train: a delta that compiles, from one's own data; a killed run resumes; bad data ends before training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.delta import CONFIG_FILE, TENSOR_FILE, TaskDelta
from bitfit_export.files.locks import locked
from tests.cli.conftest import Bitfit, write_lines

QUICK = ["--pooling", "mean", "--learning-rate", "0.01", "--max-length", "16", "--threads", "1"]


@pytest.fixture
def mood_data(workplace: Path) -> Path:
    """32 examples to train on and 8 to validate on, in the columns that need no option."""
    folder = workplace / "data"
    folder.mkdir()
    examples = [{"sentence": f"it is {word}", "label": label} for label, word in enumerate(["bad", "good"])]
    write_lines(folder / "train.jsonl", examples * 16)
    write_lines(folder / "dev.jsonl", examples * 4)
    return folder


@pytest.mark.usefixtures("shared_trace")
def test_a_delta_is_trained_and_compiled(bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path) -> None:
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--epochs", 2, *QUICK]
    done = bitfit("train", *words, "--labels", "bad,good")
    assert done.status == 0, done.err
    assert done.out == "deltas/tiny-bert/mood\n"
    assert "epoch 1: " in done.err
    assert "(best so far)" in done.err
    assert "best epoch: " in done.err
    delta = TaskDelta.load(workplace / "deltas/tiny-bert/mood")
    assert delta.config.labels == ("bad", "good")
    assert "accuracy" in (workplace / "deltas/tiny-bert/mood/README.md").read_text()
    assert os.listdir(workplace / "deltas/tiny-bert") == ["mood"]
    assert bitfit("export", "--model", model_folder, "--tasks", "mood").status == 0
    answer = json.loads(bitfit("run", "bundles/tiny-bert", "--task", "mood", "--text", "it is good").out)
    assert answer["label"] in ("bad", "good")


def test_words_with_tags_and_questions_with_answers_are_trained_on(
    bitfit: Bitfit, model_folder: str, workplace: Path
) -> None:
    examples = {
        "tags": {"tokens": ["it", "runs"], "tags": ["PRON", "VERB"]},
        "qa": {"question": "who?", "context": "a cat ran", "answers": [{"text": "a cat", "answer_start": 0}]},
    }
    for task, example in examples.items():
        (workplace / task).mkdir()
        for name in ("train", "dev"):
            write_lines(workplace / task / f"{name}.jsonl", [example] * 4)
        words = ["--model", model_folder, "--task", task, "--data", task, "--epochs", 1, "--train-examples", 3]
        done = bitfit("train", *words, "--max-length", 16, "--stride", 4, "--threads", 1)
        assert done.status == 0, done.err
        config = TaskDelta.load(workplace / "deltas/tiny-bert" / task).config
        assert (config.pooling, config.activation) == ("tokens", None)
        assert config.training["train_rows"] == 3


@pytest.mark.parametrize("has_bf16", [False, True])
def test_bfloat16_on_a_processor_without_it_is_warned_of(
    bitfit: Bitfit, model_folder: str, mood_data: Path, monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    found = {"architecture": "x86_64", "avx512_bf16": has_bf16, "amx_bf16": False}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--epochs", 1, *QUICK, "--bf16"]
    done = bitfit("train", *words)
    assert done.status == 0, done.err
    assert ("no instructions for bfloat16" in done.err) is not has_bf16


def test_a_head_with_a_dense_layer_is_asked_for(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path
) -> None:
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--epochs", 1, *QUICK]
    assert bitfit("train", *words, "--activation", "gelu").status == 0
    delta = TaskDelta.load(workplace / "deltas/tiny-bert/mood")
    assert (delta.config.pooling, delta.config.activation) == ("mean", "gelu")
    assert delta.head["dense.weight"].shape == (32, 32)


def test_what_was_chosen_is_said(bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path) -> None:
    """The pooling is the model's own, the schedule one that trains, and both are in the delta."""
    shutil.copytree(model_folder, "pooled")
    (workplace / "pooled/1_Pooling").mkdir()
    (workplace / "pooled/1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    words = ["--task", "mood", "--data", mood_data, "--epochs", 1, "--max-length", 16, "--threads", 1]
    own = bitfit("train", "--model", "pooled", *words)
    assert own.status == 0, own.err
    assert "head: pooling mean (the model's own, by its pooling's config.json), one linear layer\n" in own.err
    assert "learning rate: 0.0004, linear, warm-up in 10% of the steps\n" in own.err
    config = TaskDelta.load(workplace / "deltas/pooled/mood").config
    assert config.pooling == "mean"
    assert (config.training["schedule"], config.training["warmup"]) == ("linear", 0.1)
    usual = bitfit("train", "--model", model_folder, *words, "--schedule", "constant", "--warmup", 0)
    assert "head: pooling pooler (that of transformers' class; the model names none of its own)" in usual.err
    assert "learning rate: 0.0004, constant, warm-up in 0% of the steps\n" in usual.err


def test_a_run_that_learnt_nothing_says_so_with_a_hint(bitfit: Bitfit, model_folder: str, workplace: Path) -> None:
    """The columns are those of `bitfit run`, and the labels have nothing to do with the texts."""
    (workplace / "data").mkdir()
    for name in ("train", "dev"):
        (workplace / "data" / f"{name}.csv").write_text("text,label\n" + "it is so,no\nit is so,yes\n" * 16)
    words = ["--model", model_folder, "--task", "luck", "--data", "data", "--epochs", 1, "--learning-rate", 0.001]
    done = bitfit("train", *words, "--schedule", "constant", "--max-length", 16, "--threads", 1)
    assert (done.status, done.out) == (0, "deltas/tiny-bert/luck\n")
    warning, hint = done.err.splitlines()[-2:]
    assert warning == (
        "warning: nothing was learnt: accuracy reached 0.5000 on 32 examples, and the same answer to every example has "
        "0.5000"
    )
    assert hint == (
        "hint: train again with --pooling mean, --schedule linear --warmup 0.1, "
        "another --learning-rate than 0.001 or more --epochs than 1"
    )


def test_a_run_that_learnt_something_says_nothing(bitfit: Bitfit, model_folder: str, mood_data: Path) -> None:
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--epochs", 6, *QUICK]
    done = bitfit("train", *words)
    assert "accuracy 1.0000" in done.err
    assert "warning" not in done.err


def test_an_existing_delta_is_refused_before_training(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path
) -> None:
    (workplace / "deltas/tiny-bert/mood").mkdir(parents=True)
    done = bitfit("train", "--model", model_folder, "--task", "mood", "--data", mood_data, *QUICK)
    assert done.status == 2
    assert "exists already" in done.err
    assert "epoch" not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "3"], "--learning-rate is 3.0"),
        (["--bias-terms", "b_z"], "--bias-terms b_z selects none"),
        (["--max-length", "500"], "takes at most 64 tokens"),
        (["--columns", "words"], "words"),
        (["--task", "a task"], "cannot be a task's name"),
        (["--train-examples", "0"], "--train-examples is 0"),
        (["--pooling", "tokens"], "--pooling tokens for a single_label task"),
        (["--data-revision", "v2"], "the data's revision is v2, but the data is in files"),
    ],
)
def test_bad_words_end_before_training(
    bitfit: Bitfit, model_folder: str, mood_data: Path, words: list[str], message: str
) -> None:
    done = bitfit("train", "--model", model_folder, "--task", "mood", "--data", mood_data, *QUICK, *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "epoch" not in done.err


@pytest.mark.parametrize("method", ["full", "adapters"])
def test_a_method_that_changes_more_than_biases_writes_no_delta(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path, method: str
) -> None:
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--epochs", 1, *QUICK]
    done = bitfit("train", *words, "--method", method)
    assert (done.status, done.out) == (0, "")
    assert f"--method {method} changes more than biases and head: there is no delta to compile" in done.err
    assert not (workplace / "deltas/tiny-bert/mood").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_delta(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path
) -> None:
    """SIGKILL in the second epoch: no handler runs."""
    words = ["--model", model_folder, "--task", "mood", "--data", str(mood_data), "--epochs", "4", *QUICK]
    assert bitfit("train", *words, "--output", "whole").status == 0
    train = "from bitfit_export.cli import main_train; raise SystemExit(main_train())"
    command = [sys.executable, "-c", train, *words, "--output", "killed"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2:" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL
    assert not (workplace / "killed").exists()
    changed = bitfit("train", *words, "--output", "killed", "--seed", 1)
    assert "holds an interrupted run with other settings" in changed.err
    resumed = bitfit("train", *words, "--output", "killed")
    assert resumed.status == 0
    assert "going on after step" in resumed.err
    for name in (TENSOR_FILE, CONFIG_FILE):
        assert (workplace / "killed" / name).read_bytes() == (workplace / "whole" / name).read_bytes()
    assert sorted(os.listdir(workplace)) == ["data", "killed", "whole"]


def test_an_unreachable_hub_is_one_line_and_a_hint(tmp_path: Path) -> None:
    train = "from bitfit_export.cli import main_train; raise SystemExit(main_train())"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", train, "--model", "minilm-l6", "--task", "rte"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "--data" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(
    model_folder: str, mood_data: Path, tmp_path: Path
) -> None:
    """On a file system of 20 KiB there is no room for a checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["train", "--model", model_folder, "--task", "mood", "--data", str(mood_data), "--epochs", "1", *QUICK]
    script = f"""
import os, subprocess
from bitfit_export.cli import main
subprocess.run("mount -t tmpfs -o size=20k tmpfs {disk}", shell=True, check=True)
print("status", main({words} + ["--output", "{disk}/out"]))
subprocess.run("mount -o remount,size=4m {disk}", shell=True, check=True)
main({words} + ["--output", "{disk}/out"])
print(*os.listdir("{disk}"))
"""
    command = ["unshare", "--mount", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"can't mount a small file system here: {done.stderr.strip()}")
    assert done.stdout.split() == ["status", "2", f"{disk}/out", "out"], done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_base_model_and_data_are_never_the_output(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfit_export.cli.train.load_task_data", None)
    shutil.copytree(model_folder, workplace / "own")
    files = ["--train-file", "data/train.jsonl", "--validation-file", "data/dev.jsonl"]
    for output, data in (("own", ["--data", "data"]), ("data/mood", ["--data", "data"]), (".", files), ("data", files)):
        done = bitfit("train", "--model", "own", "--task", "mood", *data, "--output", output, "--overwrite", *QUICK)
        assert done.status == 2, output
        assert "which this command reads" in done.err
    assert sorted(os.listdir(workplace)) == ["data", "own"]
    assert sorted(os.listdir(mood_data)) == ["dev.jsonl", "train.jsonl"]


@pytest.mark.parametrize("command", [["sweep", "--tasks", "mood"], ["reproduce", "table3", "--tasks", "mood"]])
def test_a_sweep_does_not_write_into_base_model_or_data(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path, command: list[str]
) -> None:
    shutil.copytree(model_folder, workplace / "own")
    for output in ("own", "own/results", "data", "."):
        done = bitfit(*command, "--model", "own", "--data", "data", "--output", output)
        assert done.status == 2, output
        assert "which this command reads" in done.err
    assert sorted(os.listdir(workplace)) == ["data", "own"]
    assert sorted(os.listdir(mood_data)) == ["dev.jsonl", "train.jsonl"]


def test_a_second_process_is_kept_out(bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path) -> None:
    (workplace / ".out.training").mkdir()
    with locked(workplace / ".out.training/lock", "busy"):
        words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--output", "out", *QUICK]
        done = bitfit("train", *words)
    assert done.status == 2
    assert "another bitfit-train is at work in .out.training" in done.err


def test_an_interrupted_run_is_forgotten_when_asked(
    bitfit: Bitfit, model_folder: str, mood_data: Path, workplace: Path
) -> None:
    (workplace / ".out.training/checkpoint-2").mkdir(parents=True)
    (workplace / ".out.training/checkpoint-2/complete").touch()
    (workplace / ".out.training/run.json").write_text("other settings")
    words = ["--model", model_folder, "--task", "mood", "--data", mood_data, "--output", "out", "--epochs", 1, *QUICK]
    assert "other settings or data" in bitfit("train", *words).err
    assert bitfit("train", *words, "--restart").status == 0
