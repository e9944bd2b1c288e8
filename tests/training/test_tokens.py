"""Each word's label is learnt at its first token; a word that has none left is an error, not left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitfit_export.training.data import load_task_data
from bitfit_export.training.examples import Examples
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.tokens import EncodedWords, first_tokens
from tests.conftest import real_data

LABELS = ("ADJ", "NOUN", "PUNCT")
SPEC = TaskSpec("pos", "token", ("tokens",), "tags", LABELS, ("accuracy",))
WORDS = [("unbelievable", "embeddings", "!"), ("don't", "U.S.A.", "..."), ("naïve", "Zoë")]
EXAMPLES = Examples(WORDS, [[0, 1, 2], [0, 1, 2], [0, 1]])


def test_labels_stand_where_transformers_puts_pre_split_words(wordpiece: Any) -> None:
    """transformers tokenises a list of words itself, and says which word a token is of."""
    features = EncodedWords(SPEC, EXAMPLES, wordpiece, 64).features
    theirs = wordpiece([list(words) for words in WORDS], is_split_into_words=True)
    for index, feature in enumerate(features):
        assert feature["input_ids"] == theirs["input_ids"][index]
        words = theirs.word_ids(index)
        first = [word is not None and word not in words[:position] for position, word in enumerate(words)]
        expected = [EXAMPLES.labels[index][word] if new else -100 for word, new in zip(words, first, strict=True)]
        assert feature["labels"] == expected
        assert feature.keys() == {"input_ids", "attention_mask", "token_type_ids", "labels"}


@pytest.mark.parametrize(
    ("words", "offsets", "expected"),
    [
        (("ab", "c"), [(0, 0), (0, 1), (1, 2), (3, 4), (0, 0)], [1, 3]),
        (("ab", "c"), [(0, 2), (2, 4)], [0, 1]),  # the space belongs to the second word's token
        (("ab", "c"), [(0, 4)], [0, 0]),  # one token of both
        (("ab", "c"), [(0, 2)], [0, None]),  # the rest was cut
        (("ab", "", "c"), [(0, 2), (4, 5)], [0, None, 1]),
        (("", "c"), [(0, 2)], [None, 0]),
        (("ab",), [(0, 0), (0, 0)], [None]),
        (("é",), [(0, 1), (0, 1)], [0]),  # two tokens of one letter
    ],
)
def test_first_tokens_by_hand(
    words: tuple[str, ...], offsets: list[tuple[int, int]], expected: list[int | None]
) -> None:
    assert first_tokens(words, offsets) == expected


def test_a_tokenizer_that_counts_spaces_as_part_of_words(byte_level: Any) -> None:
    encoded = EncodedWords(SPEC, Examples([("xy", "é", "ay")], [[0, 1, 2]]), byte_level, 64)
    (feature,) = encoded.features
    assert byte_level.convert_ids_to_tokens(feature["input_ids"]) == (
        ["<s>", "x", "y", "Ġ", "Ã", "©", "Ġa", "y", "</s>"]
    )
    # The space before é is a token by itself, without a character of a word.
    assert feature["labels"] == [-100, 0, -100, -100, 1, -100, 2, -100, -100]


def perfect_logits(encoded: EncodedWords) -> list[np.ndarray]:
    """Logits that are right wherever there is a label, and say label 0 elsewhere; with padding after them."""
    examples = []
    for feature in encoded.features:
        labels = np.array([*feature["labels"], -100, -100])
        examples.append(np.eye(len(LABELS))[np.maximum(labels, 0)])
    return examples


def test_right_logits_are_a_perfect_score(wordpiece: Any) -> None:
    encoded = EncodedWords(SPEC, EXAMPLES, wordpiece, 64)
    assert encoded.score(perfect_logits(encoded)) == {"accuracy": 1.0}
    wrong = perfect_logits(encoded)
    wrong[2] = np.roll(wrong[2], 1, axis=1)
    assert encoded.score(wrong) == {"accuracy": 6 / 8}


def test_words_that_are_cut_off_are_errors(wordpiece: Any) -> None:
    words = ("one", "two", "three", "four")
    encoded = EncodedWords(SPEC, Examples([words], [[1, 1, 1, 1]]), wordpiece, 5)  # [CLS] one two three [SEP]
    assert len(encoded.features[0]["input_ids"]) == 5
    assert encoded.score(perfect_logits(encoded)) == {"accuracy": 3 / 4}


def test_a_word_that_has_no_token_is_an_error(wordpiece: Any) -> None:
    """BERT's normalisation drops control characters."""
    encoded = EncodedWords(SPEC, Examples([("one", "\x01")], [[1, 1]]), wordpiece, 16)
    assert encoded.score(perfect_logits(encoded)) == {"accuracy": 1 / 2}


@pytest.mark.slow
@pytest.mark.data
def test_real_sentences_are_tokenised_as_transformers_does_it_and_none_of_their_words_is_lost(wordpiece: Any) -> None:
    """UD English EWT: its own statistics say 12,544 and 2,001 sentences, of 204,577 and 25,147 words."""
    data = load_task_data("ewt", data=real_data("ewt"))
    assert (len(data.train), len(data.validation)) == (12544, 2001)
    assert [sum(map(len, examples.texts)) for examples in (data.train, data.validation)] == [204577, 25147]
    assert len(data.spec.labels) == 17
    encoded = EncodedWords(data.spec, data.train, wordpiece, 256)
    theirs = wordpiece([list(words) for words in data.train.texts], is_split_into_words=True)["input_ids"]
    assert [feature["input_ids"] for feature in encoded.features] == theirs
    assert sum(label != -100 for feature in encoded.features for label in feature["labels"]) == 204577
