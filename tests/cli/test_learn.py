"""`bitfit learn`: a row from a folder of examples."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bitfit_export.bundle import read_row
from bitfit_export.errors import OutputError
from tests.cli.conftest import Bitfit

TRAIN = [
    {"text": text, "label": label}
    for label, texts in (
        ("good", ["good fine lovely", "a lovely day", "fine and good", "good food"]),
        ("bad", ["bad awful", "an awful day", "bad and poor", "poor food"]),
    )
    for text in texts
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "mood"
    write(folder, TRAIN)
    return folder


def write(folder: Path, train: Sequence[Mapping[str, object]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, examples in (("train", train), ("dev", TRAIN)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in examples))


def test_a_learnt_row_is_run_beside_the_bundles_own(bitfit: Bitfit, trainable_bundle: Path, data: Path) -> None:
    row = data / "mood.bias"
    words = ["--task", "mood", "--data", data, "--output", row, "--threads", 1]
    words += ["--learning-rate", "2e-2", "--schedule", "constant", "--epochs", 15]
    done = bitfit("learn", trainable_bundle, *words)
    assert done.status == 0, done.err
    assert done.out.strip() == str(row)
    assert done.err.startswith("learning ")
    assert " MB of memory\n" in done.err
    assert "epoch 1: accuracy" in done.err
    assert "(best so far)" in done.err
    assert "labels in id order: bad,good" in done.err
    assert read_row(row).labels == 2
    assert not list(data.glob(".mood*"))  # no checkpoint is left

    ran = bitfit("run", trainable_bundle, "--row", row, "--task", "mood", "--text", "a lovely day")
    assert json.loads(ran.out)["label"] == "LABEL_1"


#: Learns as a device does that has the runtime alone.
WITHOUT_TRAINING = """
import sys
for name in ("torch", "transformers", "onnx", "onnx_graphsurgeon", "safetensors", "sklearn", "scipy", "datasets"):
    sys.modules[name] = None
from bitfit_export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_device_learns_without_pytorch_transformers_and_onnx(trainable_bundle: Path, data: Path) -> None:
    words = ["--task", "mood", "--data", str(data), "--epochs", "1", "--threads", "1", "--output", str(data / "m.bias")]
    command = [sys.executable, "-c", WITHOUT_TRAINING, "learn", str(trainable_bundle), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_row(data / "m.bias").task == "mood"


def test_a_task_of_glue_has_its_own_metric_unless_the_user_names_one(
    bitfit: Bitfit, trainable_bundle: Path, tmp_path: Path
) -> None:
    labels = {"good": "equivalent", "bad": "not_equivalent"}
    lines = [{"sentence1": each["text"], "sentence2": "a film", "label": labels[each["label"]]} for each in TRAIN]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    words = ["--task", "mrpc", "--data", tmp_path, "--output", tmp_path / "mrpc.bias", "--threads", 1, "--epochs", 1]
    done = bitfit("learn", trainable_bundle, *words)
    assert "epoch 1: f1" in done.err, done.err
    done = bitfit("learn", trainable_bundle, *words, "--overwrite", "--metric", "accuracy")
    assert "epoch 1: accuracy" in done.err, done.err


REFUSED: dict[str, tuple[list[dict[str, str]], str]] = {
    "an empty file": ([], "has no examples"),
    "one class": ([each for each in TRAIN if each["label"] == "good"], "has one label only, 'good'"),
}


@pytest.mark.parametrize(("train", "message"), REFUSED.values(), ids=REFUSED)
def test_data_that_cannot_be_learnt_from(
    bitfit: Bitfit, trainable_bundle: Path, data: Path, train: list[dict[str, str]], message: str
) -> None:
    write(data, train)
    done = bitfit("learn", trainable_bundle, "--task", "mood", "--data", data, "--output", data / "mood.bias")
    assert done.status == 2
    assert message in done.err
    assert not (data / "mood.bias").exists()


def test_more_memory_than_the_user_allows_is_refused(bitfit: Bitfit, trainable_bundle: Path, data: Path) -> None:
    words = ("--task", "mood", "--data", data, "--output", data / "mood.bias", "--memory", "1")
    done = bitfit("learn", trainable_bundle, *words)
    assert done.status == 2
    assert "expected at most 1 MB\nhint: compute fewer at once: --part-size 4" in done.err


TAGGED = [
    {"tokens": ["Ada", "met", "Bob"], "tags": ["B-PER", "O", "B-PER"]},
    {"tokens": ["Bob", "saw", "a", "film"], "tags": ["B-PER", "O", "O", "O"]},
]


def test_a_token_task_needs_a_bundle_with_one(bitfit: Bitfit, trainable_bundle: Path, data: Path) -> None:
    write(data, TAGGED)
    (data / "dev.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    done = bitfit("learn", trainable_bundle, "--task", "names", "--data", data, "--output", data / "names.bias")
    assert done.status == 2
    assert "a token task reads each token, but the bundle has no output token_logits" in done.err
    assert "export the bundle together with a token or span task" in done.err


def test_a_row_that_is_there_is_kept(bitfit: Bitfit, trainable_bundle: Path, data: Path) -> None:
    (data / "mood.bias").write_bytes(b"mine")
    done = bitfit("learn", trainable_bundle, "--task", "mood", "--data", data, "--output", data / "mood.bias")
    assert done.status == 2
    assert "exists already" in done.err
    assert (data / "mood.bias").read_bytes() == b"mine"


def test_a_row_that_finds_no_room_is_not_learnt_twice(
    bitfit: Bitfit, trainable_bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OutputError(f"{path} cannot be written: No space left on device")

    words = ("--task", "mood", "--data", data, "--output", data / "mood.bias", "--epochs", "1", "--threads", "1")
    with monkeypatch.context() as patch:
        patch.setattr("bitfit_export.runtime.learning.trainer.write_bytes", full)
        refused = bitfit("learn", trainable_bundle, *words)
    assert refused.status == 2
    assert "No space left on device" in refused.err
    done = bitfit("learn", trainable_bundle, *words)
    assert "resuming from" in done.err
    assert "epoch 1:" not in done.err
    assert read_row(data / "mood.bias").task == "mood"


@pytest.mark.slow
def test_a_kill_loses_only_the_steps_since_the_last_checkpoint(trainable_bundle: Path, data: Path) -> None:
    row = data / "mood.bias"
    command = [sys.executable, "-m", "bitfit_export", "learn", str(trainable_bundle), "--task", "mood"]
    command += ["--data", str(data), "--epochs", "60", "--checkpoint-steps", "1", "--threads", "1", "--output"]
    whole, checkpoint = data / "whole.bias", data / ".mood.bias.learning"
    process = subprocess.Popen([*command, str(row)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not row.exists()
    again = subprocess.run([*command, str(row)], capture_output=True, text=True, check=True)
    assert "resuming from" in again.stderr
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    assert row.read_bytes() == whole.read_bytes()
