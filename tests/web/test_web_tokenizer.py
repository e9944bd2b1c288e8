"""The tokenizer in TypeScript gives the ids, the words and their places that Hugging Face's tokenizers gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.runtime.text.alignment import align_tokens
from bitfit_export.runtime.text.tokenizer import read_tokenizer
from tests.cpp.test_cpp_tokenizer import TORTURE, byte_level_file, characters_file, random_texts, wordpiece_file
from tests.web.conftest import RunNode

pytestmark = pytest.mark.slow
#: One character of so many is looked at by itself; all were, once.
STEP = 29


def places_in(text: str) -> list[int]:
    """For the place of each character of a text, that in UTF-16 code units, as JavaScript counts."""
    places = [0]
    for character in text:
        places.append(places[-1] + (2 if ord(character) > 0xFFFF else 1))
    return places


def expected(path: Path, texts: Sequence[str]) -> list[dict[str, Any]]:
    tokenizer = read_tokenizer(path.read_bytes(), str(path))
    found = []
    for text in texts:
        tokens, places = align_tokens(tokenizer.encode(text), text), places_in(text)
        spans = [[places[start], places[end]] if start < end else [0, 0] for start, end in tokens.spans]
        found.append({"ids": tokens.ids, "words": tokens.words, "spans": spans})
    return found


def assert_same(run_node: RunNode, path: Path, texts: Sequence[str]) -> None:
    """Ids, words and places of every text; the first difference is shown."""
    found = json.loads(run_node("test/node/encode.mjs", path, stdin=json.dumps(texts)))
    for text, mine, theirs in zip(texts, found, expected(path, texts), strict=True):
        assert mine == theirs, text


def test_wordpiece(run_node: RunNode, minilm_folder: Path) -> None:
    assert_same(run_node, minilm_folder / "tokenizer.json", [*TORTURE, *random_texts(300)])


@pytest.mark.parametrize("step", ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
def test_each_step_of_the_normalizer(run_node: RunNode, tmp_path: Path, minilm_folder: Path, step: str) -> None:
    """One step without all the others."""
    steps = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False) | {step: True}
    assert_same(run_node, wordpiece_file(tmp_path, minilm_folder, **steps), [*TORTURE, *random_texts(100)])


def test_every_character(run_node: RunNode, tmp_path: Path) -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000][::STEP]
    groups = ["".join(f"a{each}\u0301b " for each in characters[at : at + 64]) for at in range(0, len(characters), 64)]
    assert_same(run_node, characters_file(tmp_path, characters), groups)


@pytest.mark.parametrize("space", [False, True])
def test_byte_level(run_node: RunNode, tmp_path: Path, space: bool) -> None:
    words = Path(__file__).parents[2].joinpath("docs/guide.md").read_text(encoding="utf-8").splitlines()
    path = byte_level_file(tmp_path, words + TORTURE, add_prefix_space=space)
    assert_same(run_node, path, [*TORTURE, *random_texts(300), "the" * 20_000])
