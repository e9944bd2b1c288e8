"""Examples whose words, labels or answers are lists: token, multi-label and span tasks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.errors import DataError, UsageError
from bitfit_export.training.data import TaskData, load_task_data
from bitfit_export.training.tasks import ENTITY_METRICS, OWN_METRICS
from tests.cli.conftest import write_lines

TAGGED = [{"tokens": ["He", "ran"], "tags": ["PRON", "VERB"]}, {"tokens": ["Stop"], "tags": ["VERB"]}]
TOPICS = [{"sentence": "a", "labels": ["sport", "art"]}, {"sentence": "b", "labels": []}]
CONTEXT = "The Broncos won in Santa Clara."
QUESTION = {
    "question": "Who won?",
    "context": CONTEXT,
    "answers": [{"answer_start": 4, "text": "Broncos"}, {"answer_start": 0, "text": "The Broncos"}],
}


def load(folder: Path, examples: list[dict[str, Any]], **options: Any) -> TaskData:
    for name in ("train", "dev"):
        write_lines(folder / f"{name}.jsonl", examples)
    return load_task_data("own", data=folder, **options)


def test_words_with_tags_make_a_token_task(tmp_path: Path) -> None:
    loaded = load(tmp_path, TAGGED)
    assert (loaded.spec.problem_type, loaded.spec.columns, loaded.spec.label_column) == ("token", ("tokens",), "tags")
    assert loaded.spec.labels == ("PRON", "VERB")
    assert loaded.spec.metrics == OWN_METRICS["token"]
    assert loaded.train.texts == [("He", "ran"), ("Stop",)]
    assert loaded.train.labels == [[0, 1], [1]]


@pytest.mark.parametrize("column", ["ner_tags", "pos_tags", "upos", "pos", "labels"])
def test_other_names_of_the_tags(tmp_path: Path, column: str) -> None:
    examples = [{"words": example["tokens"], column: example["tags"]} for example in TAGGED]
    assert load(tmp_path, examples).spec.label_column == column


def test_columns_of_words_and_tags_by_name(tmp_path: Path) -> None:
    examples = [
        {"forms": example["tokens"], "fine": example["tags"], "tags": ["X"] * len(example["tags"])}
        for example in TAGGED
    ]
    loaded = load(tmp_path, examples, columns=["forms"], label_column="fine")
    assert (loaded.spec.problem_type, loaded.spec.labels) == ("token", ("PRON", "VERB"))


def test_tags_may_be_ids_of_named_labels(tmp_path: Path) -> None:
    examples = [{"tokens": ["Zoë", "ran"], "ner_tags": [1, 0]}]
    loaded = load(tmp_path, examples, labels=["O", "B-PER", "I-PER"])
    assert loaded.train.labels == [[1, 0]]
    assert loaded.spec.metrics == ENTITY_METRICS


def test_a_list_of_labels_makes_a_multi_label_task(tmp_path: Path) -> None:
    loaded = load(tmp_path, TOPICS)
    assert (loaded.spec.problem_type, loaded.spec.labels) == ("multi_label", ("art", "sport"))
    assert loaded.train.labels == [[1, 1], [0, 0]]
    pairs = [{"sentence1": "a", "sentence2": "b", "label": example["labels"]} for example in TOPICS]
    assert load(tmp_path, pairs).spec.label_column == "label"


def test_answers_make_a_span_task_in_either_form(tmp_path: Path) -> None:
    loaded = load(tmp_path, [QUESTION])
    assert (loaded.spec.problem_type, loaded.spec.labels) == ("span", ("start", "end"))
    assert loaded.train.texts == [("Who won?", CONTEXT)]
    assert loaded.train.labels == [[(4, "Broncos"), (0, "The Broncos")]]
    hub = QUESTION | {"answers": {"text": ["Broncos", "The Broncos"], "answer_start": [4, 0]}}
    assert load(tmp_path, [hub]).digest == loaded.digest


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_squad_s_own_file(tmp_path: Path, suffix: str) -> None:
    questions = [{name: QUESTION[name] for name in ("question", "answers")} | {"id": "1"}] * 2
    articles = [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": questions}]}] * 2
    text = json.dumps({"data": articles, "version": "1.1"}).encode()
    for name in ("train", "dev"):
        (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    loaded = load_task_data("squad", data=tmp_path)
    assert loaded.train.texts == [("Who won?", CONTEXT)] * 4
    assert loaded.train.labels[3] == [(4, "Broncos"), (0, "The Broncos")]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["X"]}, "line 2 has 2 words and 1 labels; expected as many"),
        ({"tokens": [], "tags": []}, r"line 2: 'tokens' is \[\]; expected a list of words"),
        ({"tokens": "a b", "tags": ["X", "Y"]}, "line 2: 'tokens' is 'a b'; expected a list of words"),
        ({"tokens": ["a", 1], "tags": ["X", "X"]}, "line 2: 'tokens' is 1; expected a string"),
        ({"tokens": ["a"], "tags": "X"}, "line 2: 'tags' is 'X'; expected a list of labels"),
        ({"tokens": ["a"], "tags": [None]}, "line 2 has no label; expected a value in 'tags'"),
        ({"tokens": ["a"], "tags": [["X"]]}, r"line 2: the label \['X'\] is neither a number nor a name"),
        ({"tokens": ["a"], "tags": ["Z"]}, "line 2: the label 'Z' is none of own's labels: PRON .0., VERB .1."),
        ({"tokens": ["a"]}, "line 2 has no column 'tags'; found tokens"),
    ],
)
def test_bad_token_examples(tmp_path: Path, example: dict[str, Any], message: str) -> None:
    write_lines(tmp_path / "train.jsonl", TAGGED)
    write_lines(tmp_path / "dev.jsonl", [TAGGED[0], example])
    with pytest.raises(DataError, match=message):
        load_task_data("own", data=tmp_path)


def test_rows_without_any_label(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"sentence": "a", "labels": []}] * 2)
    write_lines(tmp_path / "dev.jsonl", [{"sentence": "a", "labels": []}])
    with pytest.raises(DataError, match="has no label at all"):
        load_task_data("own", data=tmp_path)


def test_a_span_task_has_no_labels_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="labels given for a span task"):
        load(tmp_path, [QUESTION], labels=["a", "b"])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "line 1 has no answer"),
        ({"text": [], "answer_start": []}, "line 1 has no answer"),
        ([{"text": "Broncos", "answer_start": 5}], "the answer 'Broncos' does not stand at character 5"),
        ([{"text": "", "answer_start": 5}], "the answer '' does not stand at character 5"),
        ([{"text": QUESTION["context"][-9:-4], "answer_start": -9}], "does not stand at character -9"),
        ([{"text": "Broncos"}], "expected a list of objects with text and answer_start"),
        ("Broncos", "expected a list of objects with text and answer_start"),
        (None, "expected a list of objects with text and answer_start"),
        ({"text": ["Broncos"], "answer_start": [4, 5]}, "expected a list of objects with text and answer_start"),
        ([{"text": "Broncos", "answer_start": "4"}], "expected a list of objects with text and answer_start"),
    ],
)
def test_bad_answers(tmp_path: Path, answers: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, [QUESTION | {"answers": answers}])


def test_a_file_that_only_begins_like_squad(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a list 'data' but not SQuAD's form"):
        load(tmp_path, [{"data": [{"paragraphs": [{"qas": [{}]}]}]}])


def test_a_sample_of_the_training_rows_is_always_the_same(tmp_path: Path) -> None:
    examples = [{"sentence": str(number), "label": number % 2} for number in range(100)]
    whole = load(tmp_path, examples)
    some = load(tmp_path, examples, train_examples=30)
    assert len(some.train) == len(some.train.labels) == 30
    assert some.train.texts == [text for text in whole.train.texts if text in some.train.texts]
    assert some.train.texts != whole.train.texts[:30]
    assert all(label == int(text) % 2 for (text,), label in zip(some.train.texts, some.train.labels, strict=True))
    assert some == load(tmp_path, examples, train_examples=30)
    assert some.digest != whole.digest
    assert len(some.validation) == 100
    assert load(tmp_path, examples, train_examples=1000) == whole
    with pytest.raises(UsageError, match="--train-examples is 0"):
        load(tmp_path, examples, train_examples=0)


def test_a_sample_of_the_validation_examples_is_always_the_same(tmp_path: Path) -> None:
    examples = [{"sentence": str(number), "label": number % 2} for number in range(100)]
    some = load(tmp_path, examples, validation_examples=30)
    assert (len(some.train), len(some.validation)) == (100, 30)
    assert some == load(tmp_path, examples, validation_examples=30)
    with pytest.raises(UsageError, match="--validation-examples is 0"):
        load(tmp_path, examples, validation_examples=0)
