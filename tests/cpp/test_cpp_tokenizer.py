"""The C++ tokenizer gives the ids, the words and their places that Hugging Face's tokenizers gives, for any text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer

from bitfit_export.runtime.text.alignment import align_tokens
from bitfit_export.runtime.text.tokenizer import read_tokenizer
from bitfit_export.training.data_files import read_folder
from tests.conftest import real_data
from tests.cpp.conftest import CPP, run

#: A string, a pair of strings, or a text as {"words": [...]}.
Text = Any

#: Texts of many scripts in which one thing or another has gone wrong before, in some tokenizer.
TORTURE: list[str] = json.loads(Path(__file__).with_name("unicode_torture.json").read_text(encoding="utf-8"))


def wordpiece_file(folder: Path, minilm_folder: Path, **options: Any) -> Path:
    """The packaged vocabulary with other steps of the normalizer."""
    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def characters_file(folder: Path, characters: Sequence[str]) -> Path:
    """A vocabulary of these characters, so that no two of them share an id."""
    vocabulary = {"[UNK]": 0} | {each: number for number, each in enumerate(characters, 1)}
    vocabulary |= {f"##{each}": len(vocabulary) + number for number, each in enumerate(characters)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def byte_level_file(folder: Path, texts: Iterable[str], *, add_prefix_space: bool) -> Path:
    """A byte-level BPE tokenizer as RoBERTa's, trained on these texts."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        texts, BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=add_prefix_space)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=False, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def cpp_tokens(programs: Path, path: Path, texts: Sequence[Text], *arguments: str) -> list[Any]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = run([programs / "tests" / "tokenizer_print", path, *arguments], input=lines)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(texts)
    return found


def assert_same(programs: Path, path: Path, texts: Sequence[Text]) -> None:
    """Ids, type ids, sides, words and their places of every text; the first difference is shown."""
    tokenizer = read_tokenizer(path.read_bytes(), str(path))
    encoded = [tokenizer.encode(*text) if isinstance(text, (list, tuple)) else tokenizer.encode(text) for text in texts]
    for text, found, encoding in zip(texts, cpp_tokens(programs, path, texts), encoded, strict=True):
        tokens = align_tokens(encoding, text)
        sides, words = ([-1 if each is None else each for each in column] for column in (tokens.sides, tokens.words))
        expected = [
            [number, kind, side, word, *(span if span[0] < span[1] else (0, 0))]
            for number, kind, side, word, span in zip(
                tokens.ids, tokens.type_ids, sides, words, tokens.spans, strict=True
            )
        ]
        assert found == expected, text


def random_texts(count: int) -> list[str]:
    """Characters of many scripts, with marks, spaces and punctuation between them."""
    random = np.random.default_rng(0)
    blocks = [(32, 127), (0x80, 0x600), (0x900, 0x3100), (0xAC00, 0xD7A4), (0x4E00, 0xA000), (0x10000, 0x1F000)]
    often = [*map(ord, " \t\n'.-"), 0x300, 0x301, 0x323, 0x345, 0x5B0, 0x130]
    texts = []
    for _ in range(count):
        codes = [
            int(random.choice(often)) if random.random() < 0.3 else int(random.integers(*blocks[each]))
            for each in random.integers(0, len(blocks), 40)
        ]
        texts.append("".join(map(chr, codes)))
    return texts


@pytest.fixture(scope="session")
def bert(minilm_folder: Path) -> Path:
    return minilm_folder / "tokenizer.json"


