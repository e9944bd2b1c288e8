"""Token tasks: one label per word, as a Hugging Face token-classification pipeline gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, Layout, read_row, write_row
from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime import BiasSession
from tests.runtime.conftest import TAGS, TOLERANCE, MakeBundle, OpenBundle, Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

SENTENCES = [
    "Ada Lovelace lived in London.",
    "Antidisestablishmentarianism, unbelievably, isn't hyphenated!",
    "one",
    "Łódź is   spelt with\todd letters: ü, ñ and 你好",
]
WORDS = [["Ada", "Lovelace's", "antidisestablishmentarian", "don't"], ["one"], ["a-b", "c"]]


@pytest.fixture(scope="module")
def session(open_layout: Callable[[str], BiasSession]) -> BiasSession:
    return open_layout("table")


@pytest.fixture(scope="module")
def pipeline(tiny_base: BaseModel, kind_deltas: dict[str, TaskDelta]) -> Any:
    """transformers' pipeline for the task `tags`; words are groups, as no label of the task begins with "I-"."""
    import torch
    import transformers

    config = transformers.BertConfig.from_dict(tiny_base.module.config.to_dict())
    config.num_labels, config.id2label = len(TAGS), dict(enumerate(TAGS))
    model = transformers.BertForTokenClassification(config).eval()
    delta = kind_deltas["tags"]
    state = tiny_base.module.state_dict() | {
        name: torch.from_numpy(value) for name, value in delta.merge(tiny_base.biases).items()
    }
    model.load_state_dict(
        {f"bert.{name}": value for name, value in state.items() if not name.startswith("pooler")}
        | {name: torch.from_numpy(value) for name, value in delta.head.items()}
    )
    return transformers.pipeline(
        "token-classification",
        model=model,
        tokenizer=tiny_base.tokenizer,
        device="cpu",
        aggregation_strategy="first",
        ignore_labels=[],
    )


def test_words_of_a_text_equal_the_hugging_face_pipelines(session: BiasSession, pipeline: Any) -> None:
    found = session.predict(SENTENCES, "tags")
    for sentence, ours in zip(SENTENCES, found, strict=True):
        theirs = pipeline(sentence)
        assert [(each["start"], each["end"]) for each in ours] == [(each["start"], each["end"]) for each in theirs]
        assert [each["label"] for each in ours] == [f"B-{each['entity_group']}" for each in theirs]
        assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=TOLERANCE)
        assert [each["word"] for each in ours] == [sentence[each["start"] : each["end"]] for each in theirs]
    assert len({each["label"] for words in found for each in words}) > 2, "else equal labels mean little"


def test_given_words_have_the_label_of_their_first_token(
    session: BiasSession, kind_reference: Reference, tiny_base: BaseModel
) -> None:
    found = session.predict(WORDS, "tags")
    for words, ours in zip(WORDS, found, strict=True):
        encoding = tiny_base.tokenizer(words, is_split_into_words=True, return_tensors="np")
        (logits,) = kind_reference.rows("tags", dict(encoding))
        first = [encoding.word_ids(0).index(number) for number in range(len(words))]
        powers = np.exp(logits[first].astype(np.float64))
        scores = powers / powers.sum(axis=1, keepdims=True)
        assert [each["word"] for each in ours] == words
        assert [each["label"] for each in ours] == [TAGS[index] for index in scores.argmax(axis=1)]
        assert [each["score"] for each in ours] == pytest.approx(list(scores.max(axis=1)), abs=TOLERANCE)
        assert [" ".join(words)[each["start"] : each["end"]] for each in ours] == words
    assert list(found[0][0]) == ["word", "label", "score", "start", "end"]


def test_a_top_level_list_is_a_list_of_texts(session: BiasSession) -> None:
    assert [len(each) for each in session.predict(["one two", "three"], "tags")] == [2, 1]
    assert [len(each) for each in session.predict([["one two", "three"]], "tags")] == [2]


def test_texts_and_words_may_stand_in_one_list(session: BiasSession) -> None:
    mixed = session.predict([SENTENCES[0], WORDS[0], SENTENCES[2]], "tags")
    alone = [session.predict([each], "tags")[0] for each in (SENTENCES[0], WORDS[0], SENTENCES[2])]
    for ours, theirs in zip(mixed, alone, strict=True):
        assert [each["word"] for each in ours] == [each["word"] for each in theirs]
        assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=TOLERANCE)


