"""Labels, columns and problem types of tasks that are not GLUE's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.training.data import load_task_data

from .data_files import TEXTS, TRAIN, fails, own, write_folder


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


@pytest.mark.parametrize(
    "example", [{"text": "a"}, {"text": "a", "text_pair": "b"}, {"question": "a", "context": "a b"}]
)
def test_the_columns_that_bitfit_run_reads_are_those_that_need_no_option(
    tmp_path: Path, example: dict[str, str]
) -> None:
    from bitfit_export.runtime.text.json_text import text_of

    answers = {"answers": [{"text": "b", "answer_start": 2}]} if "context" in example else {"label": 0}
    examples = [example | answers, example | (answers if "context" in example else {"label": 1})]
    (text, _) = load_task_data("own", data=write_folder(tmp_path, ".jsonl", examples, examples)).train.texts
    assert (text[0] if len(text) == 1 else text) == text_of(example, "here")


def test_a_glue_task_takes_them_where_its_own_are_not_there(tmp_path: Path) -> None:
    pairs = [
        {"text": example["sentence1"], "text_pair": example["sentence2"], "label": example["label"]}
        for example in TRAIN
    ]
    renamed = load_task_data("rte", data=write_folder(tmp_path / "renamed", ".csv", pairs, pairs))
    usual = load_task_data("rte", data=write_folder(tmp_path / "usual", ".csv", TRAIN, TRAIN))
    assert (renamed.spec.columns, renamed.digest) == (("text", "text_pair"), usual.digest)
    extra = [example | {"text": "a", "text_pair": "b"} for example in TRAIN]
    assert load_task_data("rte", data=write_folder(tmp_path / "extra", ".csv", extra, extra)).digest == usual.digest
    single = [{"text": "a", "label": 0}]
    fails("has no column 'sentence1'", "rte", write_folder(tmp_path / "single", ".jsonl", single, single))
