"""bitfit-export: a verified bundle, or what was there before and one clear error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import read_manifest
from bitfit_export.delta import CONFIG_FILE, TaskDelta
from bitfit_export.files import new_folder
from bitfit_export.runtime import BiasSession
from tests import traces
from tests.cli.conftest import Bitfit

EXPORT = [sys.executable, "-c", "from bitfit_export.cli import main_export; raise SystemExit(main_export())"]


def test_a_bundle_is_compiled_verified_and_reported(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    done = bitfit("export", "--model", model_folder, "--tasks", "three_way,score", "--deltas", deltas_folder)
    assert done.status == 0, done.err
    assert done.out == "bundles/tiny-bert\n"
    assert "largest difference to PyTorch" in done.err
    assert "one full model per task, 2 of them" in done.err
    assert set(read_manifest(workplace / "bundles/tiny-bert").tasks) == {"three_way", "score"}
    assert os.listdir(workplace / "bundles") == ["tiny-bert"]


@pytest.mark.usefixtures("shared_trace")
def test_a_task_may_be_named_after_a_folder(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    done = bitfit("export", "--model", model_folder, "--tasks", f"mine={deltas_folder / 'two_way'}", "--output", "out")
    assert done.status == 0, done.err
    assert BiasSession(workplace / "out").tasks == ("mine",)


@pytest.mark.usefixtures("shared_trace")
def test_deltas_are_found_where_bitfit_train_puts_them(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    shutil.copytree(deltas_folder, workplace / "deltas/tiny-bert")
    assert bitfit("export", "--model", model_folder, "--tasks", "two_way").status == 0


@pytest.mark.usefixtures("shared_trace")
def test_an_existing_output_is_refused_before_any_work(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    words = ["export", "--model", model_folder, "--tasks", "two_way", "--deltas", deltas_folder, "--output", "out"]
    assert bitfit(*words).status == 0
    (workplace / "out/tokenizer.json").write_text("x")
    done = bitfit(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: the output out exists already")
    assert "hint: choose another --output, or pass --overwrite" in done.err
    assert (workplace / "out/tokenizer.json").read_text() == "x"
    assert bitfit(*words, "--overwrite").status == 0
    assert (workplace / "out/tokenizer.json").read_text() != "x"
    (workplace / "out/tasks/mine.bias").touch()
    refused = bitfit(*words, "--overwrite")
    assert refused.status == 2
    assert refused.err.startswith("error: the output out holds 'tasks/mine.bias', which is not part of a bundle")


def test_what_is_no_bundle_is_never_replaced(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model, a delta, what is above or below them, and another program's folder: before anything is loaded."""
    monkeypatch.setattr("bitfit_export.cli.export.load_base_model", None)
    shutil.copytree(model_folder, workplace / "own")
    shutil.copytree(deltas_folder, workplace / "deltas")
    (workplace / "site").mkdir()
    (workplace / "site/manifest.json").write_text('{"name": "My site", "icons": []}')
    words = ["export", "--model", "own", "--tasks", "two_way", "--deltas", "deltas", "--overwrite"]
    for output in ("own", "own/bundle", ".", "deltas", "deltas/two_way", "deltas/two_way/bundle", "site"):
        done = bitfit(*words, "--output", output)
        assert done.status == 2, output
        assert "which this command reads" in done.err or "is not a bundle" in done.err
    assert sorted(os.listdir(workplace)) == ["deltas", "own", "site"]
    for folder, original in (("own", Path(model_folder)), ("deltas/two_way", deltas_folder / "two_way")):
        assert sorted(os.listdir(workplace / folder)) == sorted(os.listdir(original))
    assert os.listdir(workplace / "site") == ["manifest.json"]


