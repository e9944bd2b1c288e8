"""bitfit diff: what a checkpoint changed, on stderr and as JSON, and a delta that bitfit-export takes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import CARD_FILE, TaskDelta
from bitfit_export.errors import DeltaError, UsageError
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas
from bitfit_export.interop.merging import merge_task
from tests.cli.conftest import Bitfit
from tests.conftest import random_delta

BIAS = "encoder.layer.0.intermediate.dense.bias"


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> Path:
    """A BertForSequenceClassification with the biases and the head of `three_way`."""
    folder = tmp_path_factory.mktemp("checkpoint") / "three-way-bert"
    merge_task(tiny_base, tiny_deltas["three_way"], folder)
    return folder


def with_changed_weight(checkpoint: Path, folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.weight"][0, 0] += 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_every_changed_tensor_has_a_line(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path, tiny_deltas: dict[str, TaskDelta]
) -> None:
    done = bitfit("diff", model_folder, checkpoint)
    assert (done.status, done.out) == (0, ""), done.err
    lines = {line.split()[0]: line for line in done.err.splitlines()}
    change = np.abs(tiny_deltas["three_way"].biases[BIAS])
    assert lines[BIAS].split()[1:] == ["bias", "term", "64", f"{change.max():.3g}", f"{change.mean():.3g}"]
    assert lines["classifier.weight"].split()[1:] == ["head", "3", "x", "32"]
    assert done.err.splitlines()[-1].endswith("bias terms changed, and 0 other tensors")
    assert list(workplace.iterdir()) == []


def test_json_has_the_same_on_stdout(bitfit: Bitfit, model_folder: str, checkpoint: Path, tmp_path: Path) -> None:
    changed = with_changed_weight(checkpoint, tmp_path / "changed")
    difference = json.loads(bitfit("diff", model_folder, changed, "--json").out)
    assert difference["weights changed"] == 1
    weight = next(each for each in difference["changes"] if each["kind"] == "weight")
    assert (weight["name"], weight["shape"]) == ("encoder.layer.1.output.dense.weight", [32, 64])
    assert weight["largest"] == pytest.approx(0.5, abs=1e-6)
    assert weight["mean"] == pytest.approx(0.5 / (32 * 64), rel=1e-5)
    assert difference["head"] == {"classifier.weight": [3, 32], "classifier.bias": [3]}


def test_the_delta_that_it_writes_is_found_by_bitfit_export(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path, tiny_deltas: dict[str, TaskDelta]
) -> None:
    output = workplace / "deltas/tiny-bert/mine"
    done = bitfit("diff", model_folder, checkpoint, "--output", output)
    assert (done.status, done.out) == (0, f"{output}\n"), done.err
    (delta,) = load_deltas(find_deltas("tiny-bert", ["mine"])).values()
    assert (delta.config.task, delta.config.method, delta.config.metrics) == ("mine", "imported", {})
    assert delta.config.labels == tiny_deltas["three_way"].config.labels
    card = (output / "README.md").read_text()
    assert card.startswith("---\nbase_model: tiny-bert\n")
    assert "from a `BertForSequenceClassification`" in card


def test_the_task_and_its_labels_may_be_named(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path
) -> None:
    words = ["diff", model_folder, checkpoint, "--output", "out", "--json"]
    done = bitfit(*words, "--task", "colours", "--labels", "red, green,blue")
    assert done.status == 0, done.err
    assert json.loads(done.out)["weights changed"] == 0
    assert done.err.splitlines()[-1] == "out"
    config = TaskDelta.load(workplace / "out").config
    assert (config.task, config.labels) == ("colours", ("red", "green", "blue"))


def test_a_checkpoint_with_other_weights_is_listed_and_no_delta_is_made(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path
) -> None:
    with_changed_weight(checkpoint, workplace / "changed")
    assert bitfit("diff", model_folder, "changed").status == 0
    done = bitfit("diff", model_folder, "changed", "--output", "out")
    assert (done.status, done.out) == (2, "")
    assert "and 1 other tensors\nerror: 1 tensors of changed (float32) besides bias terms and the head" in done.err
    assert "encoder.layer.1.output.dense.weight by up to 0.5" in done.err
    assert os.listdir(workplace) == ["changed"]


def edit_config(checkpoint: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_labels_that_do_not_fit_the_head_do_not_stop_the_list_and_labels_repairs_them(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path
) -> None:
    edit_config(checkpoint, workplace / "bad", id2label={"0": "no", "1": "yes"})
    done = bitfit("diff", model_folder, "bad")
    assert (done.status, "bias terms changed, and 0 other tensors" in done.err) == (0, True), done.err
    done = bitfit("diff", model_folder, "bad", "--output", "out")
    assert done.status == 2
    assert "error: id2label in config.json names the ids '0, 1', but the head has 3 outputs" in done.err
    assert "hint: name the labels in the order of the outputs: bitfit diff ... --labels A,B,..." in done.err
    assert bitfit("diff", model_folder, "bad", "--output", "out", "--labels", "a,b,c").status == 0
    assert TaskDelta.load(workplace / "out").config.labels == ("a", "b", "c")


def test_of_one_output_the_choice_is_said_and_the_option_decides(
    bitfit: Bitfit, model_folder: str, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], workplace: Path
) -> None:
    merge_task(tiny_base, random_delta(tiny_base, "score", labels=(), problem_type="regression"), workplace / "told")
    edit_config(workplace / "told", workplace / "open", problem_type=None)
    said = "taken for a regression, as its head has one output and its config names no problem_type"
    assert said not in bitfit("diff", model_folder, "told", "--output", "a").err
    assert f"b: {said}" in bitfit("diff", model_folder, "open", "--output", "b").err
    told: list[str] = []  # as bitfit-export says it
    load_deltas(find_deltas("tiny-bert", [f"b={workplace / 'open'}"]), tiny_base, say=told.append)
    assert told[0].startswith(f"b: {said}")
    words = ["--output", "c", "--problem-type", "multi_label", "--labels", "spam"]
    done = bitfit("diff", model_folder, "open", *words)
    assert (done.status, said in done.err) == (0, False), done.err
    config = TaskDelta.load(workplace / "c").config
    assert (config.problem_type, config.labels) == ("multi_label", ("spam",))
    done = bitfit("diff", model_folder, "open", "--output", "d", "--labels", "spam")
    assert "hint: a regression has no labels; --problem-type names another" in done.err


def test_an_existing_output_is_refused_before_any_work(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path
) -> None:
    assert bitfit("diff", model_folder, checkpoint, "--output", "out").status == 0
    (workplace / "out" / CARD_FILE).write_text("x")
    done = bitfit("diff", model_folder, checkpoint, "--output", "out")
    assert done.err.startswith("error: the output out exists already")
    assert (workplace / "out" / CARD_FILE).read_text() == "x"
    assert bitfit("diff", model_folder, checkpoint, "--output", "out", "--overwrite").status == 0
    assert (workplace / "out" / CARD_FILE).read_text() != "x"


def test_base_model_and_checkpoint_are_never_the_output(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path
) -> None:
    shutil.copytree(model_folder, workplace / "own")
    shutil.copytree(checkpoint, workplace / "tuned")
    for output in ("own", "tuned", "tuned/delta"):
        done = bitfit("diff", "own", "tuned", "--output", output, "--overwrite")
        assert done.status == 2
        assert "which this command reads" in done.err
    assert sorted(os.listdir(workplace / "tuned")) == sorted(os.listdir(checkpoint))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["."], "config.json cannot be read"),
        (["CHECKPOINT", "--task", "x"], "--task, --labels and --problem-type are for a delta"),
        (["CHECKPOINT", "--labels", "x"], "--task, --labels and --problem-type are for a delta"),
        (["CHECKPOINT", "--problem-type", "regression"], "--task, --labels and --problem-type are for a delta"),
        (["CHECKPOINT", "--output", "a b"], "cannot be a task's name"),
        (["CHECKPOINT", "--output", "out", "--labels", "a,b"], "--labels has 2 names, expected 3"),
        (["CHECKPOINT", "--output", "out", "--problem-type", "regression"], "a regression with 3 outputs"),
    ],
)
def test_bad_words_are_one_clear_error(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, workplace: Path, words: list[str], message: str
) -> None:
    done = bitfit("diff", model_folder, *[checkpoint if word == "CHECKPOINT" else word for word in words])
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert list(workplace.iterdir()) == []


def test_tasks_may_name_checkpoints_beside_deltas(
    tiny_base: BaseModel, deltas_folder: Path, checkpoint: Path, tiny_deltas: dict[str, TaskDelta]
) -> None:
    folders = find_deltas("tiny-bert", ["two_way", f"mine={checkpoint}"], deltas_folder)
    deltas = load_deltas(folders, tiny_base)
    assert list(deltas) == ["two_way", "mine"]
    assert deltas["mine"].config.task == "mine"
    np.testing.assert_array_equal(
        deltas["mine"].head["classifier.weight"], tiny_deltas["three_way"].head["classifier.weight"]
    )


def test_a_checkpoint_needs_a_base_model_and_is_checked(tiny_base: BaseModel, checkpoint: Path, tmp_path: Path) -> None:
    folders = find_deltas("tiny-bert", [f"mine={checkpoint}"])
    with pytest.raises(UsageError, match=r"expected a delta[\s\S]*bitfit diff BASE .* --output deltas/mine"):
        load_deltas(folders)
    changed = with_changed_weight(checkpoint, tmp_path / "changed")
    with pytest.raises(DeltaError, match="1 tensors of"):
        load_deltas(find_deltas("tiny-bert", [f"mine={changed}"]), tiny_base)


def test_a_folder_with_neither_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no delta[\s\S]*a PEFT adapter of biases will do, too"):
        find_deltas("tiny-bert", [f"mine={tmp_path}"])


@pytest.mark.usefixtures("shared_trace")
def test_a_checkpoint_is_compiled_into_a_bundle_that_answers_as_it_does(
    bitfit: Bitfit, model_folder: str, checkpoint: Path, deltas_folder: Path, workplace: Path
) -> None:
    """The reference is transformers' own pipeline over the checkpoint."""
    import transformers

    tasks = f"mine={checkpoint},two_way"
    done = bitfit("export", "--model", model_folder, "--tasks", tasks, "--deltas", deltas_folder, "--output", "out")
    assert done.status == 0, done.err
    text = "A funny film that I would see again."
    (answer,) = (json.loads(line) for line in bitfit("run", "out", "--task", "mine", "--text", text).out.splitlines())
    expected = transformers.pipeline("text-classification", model=str(checkpoint), device="cpu")(text)[0]
    assert answer["label"] == expected["label"]
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
    again = bitfit("verify", "out", "--model", model_folder, "--tasks", f"mine={checkpoint}")
    assert again.status == 0, again.err