def test_words_without_a_token_are_left_out(session: BiasSession) -> None:
    """A lone control character, which the tokenizer drops; what remains keeps its place."""
    (found,) = session.predict([["a", "\x07", "", "b"]], "tags")
    assert [(each["word"], each["start"], each["end"]) for each in found] == [("a", 0, 1), ("b", 5, 6)]
    assert session.predict([""], "tags") == [[]]


def test_words_that_are_cut_off_are_left_out(session: BiasSession) -> None:
    with pytest.raises(InputError, match="item 1 has 72 tokens, expected at most 64"):
        session.predict(["fine", ["word"] * 70], "tags")
    (found,) = session.predict([["word"] * 70], "tags", truncate=True)
    assert len(found) == 62
    (found,) = session.predict(["word " * 70], "tags", truncate=True, max_length=10)
    assert len(found) == 8


def test_the_row_of_an_error_is_the_texts_own(session: BiasSession) -> None:
    """Texts of different kinds are tokenised apart; messages still count all of them."""
    with pytest.raises(InputError, match="item 2 has 72 tokens"):
        session.predict(["fine", ("one", "two"), ["word"] * 70], ["three_way", "two_way", "tags"])


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        (("one", "two"), "tags", "item 1 is a pair of texts, expected one text or a list of words for .* tags"),
        (["one", "two"], "two_way", "item 1 is a list of words, expected one text or a pair of texts for .* two"),
    ],
)
def test_a_text_of_the_wrong_kind_is_refused(session: BiasSession, text: Any, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session.predict(["fine", text], ["three_way", task])


def test_top_k_is_not_for_words(session: BiasSession) -> None:
    with pytest.raises(UsageError, match="top_k is 2, expected none for the token task tags"):
        session.predict(["one", "two"], ["three_way", "tags"], top_k=2)


def test_encode_takes_words(session: BiasSession, tiny_base: BaseModel) -> None:
    """For `run`: the ids that transformers gives for words."""
    found = session.encode(WORDS)
    expected = tiny_base.tokenizer(WORDS, is_split_into_words=True, padding=True, return_tensors="np")
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_extreme_logits(make_bundle: MakeBundle, open_bundle: OpenBundle, tmp_path: Path) -> None:
    """No overflow, no NaN, no warning."""
    session = open_bundle(make_bundle("table"))
    layout = session.manifest.layout
    row = read_row(make_bundle("table") / "tasks" / "tags.bias", layout=layout)
    write_row(tmp_path / "row.bias", with_classifier_bias(row, layout, [3e38, -3e38, 0, 0]))
    session.load_task(tmp_path / "row.bias")
    with np.errstate(all="raise", under="ignore"):
        assert session.predict([["a"]], "tags") == [
            [{"word": "a", "label": TAGS[0], "score": 1.0, "start": 0, "end": 1}]
        ]


def with_classifier_bias(row: BiasRow, layout: Layout, values: list[float]) -> BiasRow:
    names = [entry.name for entry in layout.head]
    head = list(row.head)
    head[names.index("head.classifier.bias")] = np.array(values, np.float32)
    return replace(row, head=tuple(head))


# --- byte-level tokenizers


def test_given_words_of_a_byte_level_tokenizer(tmp_path: Path) -> None:
    """RoBERTa's kind: a word's tokens depend on the space before it, which a list of words does not have."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from bitfit_export.runtime.text.tokenizer import TextEncoder

    vocabulary = {letter: index for index, letter in enumerate(["Ġ", *"abn", "Ġa", "Ġb"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder((tmp_path / "tokenizer.json").read_bytes(), max_positions=16, pad_token_id=0)
    tokens = encoder.tokenize(["ban an", ["ban", "an"]])
    text, words = ([tokenizer.id_to_token(each) for each in one.ids] for one in tokens)
    assert text == ["b", "a", "n", "Ġa", "n"]
    assert words == ["Ġb", "a", "n", "Ġa", "n"]
    (aligned,) = encoder.align([["ban", "an"]])
    assert aligned.words == [0, 0, 0, 1, 1]
    assert aligned.spans == [(0, 3)] * 3 + [(4, 6)] * 2


def test_a_word_after_a_special_token_keeps_its_first_character(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from bitfit_export.runtime.text.tokenizer import TextEncoder

    vocabulary = {letter: index for index, letter in enumerate(["<s>", "</s>", "Ġ", *"abn"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "ban <s>an</s>b"
    (aligned,) = TextEncoder((tmp_path / "tokenizer.json").read_bytes(), max_positions=16, pad_token_id=0).align([text])
    words = [text[start:end] for start, end in dict.fromkeys(aligned.spans) if start < end]
    assert words == ["ban", "<s>", "an", "</s>", "b"]