def test_a_second_export_to_one_output_is_refused(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    with new_folder(workplace / "out"):
        done = bitfit(
            "export", "--model", model_folder, "--tasks", "two_way", "--deltas", deltas_folder, "--output", "out"
        )
    assert done.status == 2
    assert done.err.startswith("error: another process is writing out\nhint: wait for it to end")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("unheard", "no delta for the task unheard on tiny-bert"),
        ("two_way,two_way", "named twice"),
        ("", "names no task"),
        ("two way", "cannot be a task's name"),
        ("x=/nowhere", "/nowhere holds no delta"),
    ],
)
def test_tasks_that_cannot_be_are_refused(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, tasks: str, message: str
) -> None:
    done = bitfit("export", "--model", model_folder, "--tasks", tasks, "--deltas", deltas_folder)
    assert done.status == 2
    assert message in done.err
    assert "hint:" in done.err or tasks == "two_way,two_way"
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("model", ["bert-base", "google/electra-small-discriminator"])
def test_a_missing_delta_hints_at_the_command_that_makes_it(bitfit: Bitfit, workplace: Path, model: str) -> None:
    done = bitfit("export", "--model", model, "--tasks", "rte,sst2")
    assert done.status == 2
    hint = f"hint: train it: bitfit-train --model {model} --task rte; bitfit-export --train-missing trains all"
    assert done.err.splitlines()[-1] == hint
    assert len(done.err.splitlines()) == 2


