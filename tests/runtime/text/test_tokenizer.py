# ruff: noqa: RUF001 - the ambiguous characters are the point
"""The text encoder gives what transformers' tokenizer gives, and says what it can't take."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfit_export.errors import BundleError, InputError, UsageError
from bitfit_export.runtime.text.tokenizer import Text, TextEncoder
from tests.conftest import real_examples

MAX_POSITIONS = 512
KEYS = ("input_ids", "attention_mask", "token_type_ids")

PLAIN = [
    "The cat sat on the mat.",
    "An unbelievably long-winded, antidisestablishmentarian remark!",
    "It isn't what it's made out to be; $3.50 (or 4,000 yen) at 10:30 a.m.",
    "",
]
ODD = {
    "accents": "Crème brûlée, naïve café, Ångström, Łódź",
    "combining": "Cre\u0300me bru\u0302le\u0301e e\u0301\u0301\u0301",
    "case": "İstanbul STRASSE straße ſ K ﬁ ǆ",
    "cjk": "今日は世界 你好，世界。 한국어 テスト ｶﾅ",
    "emoji": "fine 👍🏽 family \U0001f468\u200d\U0001f469\u200d\U0001f467 keycap 1\ufe0f\u20e3",
    "controls": "a\x00b\x07c\x1bd\x7fe\x85f\ufffdg",
    "zero width": "zero\u200bwidth\u200djoin\ufeffmark\u00adsoft\u2060word",
    "right to left": "שלום עולם \u202bمرحبا بالعالم\u202c \u200fabc",
    "spaces": "\t tabs\r\nand\u00a0no-break\u3000wide\u2028line \u1680",
    "private use": "\ue000 \U000f0000 \U0010fffd \u0378",
    "thai": "ภาษาไทยไม่มีช่องว่าง",
    "special tokens": "[CLS] hello [SEP] [MASK] [PAD] [UNK] [unused1]",
    "one long word": "a" * 300,
    "punctuation": "..!?—–…“”‘’«»¿¡§¶•™©®",
}


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs bitfit-export[export]")
    return transformers.AutoTokenizer.from_pretrained(minilm_folder)


@pytest.fixture(scope="module")
def encoder(minilm_folder: Path) -> TextEncoder:
    """Straight from the packaged file, which has truncation and padding to 128 tokens baked in."""
    return TextEncoder((minilm_folder / "tokenizer.json").read_bytes(), max_positions=MAX_POSITIONS, pad_token_id=0)


def encode_with(reference: Any, texts: list[Text], **options: Any) -> dict[str, np.ndarray]:
    """transformers takes singles, or the two sides of pairs, but not both in one call."""
    columns = [list(column) for column in zip(*texts, strict=True)] if isinstance(texts[0], tuple) else [texts]
    batch = reference(*columns, padding=True, return_token_type_ids=True, return_tensors="np", **options)
    return {key: batch[key] for key in KEYS}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert tuple(found) == KEYS
    for key in KEYS:
        assert found[key].dtype == np.int64
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


# --- equal to transformers


@pytest.mark.parametrize("texts", [PLAIN, *([text] for text in ODD.values()), list(ODD.values())])
def test_single_texts_equal_transformers(encoder: TextEncoder, reference: Any, texts: list[Text]) -> None:
    assert_equal(encoder.encode(texts), encode_with(reference, texts))


def test_pairs_equal_transformers(encoder: TextEncoder, reference: Any) -> None:
    texts = [*PLAIN, *ODD.values()]
    pairs: list[Text] = [*zip(texts, reversed(texts), strict=True), ("", ""), ("a", ""), ("", "b")]
    assert_equal(encoder.encode(pairs), encode_with(reference, pairs))


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 8, 16, 31, 64, 511, 512])
def test_truncated_texts_equal_transformers(encoder: TextEncoder, reference: Any, length: int) -> None:
    texts: list[Text] = [*PLAIN, *ODD.values(), " ".join(PLAIN) * 40]
    found = encoder.encode(texts, truncate=True, max_length=length)
    assert_equal(found, encode_with(reference, texts, truncation=True, max_length=length))
    assert found["input_ids"].shape[1] == length


@pytest.mark.parametrize("length", [3, 4, 5, 6, 7, 8, 9, 16, 33, 43, 44, 64, 83])
def test_truncated_pairs_equal_transformers(encoder: TextEncoder, reference: Any, length: int) -> None:
    """Short with long, long with short, both long, of even and odd lengths: the longer one loses tokens first."""
    sides = ["", "one", "one two three", " ".join(map(str, range(20))), " ".join(["word"] * 40)]
    pairs: list[Text] = [(first, second) for first in sides for second in sides]
    found = encoder.encode(pairs, truncate=True, max_length=length)
    assert_equal(found, encode_with(reference, pairs, truncation=True, max_length=length))


def test_long_pairs_are_cut_in_linear_time(encoder: TextEncoder) -> None:
    """The library would make some 10,000 pairs of the pieces that were cut off."""
    found = encoder.encode(("word " * 25_000, "again " * 25_000), truncate=True)
    ids = found["input_ids"][0]
    assert len(ids) == MAX_POSITIONS
    assert np.count_nonzero(ids == ids[1]) == 254
    assert np.count_nonzero(ids == ids[-2]) == 255


def test_truncation_is_to_what_the_model_takes(minilm_folder: Path, reference: Any) -> None:
    encoder = TextEncoder((minilm_folder / "tokenizer.json").read_bytes(), max_positions=20, pad_token_id=0)
    texts: list[Text] = ["word " * 100, "short"]
    assert_equal(encoder.encode(texts, truncate=True), encode_with(reference, texts, truncation=True, max_length=20))


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=4), length=st.integers(3, 40))
def test_any_text_equals_transformers(encoder: TextEncoder, reference: Any, texts: list[Text], length: int) -> None:
    options = {"truncation": True, "max_length": length}
    found = encoder.encode(texts, truncate=True, max_length=length)
    assert_equal(found, encode_with(reference, texts, **options))
    pairs: list[Text] = [(str(text), str(texts[0])) for text in texts]
    found = encoder.encode(pairs, truncate=True, max_length=length)
    assert_equal(found, encode_with(reference, pairs, **options))


def test_byte_level_tokenizer_equals_transformers(tmp_path: Path) -> None:
    """RoBERTa's kind: byte-level BPE, two separators in a pair, padding that is not 0."""
    transformers = pytest.importorskip("transformers", reason="needs bitfit-export[export]")
    trained = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    trained.train_from_iterator(
        [*PLAIN, *ODD.values()], vocab_size=400, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False
    )
    trained._tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    trained.save(str(tmp_path / "tokenizer.json"))
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>", model_max_length=64
    )
    encoder = TextEncoder((tmp_path / "tokenizer.json").read_bytes(), max_positions=64, pad_token_id=1)
    singles: list[Text] = [*PLAIN, *ODD.values()]
    pairs: list[Text] = [("one", "two three"), (PLAIN[0], PLAIN[1]), ("", "x")]
    for texts in (singles, pairs):
        for length in (4, 9, 64):
            expected = encode_with(reference, texts, truncation=True, max_length=length)
            assert_equal(encoder.encode(texts, truncate=True, max_length=length), expected)


