"""Bad labels, examples and files: each is one clear error that says where."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bitfit_export.errors import DataError
from bitfit_export.training.data import load_task_data

from .data_files import JSON_ROW, TRAIN, as_jsonl, fails, own, write_folder, write_raw


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("null", "line 1 has no label"),
        ('""', "line 1 has no label"),
        ("true", "line 1: the label is the boolean true, expected a number or a name"),
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
    example = f'{{"sentence1": "a", "sentence2": "b", "label": {label}}}\n'
    fails("line 1: the label .* is not a finite number", "stsb", write_raw(tmp_path, example))


def test_largest_float32_is_a_regression_label(tmp_path: Path) -> None:
    example = '{"sentence1": "a", "sentence2": "b", "label": 3.4028234e38}\n'
    assert load_task_data("stsb", data=write_raw(tmp_path, example)).train.labels == [3.4028235e38]


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


def test_a_label_that_only_the_dev_set_has_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hint: --labels names all of them"):
        own(tmp_path, ["a", "b"], ["c"])
    assert own(tmp_path, ["a", "b"], ["c"], labels=["a", "b", "c"]).validation.labels == [2]


def test_labels_of_two_kinds_in_glue(tmp_path: Path) -> None:
    fails("labels of two kinds", "sst2", write_raw(tmp_path, JSON_ROW % '"positive"' + JSON_ROW % 1))


def test_single_label_wanted_fractions_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the label 0\.5; expected names or whole numbers"):
        own(tmp_path, [0.5, 1.5], problem_type="single_label")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ('{"sentence": null, "label": 0}', "line 1: 'sentence' is None; expected a string"),
        ('{"sentence": 5, "label": 0}', "line 1: 'sentence' is 5; expected a string"),
        ('{"sentence": ["a", "b"], "label": 0}', "line 1: 'sentence' is .* expected a string"),
        (r'{"sentence": "a\ud800", "label": 0}', "line 1: 'sentence' holds a lone surrogate at character 2"),
        (r'{"sentence": "a", "label": "a\ud800"}', "line 1: the label holds a lone surrogate at character 2"),
        ('{"words": "a", "label": 0}', "line 1 has no column 'sentence'; found words, label; needed sentence, label"),
        ('{"sentence": "a", "gold": 0}', "line 1 has no column 'label'; found sentence, gold"),
        ('{"sentence": "a", "label": 0', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('["a", 0]', "line 1 is not a JSON object"),
        ("[", "line 1 is not JSON"),
    ],
)
def test_bad_examples(tmp_path: Path, example: str, message: str) -> None:
    fails(message, "sst2", write_raw(tmp_path, example + "\n"))


def test_the_line_of_the_error_is_right(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, JSON_ROW % 0, JSON_ROW % 0 + '\n{"sentence": "a"}')
    fails("dev.jsonl, line 3 has no column 'label'", "sst2", folder)


def test_a_text_of_two_lines_counts_as_two(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, 'sentence,label\n"a\nb",0\nc,\n', suffix=".csv")
    fails("train.csv, line 4 has no label", "sst2", folder)


@pytest.mark.parametrize("empty", [b"", b"\n\n"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_empty_splits(tmp_path: Path, suffix: str, empty: bytes) -> None:
    fails(f"train{suffix} has no examples", "sst2", write_raw(tmp_path, empty, suffix=suffix))


def test_header_without_examples(tmp_path: Path) -> None:
    good = "sentence,label\na,0\n"
    fails("dev.csv has no examples", "sst2", write_raw(tmp_path, good, "sentence,label\n", suffix=".csv"))


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
        (".jsonl.gz", gzip.compress(as_jsonl(TRAIN), mtime=0)[:-12], "cannot be read"),
        (".jsonl.gz", as_jsonl(TRAIN), "cannot be read: Not a gzipped file"),
        (".jsonl.gz", gzip.compress(as_jsonl(TRAIN), mtime=0)[:12] + b"\xff" * 40, "cannot be read"),
        (".parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        (".parquet", b"", "cannot be read as Parquet"),
    ],
)
def test_bad_files(tmp_path: Path, suffix: str, content: str | bytes, message: str) -> None:
    fails(message, "sst2", write_raw(tmp_path, content, suffix=suffix))


@pytest.mark.parametrize(
    "example",
    [
        {"words": "a"},
        {"sentence": "a"} | TRAIN[0],
        {"sentence1": "a"},
        {"text": "a", "sentence": "a"},
        {"text": "a", "text_pair": "b"} | TRAIN[0],
        {"text_pair": "b"},
    ],
)
def test_columns_of_an_own_task_that_are_not_clear(tmp_path: Path, example: dict[str, object]) -> None:
    examples = [example | {"label": 0}]
    error = fails(
        "expected either sentence, or sentence1 and", "own", write_folder(tmp_path, ".jsonl", examples, examples)
    )
    assert "--columns" in (error.hint or "")


def test_a_second_text_that_some_rows_lack_is_not_passed_over(tmp_path: Path) -> None:
    examples: list[dict[str, object]] = [{"text": "a", "label": 0}, {"text": "b", "text_pair": "c", "label": 1}]
    fails("line 1 has no column 'text_pair'", "own", write_folder(tmp_path, ".jsonl", examples, examples))


@pytest.mark.parametrize("labels", ["[true, false]", "[0, true]"])
def test_booleans_among_several_labels(tmp_path: Path, labels: str) -> None:
    example = f'{{"sentence": "a", "labels": {labels}}}\n'
    error = fails("the label is the boolean true", "own", write_raw(tmp_path, example))
    assert "0 and 1" in (error.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"sentence": "a", "label": 0}]', "line 1 is not a JSON object but an array"),
        ('[\n  {"sentence": "a", "label": 0}\n]\n', "line 1 is not JSON by itself: a JSON array begins there"),
        (" []", "line 1 is not a JSON object but an array"),
    ],
)
def test_an_array_in_place_of_lines(tmp_path: Path, text: str, message: str) -> None:
    plain = fails(message, "own", write_raw(tmp_path, text, suffix=".json"))
    assert plain.hint == f"write each element on a line of its own: jq -c '.[]' {tmp_path}/train.json > examples.jsonl"
    (tmp_path / "packed").mkdir()
    packed = fails(message, "own", write_raw(tmp_path / "packed", gzip.compress(text.encode()), suffix=".json.gz"))
    assert "zcat" in (packed.hint or "")