class TestWordPiece:
    def test_torture(self, programs: Path, bert: Path) -> None:
        assert_same(programs, bert, TORTURE)

    def test_pairs(self, programs: Path, bert: Path) -> None:
        pairs = list(zip(TORTURE, reversed(TORTURE), strict=True))
        assert_same(programs, bert, pairs)

    def test_random_texts(self, programs: Path, bert: Path) -> None:
        assert_same(programs, bert, random_texts(2000))

    @pytest.mark.parametrize("step", ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
    @pytest.mark.parametrize("on", [True, False])
    def test_each_step_of_the_normalizer(
        self, programs: Path, tmp_path: Path, minilm_folder: Path, step: str, on: bool
    ) -> None:
        """One step against all the others."""
        steps = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), not on) | {step: on}
        path = wordpiece_file(tmp_path, minilm_folder, **steps)
        assert_same(programs, path, TORTURE + random_texts(200))

    def test_accents_follow_case_where_nothing_is_said(
        self, programs: Path, tmp_path: Path, minilm_folder: Path
    ) -> None:
        path = wordpiece_file(tmp_path, minilm_folder, lowercase=False, strip_accents=None)
        assert_same(programs, path, ["Café CAFÉ"])

    @pytest.mark.slow
    def test_every_character(self, programs: Path, tmp_path: Path) -> None:
        """Of the planes that have characters; of the others, which are empty or for private use, some."""
        codes = [*range(0xD800), *range(0xE000, 0x34000), *range(0x34000, 0xE0000, 61), *range(0xE0000, 0xE1000)]
        characters = [chr(code) for code in (*codes, *range(0xE1000, sys.maxunicode + 1, 61), sys.maxunicode)]
        path = characters_file(tmp_path, characters)
        groups = [
            "".join(f"a{each}\u0301b " for each in characters[at : at + 64]) for at in range(0, len(characters), 64)
        ]
        assert_same(programs, path, groups)

    def test_the_order_of_marks(self, programs: Path, tmp_path: Path) -> None:
        """Of those that the normalizer keeps: it knows only the older ones as accents."""
        strip = normalizers.BertNormalizer().normalize_str
        marks = [chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code))]
        kept = [each for each in marks if strip(each) == each]
        assert len({unicodedata.combining(each) for each in kept}) > 3
        path = characters_file(tmp_path, kept)
        assert_same(programs, path, [f"{first}{second}" for first in kept[::3] for second in kept[::5]])