@pytest.mark.data
@pytest.mark.parametrize("task", ["sst2", "cola", "rte", "mrpc", "stsb"])
def test_real_data_equals_transformers(encoder: TextEncoder, reference: Any, task: str) -> None:
    texts: list[Text] = [
        row["sentence"] if "sentence" in row else (row["sentence1"], row["sentence2"]) for row in real_examples(task)
    ]
    assert_equal(encoder.encode(texts), encode_with(reference, texts))
    for length in (16, 128):
        expected = encode_with(reference, texts, truncation=True, max_length=length)
        assert_equal(encoder.encode(texts, truncate=True, max_length=length), expected)


# --- its own promises


@pytest.mark.parametrize("text", [*PLAIN, *ODD.values(), ("A question?", ODD["accents"]), ODD["spaces"].split(" ")])
def test_words_and_their_characters_equal_transformers(encoder: TextEncoder, reference: Any, text: Text) -> None:
    sides = text if isinstance(text, tuple) else (text,)
    expected = reference(*sides, is_split_into_words=isinstance(text, list))
    (found,) = encoder.align([text])
    assert found.ids == expected["input_ids"]
    assert found.words == expected.word_ids()
    assert found.sides == expected.sequence_ids()
    starts = [0]
    for word in text if isinstance(text, list) else []:
        starts.append(starts[-1] + len(word) + 1)  # words count as if a space stood between each two
    for side, word, span in zip(found.sides, found.words, found.spans, strict=True):
        if word is None:
            assert span == (0, 0)
        elif isinstance(text, list):
            assert span == (starts[word], starts[word + 1] - 1)
        else:
            assert span == tuple(expected.word_to_chars(word, sequence_index=side))


def test_a_list_may_hold_singles_and_pairs(encoder: TextEncoder) -> None:
    mixed = encoder.encode(["a", ("b", "c d"), "e f g h i"])
    for row, text in enumerate(["a", ("b", "c d"), "e f g h i"]):
        alone = encoder.encode(text)
        length = alone["input_ids"].shape[1]
        for key in KEYS:
            np.testing.assert_array_equal(mixed[key][row, :length], alone[key][0])
            assert not mixed[key][row, length:].any()


def test_empty_text_has_the_special_tokens(encoder: TextEncoder) -> None:
    assert encoder.encode("")["input_ids"].tolist() == [[101, 102]]


