"""The same examples from every format, as they are: texts, labels, names of files and of columns."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bitfit_export.training.data import load_task_data

from .data_files import FORMATS, JSON_ROW, TEXTS, TRAIN, VALIDATION, as_csv, as_parquet, write_folder, write_raw


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    data = load_task_data("rte", data=write_folder(tmp_path, suffix))
    assert data.train.texts == TEXTS
    assert data.train.labels == [0, 1, 1]
    assert data.validation.texts == [("one", "two"), ("x", "y")]
    assert data.validation.labels == [1, 0]
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert data.source == f"train{suffix} dev{suffix}"
    examples = [[*texts, label] for texts, label in zip(TEXTS, [0, 1, 1], strict=True)] + [
        ["one", "two", 1],
        ["x", "y", 0],
    ]
    assert (
        data.digest == hashlib.sha256("".join(json.dumps(example) + "\n" for example in examples).encode()).hexdigest()
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_regression(tmp_path: Path, suffix: str) -> None:
    scored = [example | {"label": label} for example, label in zip(TRAIN, [3.8, 5.0, 0.0], strict=True)]
    data = load_task_data("stsb", data=write_folder(tmp_path, suffix, scored, scored))
    assert data.train.labels == [3.8, 5.0, 0.0]
    assert all(type(label) is float for label in data.train.labels)
    assert data.digest == load_task_data("stsb", data=write_folder(tmp_path / "other", ".jsonl", scored, scored)).digest


def test_digest_sees_text_labels_and_order(tmp_path: Path) -> None:
    variants = [TRAIN, TRAIN[::-1], [TRAIN[0] | {"label": 1}, *TRAIN[1:]], [TRAIN[0] | {"sentence2": "no"}, *TRAIN[1:]]]
    folders = [write_folder(tmp_path / str(number), train=examples) for number, examples in enumerate(variants)]
    assert len({load_task_data("rte", data=folder).digest for folder in folders}) == len(variants)


def test_float32_labels_are_those_of_a_text_file(tmp_path: Path) -> None:
    scored = [example | {"label": 3.8} for example in TRAIN]
    write_folder(tmp_path / "text", ".csv", scored, scored)
    table = pyarrow.Table.from_pylist(scored)
    table = table.set_column(2, "label", table["label"].cast(pyarrow.float32()))
    (tmp_path / "float32").mkdir()
    for name in ("train", "dev"):
        pyarrow.parquet.write_table(table, tmp_path / "float32" / f"{name}.parquet")
    one, other = (load_task_data("stsb", data=tmp_path / name) for name in ("text", "float32"))
    assert one.train == other.train
    assert one.digest == other.digest


def test_string_labels_of_glue_go_by_name(tmp_path: Path) -> None:
    named = [example | {"label": ("entailment", "not_entailment")[example["label"]]} for example in TRAIN]
    data = load_task_data("rte", data=write_folder(tmp_path, ".jsonl", named, named))
    assert data.train.labels == [0, 1, 1]
    assert data.spec.labels == ("entailment", "not_entailment")


def test_sub_folder_named_like_the_task(tmp_path: Path) -> None:
    write_folder(tmp_path / "rte")
    write_folder(tmp_path, train=TRAIN[:2])
    assert len(load_task_data("rte", data=tmp_path).train) == 3
    assert len(load_task_data("rte", data=tmp_path / "rte").train) == 3
    (tmp_path / "wnli").mkdir()  # holds no train.*, so the folder itself counts
    assert len(load_task_data("wnli", data=tmp_path).train) == 2


def test_validation_may_be_called_so(tmp_path: Path) -> None:
    data = load_task_data("rte", data=write_folder(tmp_path, dev="validation"))
    assert data.source == "train.jsonl validation.jsonl"


def test_two_files_of_any_name_and_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(as_csv(TRAIN))
    (tmp_path / "b.parquet").write_bytes(as_parquet(VALIDATION))
    data = load_task_data("rte", train_file=tmp_path / "a.csv", validation_file=tmp_path / "b.parquet")
    assert (data.train.texts, data.source) == (TEXTS, "a.csv b.parquet")
    assert data.digest == load_task_data("rte", data=write_folder(tmp_path)).digest


def test_columns_of_glue_can_have_other_names(tmp_path: Path) -> None:
    examples = [{"premise": "p", "hypothesis": "h", "gold": 1}]
    folder = write_folder(tmp_path, ".jsonl", examples, examples)
    data = load_task_data("rte", data=folder, columns=["premise", "hypothesis"], label_column="gold")
    assert data.train.texts == [("p", "h")]
    assert data.spec.columns == ("premise", "hypothesis")


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    texts = ["trailing space ", "\ttab in json", "a\u2028b", "  ", 'quote " alone', "e\u0301", "a\nb\r\nc\rd"]
    examples = [{"sentence": text, "label": 0} for text in texts]
    for suffix in (".jsonl", ".parquet", ".csv"):
        data = load_task_data("sst2", data=write_folder(tmp_path / suffix[1:], suffix, examples, examples))
        assert [text for (text,) in data.train.texts] == texts


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, 'sentence\tlabel\r\n"open quote\t1\r\n\r\n"both"\t0\r\n', suffix=".tsv")
    data = load_task_data("sst2", data=folder)
    assert data.train.texts == [('"open quote',), ('"both"',)]
    assert data.train.labels == [1, 0]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_byte_order_mark_is_no_text(tmp_path: Path, suffix: str) -> None:
    examples = [{"sentence": "a", "label": 0}]
    folder = write_raw(tmp_path, b"\xef\xbb\xbf" + FORMATS[suffix](examples), suffix=suffix)
    assert load_task_data("sst2", data=folder).train.texts == [("a",)]


def test_blank_lines_are_no_examples(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, "\n" + JSON_ROW % 0 + "  \n" + JSON_ROW % 1)
    assert load_task_data("sst2", data=folder).train.labels == [0, 1]
