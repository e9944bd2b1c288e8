"""Data sets of the Hub, by a stand-in and by a local one that is loaded the same way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from bitfit_export.errors import DataError, MissingExtraError, UsageError
from bitfit_export.training.data import HUB_DATASET, load_task_data
from bitfit_export.training.data_files import HUB_REVISION

from .data_files import TEXTS, TRAIN, VALIDATION, as_jsonl, fails, write_folder


def fake_hub(monkeypatch, **splits) -> list[tuple[str, ...]]:
    """Stands in for the hub with these splits; the list takes the arguments of each call."""
    calls: list[tuple[str, ...]] = []

    def load_dataset(*args: str, revision: str) -> datasets.DatasetDict:
        calls.append((*args, revision))
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def glue_split(examples, label: object) -> datasets.Dataset:
    columns = {name: datasets.Value("string") for name in examples[0] if name != "label"}
    features = datasets.Features(columns | {"label": label, "idx": datasets.Value("int32")})
    return datasets.Dataset.from_list(
        [example | {"idx": number} for number, example in enumerate(examples)], features=features
    )


def test_rows_from_the_hub_are_those_of_a_folder(tmp_path: Path, monkeypatch) -> None:
    label = datasets.ClassLabel(names=["entailment", "not_entailment"])
    train, validation = glue_split(TRAIN, label), glue_split(VALIDATION, label)
    calls = fake_hub(monkeypatch, train=train, validation=validation, test=validation)
    data = load_task_data("rte")
    assert calls == [(HUB_DATASET, "rte", HUB_REVISION)]
    assert (data.source, data.revision) == ("nyu-mll/glue rte", HUB_REVISION)
    assert data.train.texts == TEXTS
    assert data.digest == load_task_data("rte", data=write_folder(tmp_path)).digest


def test_the_hub_s_rows_are_those_of_one_commit_or_of_the_revision_that_is_asked_for(monkeypatch) -> None:
    split = glue_split(TRAIN, datasets.Value("int64"))
    calls = fake_hub(monkeypatch, train=split, validation=split)
    assert re.fullmatch("[0-9a-f]{40}", HUB_REVISION)
    assert load_task_data("rte", revision="v2").revision == "v2"
    assert calls == [(HUB_DATASET, "rte", "v2")]


def test_files_have_no_revision(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert load_task_data("rte", data=folder).revision is None
    with pytest.raises(UsageError, match="the data's revision is v2, but the data is in files"):
        load_task_data("rte", data=folder, revision="v2")


def test_regression_from_the_hub(tmp_path: Path, monkeypatch) -> None:
    scored = [example | {"label": 3.8} for example in TRAIN]
    split = glue_split(scored, datasets.Value("float32"))
    fake_hub(monkeypatch, train=split, validation=split)
    data = load_task_data("stsb")
    assert data.train.labels == [3.8] * 3
    assert data.digest == load_task_data("stsb", data=write_folder(tmp_path, ".csv", scored, scored)).digest


def test_mnli_is_judged_on_the_matched_genres_and_reported_on_both(tmp_path: Path, monkeypatch) -> None:
    label = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    examples = {kind: [{"premise": "p", "hypothesis": kind, "label": 2}] for kind in ("matched", "mismatched")}
    matched, mismatched = (glue_split(each, label) for each in examples.values())
    fake_hub(monkeypatch, train=matched, validation_matched=matched, validation_mismatched=mismatched)
    loaded = load_task_data("mnli")
    assert loaded.validation.texts == [("p", "matched")]
    assert {name: more.texts for name, more in loaded.more_validation.items()} == {"mismatched": [("p", "mismatched")]}
    folder = write_folder(tmp_path, train=examples["matched"], validation=examples["matched"], dev="dev_matched")
    (folder / "validation_mismatched.jsonl").write_bytes(as_jsonl(examples["mismatched"]))
    from_files = load_task_data("mnli", data=folder)
    assert from_files.digest == loaded.digest
    assert from_files.source == "train.jsonl dev_matched.jsonl validation_mismatched.jsonl"


def test_mnli_without_its_mismatched_genres(tmp_path: Path) -> None:
    examples = [{"premise": "p", "hypothesis": "h", "label": 2}]
    (tmp_path / "one").mkdir()
    loaded = load_task_data("mnli", data=write_folder(tmp_path / "one", train=examples, validation=examples))
    assert loaded.more_validation == {}
    half = write_folder(tmp_path / "two", train=examples, validation=examples, dev="dev_matched")
    fails("expected one file validation_mismatched.* or dev_mismatched.*", "mnli", half)


def test_hub_without_the_split(monkeypatch) -> None:
    fake_hub(monkeypatch, train=glue_split(TRAIN, datasets.Value("int64")))
    with pytest.raises(DataError, match="has the splits train; expected train and validation"):
        load_task_data("rte")


def local_hub(folder: Path, monkeypatch, task: str, **splits: datasets.Dataset) -> None:
    """A data set in the form that the hub has for GLUE, in a folder, which `datasets` itself reads."""
    (folder / task).mkdir()
    for name, split in splits.items():
        split.to_parquet(folder / task / f"{name}-00000-of-00001.parquet")
    paths = "".join(f"  - split: {name}\n    path: {task}/{name}-*\n" for name in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {task}\n  data_files:\n{paths}---\n")
    monkeypatch.setattr("bitfit_export.training.data_files.HUB_DATASET", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")


def test_a_local_data_set_goes_the_hub_s_way(tmp_path: Path, monkeypatch) -> None:
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    train, validation = glue_split(TRAIN, names), glue_split(VALIDATION, names)
    test = glue_split([example | {"label": -1} for example in VALIDATION], names)
    (tmp_path / "hub").mkdir()
    local_hub(tmp_path / "hub", monkeypatch, "rte", train=train, validation=validation, test=test)
    data = load_task_data("rte")
    assert data.train.texts == TEXTS
    assert data.digest == load_task_data("rte", data=write_folder(tmp_path)).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": -1}, "rte validation, example 1: the label -1 is none of rte's labels"),
        ({"label": 2}, "rte validation, example 1: the label 2 is none of rte's labels"),
        ({"label": None}, "rte validation, example 1 has no label"),
        ({"sentence2": None}, "rte validation, example 1: 'sentence2' is None; expected a string"),
    ],
)
def test_bad_examples_on_the_hub_s_way(tmp_path: Path, monkeypatch, change: dict[str, object], message: str) -> None:
    number = datasets.Value("int64")
    bad = glue_split([VALIDATION[0] | change], number)
    local_hub(tmp_path, monkeypatch, "rte", train=glue_split(TRAIN, number), validation=bad)
    fails(message, "rte", None)


def test_an_empty_split_and_a_missing_column_on_the_hub_s_way(tmp_path: Path, monkeypatch) -> None:
    number = datasets.Value("int64")
    good = glue_split(TRAIN, number)
    for name, bad, message in (
        ("empty", good.select([]), 'rte cannot be loaded from the hub: .*"validation" corresponds to no data'),
        ("without", good.remove_columns("sentence2"), "rte train, example 1 has no column 'sentence2'"),
    ):
        (tmp_path / name).mkdir()
        splits = {"train": good, "validation": bad} if name == "empty" else {"train": bad, "validation": bad}
        local_hub(tmp_path / name, monkeypatch, "rte", **splits)
        fails(message, "rte", None)


@pytest.mark.parametrize("error", [ConnectionError("no way\nlong story"), ValueError("no cache"), RuntimeError()])
def test_hub_that_is_out_of_reach(monkeypatch, error: Exception) -> None:
    def load_dataset(*args: str, revision: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="nyu-mll/glue rte cannot be loaded from the hub") as caught:
        load_task_data("rte")
    assert caught.value.message.endswith((": no way", ": no cache", ": RuntimeError"))
    assert "--data DIR" in (caught.value.hint or "")


def test_offline_as_the_hub_s_own_switch_makes_it(tmp_path: Path) -> None:
    # In a process of its own: `datasets` reads the switch when it is imported.
    code = "from bitfit_export.training.data import load_task_data; load_task_data('rte')"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert "DataError: nyu-mll/glue rte cannot be loaded from the hub: " in done.stderr
    assert "\nhint: pass --data DIR" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("module", ["datasets", "pyarrow.parquet"])
def test_missing_extra(tmp_path: Path, monkeypatch, module: str) -> None:
    folder = write_folder(tmp_path, ".parquet")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"(?s)train"):
        load_task_data("rte", data=None if module == "datasets" else folder)