def test_texts_are_not_truncated_or_padded_as_the_file_says(encoder: TextEncoder) -> None:
    assert encoder.encode("word " * 200)["input_ids"].shape == (1, 202)
    assert encoder.encode("word")["input_ids"].shape == (1, 3)


def test_longest_text_is_taken_and_one_more_token_refused(minilm_folder: Path) -> None:
    encoder = TextEncoder((minilm_folder / "tokenizer.json").read_bytes(), max_positions=10, pad_token_id=0)
    assert encoder.encode("word " * 8)["input_ids"].shape == (1, 10)
    with pytest.raises(InputError, match=r"item 1 has 11 tokens, expected at most 10\n.*--truncate"):
        encoder.encode(["ok", "word " * 9])
    with pytest.raises(InputError, match=r"item 0 has 12 tokens, expected at most 10 \(2 items are too long\)"):
        encoder.encode([("word", "word " * 8), "ok", "word " * 30])


def test_max_length_is_a_limit_without_truncate_too(encoder: TextEncoder) -> None:
    with pytest.raises(InputError, match="item 0 has 7 tokens, expected at most 6"):
        encoder.encode("one two three four five", max_length=6)


@pytest.mark.parametrize("length", [0, -1, 513, 2.0, True, "8"])
def test_refuses_a_max_length(encoder: TextEncoder, length: Any) -> None:
    with pytest.raises(UsageError, match="expected 1 to 512 tokens"):
        encoder.encode("a", truncate=True, max_length=length)


def test_refuses_fewer_tokens_than_the_special_ones(encoder: TextEncoder) -> None:
    """The library would give such a text whole."""
    with pytest.raises(UsageError, match="expected at least 2"):
        encoder.encode("a b c", truncate=True, max_length=1)
    with pytest.raises(UsageError, match="expected at least 3"):
        encoder.encode(["a b c", ("a", "b")], truncate=True, max_length=2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is no text"),
        (None, "the texts are NoneType"),
        (b"bytes", "the texts are bytes"),
        (5, "the texts are int"),
        (["a", None], "item 1 is NoneType"),
        (["a", b"b"], "item 1 is bytes"),
        ([["a", 5]], r"item 0 is a list of \(str, int\)"),
        (["a", []], r"item 1 is a list of \(\)"),
        ([("a",)], r"item 0 is a tuple of \(str\)"),
        ([("a", "b", "c")], r"item 0 is a tuple of \(str, str, str\)"),
        ([("a", None)], r"item 0 is a tuple of \(str, NoneType\)"),
        (("a", "b", "c"), r"item 0 is a tuple of \(str, str, str\)"),
        (["a", "half \ud800"], "item 1 has half a surrogate pair"),
        (["a", "b", ("c", "\udfff")], "item 2 has half a surrogate pair"),
    ],
)
def test_refuses_what_is_no_text(encoder: TextEncoder, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode(texts)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "1.0"}', b"[" * 100_000])
def test_refuses_a_file_that_is_no_tokenizer(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"x/tokenizer\.json (is not valid JSON|cannot be used)") as caught:
        TextEncoder(content, max_positions=8, pad_token_id=0, where="x/tokenizer.json")
    assert "\n" not in caught.value.message


def test_truncated_file_is_refused(minilm_folder: Path) -> None:
    data = (minilm_folder / "tokenizer.json").read_bytes()
    with pytest.raises(BundleError, match="is not valid JSON"):
        TextEncoder(data[:-100], max_positions=8, pad_token_id=0)


def test_threads_share_an_encoder(encoder: TextEncoder) -> None:
    """Each thread wants another length at each step, and between the steps none."""
    text = " ".join(map(str, range(100)))
    expected = {length: encoder.encode(text, truncate=True, max_length=length) for length in range(5, 15)}
    whole = encoder.encode(text)

    def work(seed: int) -> int:
        wrong = 0
        for step in range(60):
            length = 5 + (seed + step) % 10
            cut = encoder.encode(text, truncate=True, max_length=length)["input_ids"]
            wrong += not np.array_equal(cut, expected[length]["input_ids"])
            wrong += not np.array_equal(encoder.encode(text)["input_ids"], whole["input_ids"])
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0


def test_a_space_is_no_part_of_a_word(tmp_path: Path) -> None:
    """SentencePiece's kind of tokenizer puts the space before a word into its token, and makes a token of a second
    space."""
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("\u2581hello", -1.0), ("\u2581world", -1.0)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder((tmp_path / "tokenizer.json").read_bytes(), max_positions=16, pad_token_id=0)
    text, words = encoder.align(["hello  world", ["hello", "world"]])
    assert text.spans == [(0, 5), (6, 6), (7, 12)]
    assert words.spans == [(0, 5), (6, 11)]
    with pytest.raises(InputError, match="item 1 has a context without a word"):
        encoder.windows([("hello", "world"), ("hello", "  ")])
