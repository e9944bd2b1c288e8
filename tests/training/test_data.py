"""Rows from every format, from the hub and from bad files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from bitfit_export.errors import DataError, MissingExtraError, UsageError
from bitfit_export.training.data import HUB_DATASET, load_task_data

TRAIN = [
    {"sentence1": 'He said "no", twice.', "sentence2": "He refused. ", "label": 0},
    {"sentence1": "Zoë — naïve", "sentence2": "", "label": 1},
    {"sentence1": " led by a space", "sentence2": "a, b", "label": 1},
]
VALIDATION = [{"sentence1": "one", "sentence2": "two", "label": 1}, {"sentence1": "x", "sentence2": "y", "label": 0}]
TEXTS = [(row["sentence1"], row["sentence2"]) for row in TRAIN]
JSON_ROW = '{"sentence": "a", "label": %s}\n'


def as_jsonl(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_tsv(rows) -> bytes:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines).encode()


def as_parquet(rows) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


TEXT_FORMATS = {".jsonl": as_jsonl, ".json": as_jsonl, ".csv": as_csv, ".tsv": as_tsv}
FORMATS = {
    **TEXT_FORMATS,
    **{
        f"{suffix}.gz": lambda rows, write=write: gzip.compress(write(rows), mtime=0)
        for suffix, write in TEXT_FORMATS.items()
    },
    ".parquet": as_parquet,
}


def write_folder(folder: Path, suffix: str = ".jsonl", train=TRAIN, validation=VALIDATION, dev: str = "dev") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"train{suffix}").write_bytes(FORMATS[suffix](train))
    (folder / f"{dev}{suffix}").write_bytes(FORMATS[suffix](validation))
    return folder


def write_raw(folder: Path, train: str | bytes, validation: str | bytes | None = None, suffix: str = ".jsonl") -> Path:
    for name, content in (("train", train), ("dev", train if validation is None else validation)):
        (folder / f"{name}{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def fails(message: str, task: str, folder: Path, **options) -> DataError:
    """The DataError of a load; its text, message and hint, has at most two lines."""
    with pytest.raises(DataError, match=message) as caught:
        load_task_data(task, data=folder, **options)
    assert len(str(caught.value).splitlines()) <= 2
    return caught.value


# --- good data


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    data = load_task_data("rte", data=write_folder(tmp_path, suffix))
    assert data.train.texts == TEXTS
    assert data.train.labels == [0, 1, 1]
    assert data.validation.texts == [("one", "two"), ("x", "y")]
    assert data.validation.labels == [1, 0]
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert data.source == f"train{suffix} dev{suffix}"
    rows = [[*texts, label] for texts, label in zip(TEXTS, [0, 1, 1], strict=True)] + [["one", "two", 1], ["x", "y", 0]]
    assert data.digest == hashlib.sha256("".join(json.dumps(row) + "\n" for row in rows).encode()).hexdigest()


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_regression(tmp_path: Path, suffix: str) -> None:
    scored = [row | {"label": label} for row, label in zip(TRAIN, [3.8, 5.0, 0.0], strict=True)]
    data = load_task_data("stsb", data=write_folder(tmp_path, suffix, scored, scored))
    assert data.train.labels == [3.8, 5.0, 0.0]
    assert all(type(label) is float for label in data.train.labels)
    assert data.digest == load_task_data("stsb", data=write_folder(tmp_path / "other", ".jsonl", scored, scored)).digest


def test_digest_sees_text_labels_and_order(tmp_path: Path) -> None:
    variants = [TRAIN, TRAIN[::-1], [TRAIN[0] | {"label": 1}, *TRAIN[1:]], [TRAIN[0] | {"sentence2": "no"}, *TRAIN[1:]]]
    folders = [write_folder(tmp_path / str(number), train=rows) for number, rows in enumerate(variants)]
    assert len({load_task_data("rte", data=folder).digest for folder in folders}) == len(variants)


def test_float32_labels_are_those_of_a_text_file(tmp_path: Path) -> None:
    scored = [row | {"label": 3.8} for row in TRAIN]
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
    named = [row | {"label": ("entailment", "not_entailment")[row["label"]]} for row in TRAIN]
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
    rows = [{"premise": "p", "hypothesis": "h", "gold": 1}]
    folder = write_folder(tmp_path, ".jsonl", rows, rows)
    data = load_task_data("rte", data=folder, columns=["premise", "hypothesis"], label_column="gold")
    assert data.train.texts == [("p", "h")]
    assert data.spec.columns == ("premise", "hypothesis")


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    texts = ["trailing space ", "\ttab in json", "a\u2028b", "  ", 'quote " alone', "e\u0301", "a\nb\r\nc\rd"]
    rows = [{"sentence": text, "label": 0} for text in texts]
    for suffix in (".jsonl", ".parquet", ".csv"):
        data = load_task_data("sst2", data=write_folder(tmp_path / suffix[1:], suffix, rows, rows))
        assert [text for (text,) in data.train.texts] == texts


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, 'sentence\tlabel\r\n"open quote\t1\r\n\r\n"both"\t0\r\n', suffix=".tsv")
    data = load_task_data("sst2", data=folder)
    assert data.train.texts == [('"open quote',), ('"both"',)]
    assert data.train.labels == [1, 0]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_byte_order_mark_is_no_text(tmp_path: Path, suffix: str) -> None:
    rows = [{"sentence": "a", "label": 0}]
    folder = write_raw(tmp_path, b"\xef\xbb\xbf" + FORMATS[suffix](rows), suffix=suffix)
    assert load_task_data("sst2", data=folder).train.texts == [("a",)]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, "\n" + JSON_ROW % 0 + "  \n" + JSON_ROW % 1)
    assert load_task_data("sst2", data=folder).train.labels == [0, 1]


# --- tasks of one's own


def own(folder: Path, train, dev=None, **options):
    rows = [[{"sentence": "s", "label": label} for label in split] for split in (train, train if dev is None else dev)]
    return load_task_data("own", data=write_folder(folder, ".jsonl", *rows), **options)


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


# --- bad data


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("null", "line 1 has no label"),
        ('""', "line 1 has no label"),
        ("true", "line 1: the label True is neither a number nor a name"),
        ("[1]", r"line 1: the label \[1\] is neither"),
        ("2", r"line 1: the label 2 is none of sst2's labels: negative \(0\), positive \(1\)"),
        ("-1", "line 1: the label -1 is none of"),
        ("1.0", "line 1: the label 1.0 is none of"),
        ('"Positive"', "line 1: the label 'Positive' is none of"),
    ],
)
def test_bad_class_labels(tmp_path: Path, label: str, message: str) -> None:
    fails(message, "sst2", write_raw(tmp_path, JSON_ROW % label))


def test_the_test_split_has_its_hint(tmp_path: Path) -> None:
    error = fails("the label -1", "sst2", write_raw(tmp_path, JSON_ROW % 0, JSON_ROW % -1))
    assert "GLUE's test split" in (error.hint or "")


@pytest.mark.parametrize(
    "label", ["NaN", "Infinity", "-Infinity", "1e39", "1" + "0" * 400, '"high"', '"nan"', '"1e999"']
)
def test_bad_regression_labels(tmp_path: Path, label: str) -> None:
    row = f'{{"sentence1": "a", "sentence2": "b", "label": {label}}}\n'
    fails("line 1: the label .* is not a finite number", "stsb", write_raw(tmp_path, row))


def test_largest_float32_is_a_regression_label(tmp_path: Path) -> None:
    row = '{"sentence1": "a", "sentence2": "b", "label": 3.4028234e38}\n'
    assert load_task_data("stsb", data=write_raw(tmp_path, row)).train.labels == [3.4028235e38]


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (["a", "b"], ["c"], "dev.jsonl, line 1: the label 'c' is none of own's labels: a"),
        ([1, 2], [0], "dev.jsonl, line 1: the label 0 is none of own's labels: 1"),
        ([0, 1], [2], "dev.jsonl, line 1: the label 2 is none of own's labels: 0"),
        (["a", 1], ["a"], r"labels of two kinds: 1 \(.*line 2\) and 'a' \(.*line 1\)"),
        (["a", "b"], [0], "labels of two kinds"),
        (["0.5", "n/a"], ["0.5"], "labels of two kinds: '0.5'"),
        ([0, 0], [0], "one label only"),
        ([0, -1], [0], "the label -1, which often marks"),
        ([0, 1], [0.5], "the label 0.5 is none of"),
    ],
)
def test_bad_own_labels(tmp_path: Path, train, dev, message: str) -> None:
    with pytest.raises(DataError, match=message):
        own(tmp_path, train, dev)


def test_labels_of_two_kinds_in_glue(tmp_path: Path) -> None:
    fails("labels of two kinds", "sst2", write_raw(tmp_path, JSON_ROW % '"positive"' + JSON_ROW % 1))


def test_single_label_wanted_fractions_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the label 0\.5; expected names or whole numbers"):
        own(tmp_path, [0.5, 1.5], problem_type="single_label")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"sentence": null, "label": 0}', "line 1: 'sentence' is None; expected a string"),
        ('{"sentence": 5, "label": 0}', "line 1: 'sentence' is 5; expected a string"),
        ('{"sentence": ["a", "b"], "label": 0}', "line 1: 'sentence' is .* expected a string"),
        (r'{"sentence": "a\ud800", "label": 0}', "line 1: 'sentence' holds a lone surrogate at character 2"),
        ('{"text": "a", "label": 0}', "line 1 has no column 'sentence'; found text, label; needed sentence, label"),
        ('{"sentence": "a", "gold": 0}', "line 1 has no column 'label'; found sentence, gold"),
        ('{"sentence": "a", "label": 0', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('["a", 0]', "line 1 is not a JSON object"),
        ("[", "line 1 is not JSON"),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, message: str) -> None:
    fails(message, "sst2", write_raw(tmp_path, row + "\n"))


def test_the_line_of_the_error_is_right(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, JSON_ROW % 0, JSON_ROW % 0 + '\n{"sentence": "a"}')
    fails("dev.jsonl, line 3 has no column 'label'", "sst2", folder)


def test_a_text_of_two_lines_counts_as_two(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, 'sentence,label\n"a\nb",0\nc,\n', suffix=".csv")
    fails("train.csv, line 4 has no label", "sst2", folder)


@pytest.mark.parametrize("empty", [b"", b"\n\n"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_empty_splits(tmp_path: Path, suffix: str, empty: bytes) -> None:
    fails(f"train{suffix} has no rows", "sst2", write_raw(tmp_path, empty, suffix=suffix))


def test_header_without_rows(tmp_path: Path) -> None:
    good = "sentence,label\na,0\n"
    fails("dev.csv has no rows", "sst2", write_raw(tmp_path, good, "sentence,label\n", suffix=".csv"))


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "sentence,label\na\n", "line 2 has 1 fields; expected 2: sentence, label"),
        (".csv", "sentence,label\na,b,0\n", "line 2 has 3 fields"),
        (".csv", 'sentence,label\n"a,0\n', "is not CSV"),
        (".csv", "label,label\na,0\n", "names a column twice"),
        (".tsv", "sentence\tlabel\na\tb\t0\n", "line 2 has 3 fields"),
        (".tsv", "sentence,label\na,0\n", "has no column 'sentence'; found sentence,label"),
        (".jsonl", b'{"sentence": "a", "label": 0}\n{"sentence": "\xe9"}\n', "line 2 is not UTF-8 at byte 15"),
        (".csv", b"sentence,label\n\xff\xfe,0\n", "line 2 is not UTF-8 at byte 1"),
        (".tsv", "sentence\tlabel\n".encode("utf-16"), "line 1 is not UTF-8"),
        (".jsonl.gz", gzip.compress(as_jsonl(TRAIN), mtime=0)[:-12], "can't be read"),
        (".jsonl.gz", as_jsonl(TRAIN), "can't be read: Not a gzipped file"),
        (".jsonl.gz", gzip.compress(as_jsonl(TRAIN), mtime=0)[:12] + b"\xff" * 40, "can't be read"),
        (".parquet", b"PAR1 and no more", "can't be read as Parquet"),
        (".parquet", b"", "can't be read as Parquet"),
    ],
)
def test_bad_files(tmp_path: Path, suffix: str, content: str | bytes, message: str) -> None:
    fails(message, "sst2", write_raw(tmp_path, content, suffix=suffix))


def test_columns_of_an_own_task_that_are_not_clear(tmp_path: Path) -> None:
    for number, row in enumerate(
        [{"text": "a", "label": 0}, {"sentence": "a"} | TRAIN[0], {"sentence1": "a", "label": 0}]
    ):
        folder = write_folder(tmp_path / str(number), ".jsonl", [row], [row])
        error = fails("expected either sentence, or sentence1 and sentence2", "own", folder)
        assert "--columns" in (error.hint or "")


# --- bad folders and arguments


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    fails("is not a folder", "rte", tmp_path / "none")


def test_folder_without_a_training_file(tmp_path: Path) -> None:
    fails(r"holds nothing; expected one file train\.\*", "rte", tmp_path)
    (tmp_path / "train.txt").touch()
    fails(r"holds train.txt; expected one file train\.\*", "rte", tmp_path)


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


# --- the hub


def fake_hub(monkeypatch, **splits) -> list[tuple[str, ...]]:
    """Stands in for the hub with these splits; the list takes the arguments of each call."""
    calls: list[tuple[str, ...]] = []

    def load_dataset(*args: str) -> datasets.DatasetDict:
        calls.append(args)
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def glue_split(rows, label: object) -> datasets.Dataset:
    columns = {name: datasets.Value("string") for name in rows[0] if name != "label"}
    features = datasets.Features(columns | {"label": label, "idx": datasets.Value("int32")})
    return datasets.Dataset.from_list([row | {"idx": number} for number, row in enumerate(rows)], features=features)


def test_rows_from_the_hub_are_those_of_a_folder(tmp_path: Path, monkeypatch) -> None:
    label = datasets.ClassLabel(names=["entailment", "not_entailment"])
    train, validation = glue_split(TRAIN, label), glue_split(VALIDATION, label)
    calls = fake_hub(monkeypatch, train=train, validation=validation, test=validation)
    data = load_task_data("rte")
    assert calls == [(HUB_DATASET, "rte")]
    assert data.source == "nyu-mll/glue rte"
    assert data.train.texts == TEXTS
    assert data.digest == load_task_data("rte", data=write_folder(tmp_path)).digest


def test_regression_from_the_hub(tmp_path: Path, monkeypatch) -> None:
    scored = [row | {"label": 3.8} for row in TRAIN]
    split = glue_split(scored, datasets.Value("float32"))
    fake_hub(monkeypatch, train=split, validation=split)
    data = load_task_data("stsb")
    assert data.train.labels == [3.8] * 3
    assert data.digest == load_task_data("stsb", data=write_folder(tmp_path, ".csv", scored, scored)).digest


def test_mnli_is_judged_on_the_matched_genres_and_reported_on_both(tmp_path: Path, monkeypatch) -> None:
    label = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    rows = {kind: [{"premise": "p", "hypothesis": kind, "label": 2}] for kind in ("matched", "mismatched")}
    matched, mismatched = (glue_split(each, label) for each in rows.values())
    fake_hub(monkeypatch, train=matched, validation_matched=matched, validation_mismatched=mismatched)
    loaded = load_task_data("mnli")
    assert loaded.validation.texts == [("p", "matched")]
    assert {name: more.texts for name, more in loaded.more_validation.items()} == {"mismatched": [("p", "mismatched")]}
    folder = write_folder(tmp_path, train=rows["matched"], validation=rows["matched"], dev="dev_matched")
    (folder / "validation_mismatched.jsonl").write_bytes(as_jsonl(rows["mismatched"]))
    from_files = load_task_data("mnli", data=folder)
    assert from_files.digest == loaded.digest
    assert from_files.source == "train.jsonl dev_matched.jsonl validation_mismatched.jsonl"


def test_mnli_without_its_mismatched_genres(tmp_path: Path) -> None:
    rows = [{"premise": "p", "hypothesis": "h", "label": 2}]
    (tmp_path / "one").mkdir()
    loaded = load_task_data("mnli", data=write_folder(tmp_path / "one", train=rows, validation=rows))
    assert loaded.more_validation == {}
    half = write_folder(tmp_path / "two", train=rows, validation=rows, dev="dev_matched")
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
    monkeypatch.setattr("bitfit_export.training.tables.HUB_DATASET", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")


def test_a_local_data_set_goes_the_hub_s_way(tmp_path: Path, monkeypatch) -> None:
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    train, validation = glue_split(TRAIN, names), glue_split(VALIDATION, names)
    test = glue_split([row | {"label": -1} for row in VALIDATION], names)
    (tmp_path / "hub").mkdir()
    local_hub(tmp_path / "hub", monkeypatch, "rte", train=train, validation=validation, test=test)
    data = load_task_data("rte")
    assert data.train.texts == TEXTS
    assert data.digest == load_task_data("rte", data=write_folder(tmp_path)).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": -1}, "rte validation, row 1: the label -1 is none of rte's labels"),
        ({"label": 2}, "rte validation, row 1: the label 2 is none of rte's labels"),
        ({"label": None}, "rte validation, row 1 has no label"),
        ({"sentence2": None}, "rte validation, row 1: 'sentence2' is None; expected a string"),
    ],
)
def test_bad_rows_on_the_hub_s_way(tmp_path: Path, monkeypatch, change: dict[str, object], message: str) -> None:
    number = datasets.Value("int64")
    bad = glue_split([VALIDATION[0] | change], number)
    local_hub(tmp_path, monkeypatch, "rte", train=glue_split(TRAIN, number), validation=bad)
    fails(message, "rte", None)


def test_an_empty_split_and_a_missing_column_on_the_hub_s_way(tmp_path: Path, monkeypatch) -> None:
    number = datasets.Value("int64")
    good = glue_split(TRAIN, number)
    for name, bad, message in (
        ("empty", good.select([]), 'rte can.t be had from the hub: .*"validation" corresponds to no data'),
        ("without", good.remove_columns("sentence2"), "rte train, row 1 has no column 'sentence2'"),
    ):
        (tmp_path / name).mkdir()
        splits = {"train": good, "validation": bad} if name == "empty" else {"train": bad, "validation": bad}
        local_hub(tmp_path / name, monkeypatch, "rte", **splits)
        fails(message, "rte", None)


@pytest.mark.parametrize("error", [ConnectionError("no way\nlong story"), ValueError("no cache"), RuntimeError()])
def test_hub_that_is_out_of_reach(monkeypatch, error: Exception) -> None:
    def load_dataset(*args: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="nyu-mll/glue rte can't be had from the hub") as caught:
        load_task_data("rte")
    assert caught.value.message.endswith((": no way", ": no cache", ": RuntimeError"))
    assert "--data DIR" in (caught.value.hint or "")


def test_offline_as_the_hub_s_own_switch_makes_it(tmp_path: Path) -> None:
    # In a process of its own: `datasets` reads the switch when it is imported.
    code = "from bitfit_export.training.data import load_task_data; load_task_data('rte')"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert "DataError: nyu-mll/glue rte can't be had from the hub: " in done.stderr
    assert "\nhint: pass --data DIR" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("module", ["datasets", "pyarrow.parquet"])
def test_missing_extra(tmp_path: Path, monkeypatch, module: str) -> None:
    folder = write_folder(tmp_path, ".parquet")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"(?s)train"):
        load_task_data("rte", data=None if module == "datasets" else folder)


# --- the real data


@pytest.mark.data
@pytest.mark.parametrize(
    ("task", "train", "validation"),
    [("rte", 2490, 277), ("mrpc", 3668, 408), ("stsb", 5749, 1500), ("cola", 8551, 1043), ("sst2", 67349, 872)],
)
def test_real_glue(task: str, train: int, validation: int) -> None:
    folder = os.environ.get("BITFIT_DATA")
    if not folder:
        pytest.skip("BITFIT_DATA does not name a folder with the GLUE data")
    data = load_task_data(task, data=Path(folder))
    assert (len(data.train), len(data.validation)) == (train, validation)
    if task == "stsb":
        assert min(data.train.labels) == 0.0
        assert max(data.train.labels) == 5.0
    else:
        assert set(data.train.labels) == set(data.validation.labels) == set(range(len(data.spec.labels)))
    if task == "rte":
        assert data.train.labels.count(0) == 1249
