"""The tokens of every case in `conformance/tokenizer`, which Hugging Face's library made."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.runtime.text.alignment import AlignedTokens
from bitfit_export.runtime.text.tokenizer import Text, TextEncoder

CONFORMANCE = Path(__file__).parents[2] / "conformance"
INDEX: dict[str, Any] = json.loads((CONFORMANCE / "tokenizer" / "index.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=INDEX)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def encoder(name: str) -> TextEncoder:
    data = (CONFORMANCE / "tokenizer" / name).read_bytes()
    return TextEncoder(data, max_positions=1000, pad_token_id=0, where=name)


def text_of(case: dict[str, Any]) -> Text:
    return tuple(case["pair"]) if "pair" in case else case["words"] if "words" in case else case["text"]


def tokens_of(found: AlignedTokens) -> list[list[int | None]]:
    """Tokens as the file has them: 0 and 0 for the characters of a token that has none."""
    spans = [(start, end) if start < end else (0, 0) for start, end in found.spans]
    columns = zip(found.ids, found.type_ids, found.sides, found.words, spans, strict=True)
    return [[number, type_id, side, word, *span] for number, type_id, side, word, span in columns]


def test_the_generator_still_makes_the_committed_files() -> None:
    make = runpy.run_path(str(CONFORMANCE / "make_tokenizers.py"))
    assert make["build"]() == {path.name: path.read_bytes() for path in (CONFORMANCE / "tokenizer").iterdir()}


def test_texts(name: str, encoder: TextEncoder) -> None:
    for case in INDEX[name]["texts"]:
        (found,) = encoder.align([text_of(case)])
        assert tokens_of(found) == case["tokens"], text_of(case)
        (ids,) = encoder.tokenize([text_of(case)])
        assert (ids.ids, ids.type_ids) == (found.ids, found.type_ids)


def test_texts_that_are_cut(name: str, encoder: TextEncoder) -> None:
    for case in INDEX[name]["cut"]:
        (found,) = encoder.align([text_of(case)], max_length=case["limit"], truncate=True)
        assert tokens_of(found) == case["tokens"], case


def test_contexts_that_are_read_in_windows(name: str, encoder: TextEncoder) -> None:
    for case in INDEX[name]["windows"]:
        (found,) = encoder.windows([text_of(case)], max_length=case["limit"])
        assert [tokens_of(window) for window in found] == case["windows"], case