@pytest.fixture(scope="session", params=[False, True], ids=["as it is", "with a space before"])
def byte_level(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = Path(__file__).parents[2].joinpath("docs/guide.md").read_text(encoding="utf-8").splitlines()
    return byte_level_file(folder, words + TORTURE, add_prefix_space=request.param)


class TestByteLevel:
    def test_torture(self, programs: Path, byte_level: Path) -> None:
        assert_same(programs, byte_level, TORTURE)

    def test_pairs(self, programs: Path, byte_level: Path) -> None:
        assert_same(programs, byte_level, list(zip(TORTURE, reversed(TORTURE), strict=True)))

    def test_random_texts(self, programs: Path, byte_level: Path) -> None:
        assert_same(programs, byte_level, random_texts(2000))

    def test_a_long_word_takes_little_time(self, programs: Path, byte_level: Path) -> None:
        assert_same(programs, byte_level, ["the" * 50_000])


class TestWords:
    """What token tasks need: lists of words, and the characters of each word."""

    def test_a_list_of_words(self, programs: Path, bert: Path) -> None:
        words = ["Ada", "lovelace's", "x", "[SEP]", "wörld", "日本"]
        tokenizer = Tokenizer.from_file(str(bert))
        tokenizer.no_padding()
        encoding = tokenizer.encode(words, is_pretokenized=True)
        (found,) = cpp_tokens(programs, bert, [{"words": words}])
        assert [token[0] for token in found] == encoding.ids
        assert [token[3] for token in found] == [-1 if word is None else word for word in encoding.word_ids]
        joined = " ".join(words)
        assert {joined[start:end] for *_, word, start, end in found if word >= 0} == set(words)

    def test_characters_of_words(self, programs: Path, bert: Path) -> None:
        text = "\u200bNai\u0308ve 日本x, İx\t[SEP]!"
        tokenizer = Tokenizer.from_file(str(bert))
        tokenizer.no_padding()
        spans: dict[int, tuple[int, int]] = {}
        encoding = tokenizer.encode(text)
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            if word is not None:
                spans[word] = (spans.get(word, (start, end))[0], end)
        (found,) = cpp_tokens(programs, bert, [text])
        assert {word: (start, end) for *_, word, start, end in found if word >= 0} == spans


class TestTruncation:
    @pytest.mark.parametrize("limit", [3, 4, 5, 8, 9, 20])
    def test_longest_first(self, programs: Path, bert: Path, limit: int) -> None:
        pairs = [("a b c d e f", "g h"), ("a b", "c d e f g h"), ("a b c d", "e f g h"), ("a " * 50, "b " * 51)]
        tokenizer = Tokenizer.from_file(str(bert))
        tokenizer.no_padding()
        tokenizer.enable_truncation(limit, strategy="longest_first")
        found = cpp_tokens(programs, bert, pairs, str(limit))
        assert [[token[0] for token in each] for each in found] == [tokenizer.encode(*pair).ids for pair in pairs]

    def test_too_many_special_tokens(self, programs: Path, bert: Path) -> None:
        assert cpp_tokens(programs, bert, [("a", "b")], "2") == [
            "max_length is 2, expected at least 3, the number of special tokens"
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("member", "value", "message"),
        [
            ("normalizer", {"type": "NFC"}, "normalizer is NFC, expected BertNormalizer"),
            ("pre_tokenizer", {"type": "Metaspace"}, "pre_tokenizer Metaspace"),
            ("post_processor", {"type": "Other"}, "post_processor is Other"),
            ("model", {"type": "Unigram"}, "the model Unigram"),
            ("added_tokens", [{"id": -1, "content": "x"}], "lacks single_word"),
        ],
    )
    def test_unknown_components(
        self, programs: Path, tmp_path: Path, bert: Path, member: str, value: Any, message: str
    ) -> None:
        spec = json.loads(bert.read_text(encoding="utf-8")) | {member: value}
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        done = subprocess.run(
            [programs / "tests" / "tokenizer_print", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert message in done.stderr


class TestTables:
    @pytest.mark.slow
    def test_the_tables_are_those_of_the_installed_library(self) -> None:
        """A release of tokenizers that knows characters differently asks for new tables."""
        done = run([sys.executable, CPP / "tools" / "make_unicode_tables.py"])
        assert done.stdout == (CPP / "src" / "unicode_tables.inc").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def real_texts(request: pytest.FixtureRequest) -> list[Text]:
    """The dev sets, and a tenth of the training sets; with `--dev-examples 0` all of both."""
    step = 10 if request.config.getoption("--dev-examples") else 1
    tasks = ("cola", "mrpc", "rte", "sst2", "stsb", "ewt", "squad")
    folder = real_data(*tasks)
    splits = {task: read_folder(folder, task) for task in tasks}
    found: list[Text] = []
    for task in tasks[:-1]:
        for _, example in (*splits[task].train.examples[::step], *splits[task].validation.examples):
            texts = [example[name] for name in ("sentence", "sentence1", "sentence2") if name in example]
            texts = texts or [" ".join(example["tokens"])]
            found.append(texts[0] if len(texts) == 1 else tuple(texts))
    # One question for each context.
    found += {
        example["context"]: (example["question"], example["context"])
        for _, example in splits["squad"].validation.examples
    }.values()
    assert len(found) > 1000
    return found


@pytest.mark.data
class TestRealTexts:
    """Zero differences."""

    def test_wordpiece(self, programs: Path, bert: Path, real_texts: list[Text]) -> None:
        assert_same(programs, bert, real_texts)

    def test_roberta(self, programs: Path, tmp_path: Path, real_texts: list[Text]) -> None:
        transformers = pytest.importorskip("transformers")
        folder = Path(os.environ["BITFIT_DATA"]) / "tokenizers" / "roberta-base"
        if not folder.exists():
            pytest.skip("needs the tokenizer of roberta-base")
        transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
        assert_same(programs, tmp_path / "tokenizer.json", real_texts)
