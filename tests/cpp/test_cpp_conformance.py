"""The cases of `conformance/` that the Python package's tests run too. Those of files are in `test_cpp_files.py`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cpp.conftest import ROOT, run

CONFORMANCE = ROOT / "conformance"
TOKENIZERS: dict[str, Any] = json.loads((CONFORMANCE / "tokenizer" / "index.json").read_text(encoding="utf-8"))
#: Tokenizer files with components that this runtime does not have, which it refuses.
UNKNOWN = {"unigram.json": "has the model Unigram"}
#: Tokens that neighbouring windows share, where there is room.
OVERLAP = 128


class TestTokenizer:
    @pytest.fixture
    def encode(self, programs: Path) -> Callable[..., list[Any]]:
        """The tokens of each case's text."""

        def encode(name: str, cases: list[dict[str, Any]], *options: int) -> list[Any]:
            texts = [case.get("text", case.get("pair", {"words": case.get("words")})) for case in cases]
            command = [programs / "tests" / "tokenizer_print", CONFORMANCE / "tokenizer" / name, *map(str, options)]
            done = run(command, input="".join(f"{json.dumps(text)}\n" for text in texts))
            return [json.loads(line) for line in done.stdout.splitlines()]

        return encode

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_texts(self, encode: Callable[..., list[Any]], name: str) -> None:
        cases = TOKENIZERS[name]["texts"]
        for case, found in zip(cases, encode(name, cases), strict=True):
            assert found == with_none(case["tokens"]), case

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_texts_that_are_cut(self, encode: Callable[..., list[Any]], name: str) -> None:
        for case in TOKENIZERS[name]["cut"]:
            assert encode(name, [case], case["limit"]) == [with_none(case["tokens"])], case

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_contexts_that_are_read_in_windows(self, encode: Callable[..., list[Any]], name: str) -> None:
        for case in TOKENIZERS[name]["windows"]:
            expected = [with_none(window) for window in case["windows"]]
            assert encode(name, [case], case["limit"], OVERLAP) == [expected], case

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_what_is_not_known_is_refused(self, programs: Path, name: str) -> None:
        command = [programs / "tests" / "tokenizer_print", CONFORMANCE / "tokenizer" / name]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert UNKNOWN[name] in done.stderr


def with_none(tokens: list[list[int | None]]) -> list[list[int]]:
    """Tokens as the program prints them: -1 stands for none."""
    return [[-1 if value is None else value for value in token] for token in tokens]
