"""Labels, columns and problem types of tasks that are not GLUE's."""

from __future__ import annotations

from pathlib import Path

from bitfit_export.training.data import load_task_data

from .data_files import TEXTS, own, write_folder


def test_own_names_are_sorted(tmp_path: Path) -> None:
    data = own(tmp_path, ["spam", "ham", "spam"])
    assert data.spec.labels == ("ham", "spam")
    assert data.train.labels == [1, 0, 1]
    assert data.spec.columns == ("sentence",)


def test_own_numbers_are_names_in_the_order_of_value(tmp_path: Path) -> None:
    data = own(tmp_path, [10, 2, 2], dev=[2, 10])
    assert data.spec.labels == ("2", "10")
    assert data.train.labels == [1, 0, 0]
    assert data.validation.labels == [0, 1]


def test_own_labels_in_the_given_order(tmp_path: Path) -> None:
    data = own(tmp_path, ["ham", "spam"], labels=["spam", "ham", "other"])
    assert data.spec.labels == ("spam", "ham", "other")
    assert data.train.labels == [1, 0]


def test_own_ids_with_given_names(tmp_path: Path) -> None:
    assert own(tmp_path, [0, 1, 2], labels=["c", "b", "a"]).train.labels == [0, 1, 2]


def test_given_labels_that_are_numbers_are_names(tmp_path: Path) -> None:
    assert own(tmp_path, [-1, 1], labels=["1", "-1"]).train.labels == [1, 0]


def test_own_regression_is_inferred_or_given(tmp_path: Path) -> None:
    inferred = own(tmp_path / "inferred", [1, 2.5], dev=[3])
    assert (inferred.spec.problem_type, inferred.spec.labels) == ("regression", ())
    assert inferred.validation.labels == [3.0]
    assert own(tmp_path / "given", [1, 2], problem_type="regression").train.labels == [1.0, 2.0]


def test_own_pair_and_own_columns(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert load_task_data("own", data=folder).spec.columns == ("sentence1", "sentence2")
    assert load_task_data("own", data=folder, columns=["sentence2"]).train.texts == [(b,) for _, b in TEXTS]
