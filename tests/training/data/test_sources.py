"""Folders and arguments that name no data, or too much of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.errors import DataError, UsageError
from bitfit_export.training.data import load_task_data

from .data_files import VALIDATION, as_csv, fails, write_folder


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    fails("is not a folder", "rte", tmp_path / "none")


def test_folder_without_a_training_file(tmp_path: Path) -> None:
    fails(r"holds nothing; expected one file train\.\*", "rte", tmp_path)
    (tmp_path / "train.txt").touch()
    fails(r"holds train.txt; expected one file train\.\*", "rte", tmp_path)


def test_a_task_s_own_folder_without_a_training_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "rte")
    (tmp_path / "rte" / "train.jsonl").unlink()
    fails(r"rte holds dev.jsonl; expected one file train\.\*\n", "rte", tmp_path)
    fails(r"holds rte; expected one file train\.\*, or a folder mrpc that has one", "mrpc", tmp_path)


def test_folder_without_a_validation_file(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "dev.jsonl").unlink()
    fails(r"holds train.jsonl; expected one file validation\.\* or dev\.\*", "rte", tmp_path)


def test_folder_with_two_candidates(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "validation.csv").write_bytes(as_csv(VALIDATION))
    fails("holds validation.csv, dev.jsonl; expected one file", "rte", tmp_path)
    (tmp_path / "train.jsonl.gz").touch()
    fails("holds train.jsonl, train.jsonl.gz; expected one file", "rte", tmp_path)


def test_file_that_is_not_there_or_of_no_known_kind(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(DataError, match=r"none\.csv is not there"):
        load_task_data("rte", train_file=tmp_path / "none.csv", validation_file=tmp_path / "dev.jsonl")
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match=r"a\.xlsx has no known suffix"):
        load_task_data("rte", train_file=tmp_path / "a.xlsx", validation_file=tmp_path / "dev.jsonl")


def test_sources_that_contradict(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "train.jsonl"
    for sources in (
        {"train_file": file},
        {"validation_file": file},
        {"train_file": file, "validation_file": file, "data": tmp_path},
    ):
        with pytest.raises(UsageError, match="a training file and a validation file, both"):
            load_task_data("rte", **sources)


def test_own_task_without_data() -> None:
    with pytest.raises(UsageError, match=r"no data for the task 'own'.*cola") as caught:
        load_task_data("own")
    assert "--data DIR" in (caught.value.hint or "")