def test_a_delta_of_another_base_is_refused(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    shutil.copytree(deltas_folder / "two_way", workplace / "other")
    config = json.loads((workplace / "other" / CONFIG_FILE).read_text())
    (workplace / "other" / CONFIG_FILE).write_text(json.dumps(config | {"base_digest": "0" * 64}))
    done = bitfit("export", "--model", model_folder, "--tasks", "two_way=other", "--output", "out")
    assert done.status == 2
    assert "was trained on tiny-bert with digest 000000000000" in done.err
    assert os.listdir(workplace) == ["other"]


@pytest.mark.usefixtures("shared_trace")
def test_a_bundle_that_differs_from_pytorch_is_not_published(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect is put into the reference's place: one bias term off by a tenth in what the compiler packs."""
    original = TaskDelta.merge
    calls = []

    def wrong_once(self: TaskDelta, biases: dict[str, object]) -> dict[str, object]:
        merged = original(self, biases)  # type: ignore[arg-type]
        if not calls:
            calls.append(1)
            merged["encoder.layer.0.intermediate.dense.bias"] = merged["encoder.layer.0.intermediate.dense.bias"] + 0.1
        return merged  # type: ignore[return-value]

    monkeypatch.setattr(TaskDelta, "merge", wrong_once)
    done = bitfit("export", "--model", model_folder, "--tasks", "two_way", "--deltas", deltas_folder, "--output", "out")
    assert done.status == 1
    assert "comparisons with PyTorch failed" in done.err
    assert list(workplace.iterdir()) == []


def old_bundle(workplace: Path, tiny_bundle: Path) -> list[str]:
    shutil.copytree(tiny_bundle, workplace / "out")
    (workplace / "out/tokenizer.json").write_text("old")
    return ["--output", str(workplace / "out"), "--overwrite"]


@pytest.mark.slow
def test_an_interrupted_compile_leaves_what_was_there(
    model_folder: str, deltas_folder: Path, workplace: Path, tiny_bundle: Path
) -> None:
    """By SIGTERM. SIGINT is a KeyboardInterrupt, which `tests/cli/test_merge.py` raises."""
    old = old_bundle(workplace, tiny_bundle)
    words = ["--model", model_folder, "--tasks", "two_way", "--deltas", str(deltas_folder), *old]
    process = subprocess.Popen([*EXPORT, *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("compiling"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130, rest
    assert rest.splitlines()[-1] == f"interrupted; {workplace}/out was not changed"
    assert (workplace / "out/tokenizer.json").read_text() == "old"
    assert os.listdir(workplace) == ["out"]


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(
    tiny_base: BaseModel, model_folder: str, deltas_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """On a file system of 2 MiB: the weights alone are 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    traces.traced(tiny_base)  # made where there is room
    words = ["--model", model_folder, "--tasks", "two_way", "--deltas", str(deltas_folder)]
    python = f"{traces.for_another_process()}; {EXPORT[-1]}"
    script = f"""
mount -t tmpfs -o size=2m tmpfs {disk} && mkdir {disk}/out && cp {tiny_bundle}/manifest.json {disk}/out
"$@" --output {disk}/out --overwrite; echo "status $?"; ls -A {disk}; ls -A {disk}/out
"""
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", python, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"can't mount a small file system here: {done.stderr.strip()}")
    assert done.stdout.split() == ["status", "2", "out", "manifest.json"], done.stderr
    assert "No space left on device" in done.stderr


def test_an_unreachable_hub_is_one_line_and_a_hint(deltas_folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    words = ["--model", "bert-base", "--tasks", "two_way", "--deltas", str(deltas_folder), "--output", "out"]
    done = subprocess.run([*EXPORT, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    _, error, hint = done.stderr.splitlines()
    assert error.startswith(
        "error: the base model google-bert/bert-base-cased cannot be loaded from the Hugging Face Hub "
    )
    assert "couldn't find" in error, "what transformers says"
    assert hint == "hint: check the name and the network, or pass --model a local folder with the checkpoint"


def test_verify_repeats_the_proof(
    bitfit: Bitfit, tiny_bundle: Path, tiny_base: BaseModel, deltas_folder: Path, workplace: Path
) -> None:
    words = ["verify", tiny_bundle, "--deltas", deltas_folder]
    done = bitfit(*words, "--model", tiny_base.source.location, "--seed", 3)
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.err.splitlines()[2:]] == ["score", "three_way", "two_way", "mixed"]


def test_verify_finds_a_bundle_whose_row_is_of_another_training(
    bitfit: Bitfit, tiny_bundle: Path, tiny_base: BaseModel, deltas_folder: Path, workplace: Path
) -> None:
    swapped = f"two_way={deltas_folder / 'three_way'}"
    done = bitfit("verify", tiny_bundle, "--model", tiny_base.source.location, "--tasks", swapped)
    assert done.status == 1
    assert "number of logits" in done.err


@pytest.mark.usefixtures("shared_trace")
def test_ranges_are_calibrated_on_the_users_texts_and_their_headroom_is_shown(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    texts = workplace / "texts.jsonl"
    texts.write_text('One text.\n{"text": "Two texts,", "text_pair": "as a pair."}\n')
    words = ["export", "--model", model_folder, "--tasks", "two_way,score", "--deltas", deltas_folder]
    ranges = []
    for name, more in (("samples", []), ("own", ["--calibration", texts])):
        done = bitfit(*words, "--precision", "int8-static", "--output", name, *more)
        assert done.status == 0, done.err
        ranges.append(read_manifest(workplace / name).quantization.ranges)
    assert ranges[0].keys() == ranges[1].keys()
    assert ranges[0] != ranges[1]

    later = workplace / "samples/tasks/score.bias"
    done = bitfit("verify", "samples", "--headroom", "--tasks", "two_way", "--row", later)
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["two_way", "score"]


def test_calibration_texts_that_cannot_be_read_are_refused_before_any_work(
    bitfit: Bitfit, model_folder: str, deltas_folder: Path, workplace: Path
) -> None:
    words = ["export", "--model", model_folder, "--tasks", "two_way", "--deltas", deltas_folder]
    done = bitfit(*words, "--precision", "int8-static", "--calibration", "missing.txt")
    assert done.status == 2
    assert done.err == "error: missing.txt cannot be read: No such file or directory\n"


def test_headroom_needs_constant_ranges_and_a_task_of_the_bundle(
    bitfit: Bitfit, tiny_bundle: Path, workplace: Path
) -> None:
    done = bitfit("verify", tiny_bundle, "--headroom")
    assert done.status == 2
    assert "has no ranges that are constants" in done.err
    done = bitfit("verify", tiny_bundle, "--headroom", "--tasks", "other")
    assert done.status == 2
    assert "the bundle has no task other, expected one of" in done.err
    done = bitfit("verify", tiny_bundle, "--row", "x.bias")
    assert done.status == 2
    assert "--row goes with --headroom" in done.err
