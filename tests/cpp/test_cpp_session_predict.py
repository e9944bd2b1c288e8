"""`bitfit::Session` answers texts, words and questions as the Python session does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bitfit_export.errors import InputError
from bitfit_export.runtime import BiasSession
from tests.cpp.conftest import (
    CONTEXT,
    LAYOUTS,
    QUESTION,
    SENTENCE_TASKS,
    TEXTS,
    GetBundle,
    OpenBundle,
    file_record,
)

SCORES = 1e-5


class TestPredict:
    """The same answers as the Python session's, from text."""

    @pytest.fixture(params=LAYOUTS)
    def both(self, request: pytest.FixtureRequest, open_session: OpenBundle, get_bundle: GetBundle) -> Any:
        return open_session(request.param), BiasSession(get_bundle(request.param), threads=1)

    @pytest.mark.parametrize("task", SENTENCE_TASKS)
    @pytest.mark.parametrize("pairs", [False, True])
    def test_sentence_tasks(self, both: Any, task: str, pairs: bool) -> None:
        cpp, python = both
        texts: list[Any] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if pairs else TEXTS
        expected = python.predict(texts, task, truncate=True)
        found = cpp("predict", texts=texts, tasks=[task], truncate=True)["results"]
        assert [each[0]["label"] for each in found] == [each.get("label", "") for each in expected]
        np.testing.assert_allclose(
            [each[0]["score"] for each in found], [each["score"] for each in expected], rtol=0, atol=SCORES
        )

    @pytest.mark.parametrize("words", [False, True])
    def test_token_tasks(self, both: Any, words: bool) -> None:
        cpp, python = both
        texts: list[Any] = [text.split() if words else text for text in TEXTS]
        asked = [{"words": text} if words else text for text in texts]
        expected = python.predict(texts, "tags", truncate=True)
        found = cpp("predict", texts=asked, tasks=["tags"], truncate=True)["results"]
        for mine, other in zip(found, expected, strict=True):
            names = ("word", "label", "start", "end")
            assert [(e["text"], e["label"], e["start"], e["end"]) for e in mine] == [
                tuple(e[name] for name in names) for e in other
            ]
            np.testing.assert_allclose([e["score"] for e in mine], [e["score"] for e in other], rtol=0, atol=SCORES)

    @pytest.mark.parametrize("context", [CONTEXT, "Ada.", "日本 and Ada 👍🏽, naïve"])
    def test_span_tasks(self, both: Any, context: str) -> None:
        """The long context is read in windows."""
        cpp, python = both
        (expected,) = python.predict([(QUESTION, context)], "answers")
        ((found,),) = cpp("predict", texts=[[QUESTION, context]], tasks=["answers"])["results"]
        assert (found["text"], found["start"], found["end"]) == (expected["answer"], expected["start"], expected["end"])
        assert found["score"] == pytest.approx(expected["score"], abs=SCORES)

    def test_any_tasks_at_once(self, both: Any) -> None:
        cpp, python = both
        tasks = ["score", "tags", "two_way", "answers", "topics"]
        texts = [TEXTS[0], TEXTS[1], TEXTS[3], (QUESTION, "Ada lives here."), TEXTS[0]]
        expected = python.predict(texts, tasks)
        found = cpp("predict", texts=texts, tasks=tasks)["results"]
        for mine, other in zip(found, expected, strict=True):
            others = other if isinstance(other, list) else [other]
            np.testing.assert_allclose([e["score"] for e in mine], [e["score"] for e in others], rtol=0, atol=SCORES)

    @pytest.mark.parametrize(
        ("texts", "task", "options", "message"),
        [
            (["fine", "long " * 80], "score", {}, "item 1 has 82 tokens, expected at most 64"),
            (["fine", "a b c"], "score", {"max_length": 4}, "item 1 has 5 tokens, expected at most 4"),
            (["fine"], "score", {"max_length": 65}, "max_length is 65, expected 1 to 64 tokens"),
            (["fine"], "score", {"max_length": 1, "truncate": True}, "max_length is 1, expected at least 2"),
            (["fine"], "answers", {}, "item 0 is a text, expected a question and a context for the task answers"),
            ([["a", "b"]], "tags", {}, "item 0 is a pair of texts, expected a text or a list of words"),
            ([{"words": ["a"]}], "score", {}, "item 0 is a list of words, expected a text or a pair of texts"),
            ([["who?", ""]], "answers", {}, "item 0 is refused: the context has no word"),
            ([["who? " * 80, "Ada"]], "answers", {}, "item 0 is refused: the question has"),
            ([], "score", {}, "there is no text, expected at least one"),
        ],
    )
    def test_refusals(
        self, open_session: OpenBundle, texts: list[Any], task: str, options: dict[str, Any], message: str
    ) -> None:
        answer = open_session("table")("predict", texts=texts, tasks=[task], **options)
        assert answer.get("code") in ("input_error", "usage_error"), answer
        assert answer["message"].startswith(message)


class TestByteLevel:
    """Words of RoBERTa's kind of tokenizer begin with the space before them, which is no part of an answer."""

    @pytest.fixture
    def bundle(self, tmp_path: Path, get_bundle: GetBundle) -> Path:
        """With a tokenizer whose tokens are the bytes of a text."""
        folder = tmp_path / "bundle"
        shutil.copytree(get_bundle("table"), folder)
        vocabulary = {each: index for index, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
        tokenizer = Tokenizer(models.BPE({"<s>": 0, "</s>": 1} | vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
        tokenizer.save(str(folder / "tokenizer.json"))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["tokenizer.json"] = file_record(folder / "tokenizer.json")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def test_words(self, open_session: OpenBundle, bundle: Path) -> None:
        text = " two  words\t\n and\u00a0naïve\x1c!  "
        expected = BiasSession(bundle).predict([text], "tags")[0]
        (found,) = open_session(bundle)("predict", texts=[text], tasks=["tags"])["results"]
        assert [each["text"] for each in found] == ["two", "words", "and", "naïve", "!"]
        names = ("word", "label", "start", "end")
        assert [tuple(each[name] for name in ("text", *names[1:])) for each in found] == [
            tuple(each[name] for name in names) for each in expected
        ]

    @pytest.mark.parametrize("context", ["  a  b ", "           c                                     d            "])
    def test_answers(self, open_session: OpenBundle, bundle: Path, context: str) -> None:
        """The long context has windows of spaces alone."""
        options = {"max_length": 14}
        (expected,) = BiasSession(bundle).predict([("who", context)], "answers", **options)
        ((found,),) = open_session(bundle)("predict", texts=[["who", context]], tasks=["answers"], **options)["results"]
        assert (found["text"], found["start"], found["end"]) == (expected["answer"], expected["start"], expected["end"])
        assert found["text"] == found["text"].strip() != ""
        assert found["score"] == pytest.approx(expected["score"], abs=SCORES)

    def test_a_context_of_spaces(self, open_session: OpenBundle, bundle: Path) -> None:
        answer = open_session(bundle)("predict", texts=[["who", "   "]], tasks=["answers"])
        assert answer["message"] == "item 0 is refused: the context has no word, expected at least one"
        with pytest.raises(InputError, match="a context without a word"):
            BiasSession(bundle).predict([("who", "   ")], "answers")
