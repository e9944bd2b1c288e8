"""Span tasks: the part of a context that answers a question, scored as transformers' question-answering pipeline did.

transformers 5 no longer has that pipeline, so its rules are written down here once more, in `answer_by_hand`, with
PyTorch's logits and transformers' tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.errors import InputError
from bitfit_export.runtime import BiasSession
from tests.runtime.conftest import TOLERANCE, Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

QUESTION = "Who lived in London?"
SHORT = "Ada Lovelace, unbelievably, lived in London; Łódź isn't near."
PLACES = {"Ada": "London", "Grace": "Arlington", "Alan": "Manchester", "Edsger": "Austin", "Barbara": "Boston"}
LONG = " ".join(f"{name} lived antidisestablishmentarily in {place}." for name, place in PLACES.items())


@pytest.fixture(scope="module")
def session(open_layout: Callable[[str], BiasSession]) -> BiasSession:
    return open_layout("table")


class ByHand:
    """Every possible answer with its score: [(score, start, end)], best first."""

    def __init__(self, base: BaseModel, reference: Reference) -> None:
        self.tokenizer = base.tokenizer
        self.reference = reference

    def __call__(
        self, question: str, context: str, *, max_length: int = 64, stride: int, longest: int = 30
    ) -> list[tuple[float, int, int]]:
        windows = self.tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="np",
        )
        windows.pop("overflow_to_sample_mapping", None)
        found: dict[tuple[int, int], float] = {}
        for row, logits in enumerate(self.reference.rows("answers", dict(windows))):
            for score, start, end in self.spans(windows, row, logits.astype(np.float64), longest):
                found[start, end] = max(found.get((start, end), 0), score)
        return sorted(((score, *span) for span, score in found.items()), key=lambda each: -each[0])

    def spans(self, windows: Any, row: int, logits: np.ndarray, longest: int) -> list[tuple[float, int, int]]:
        """The pipeline's rules: softmax over the context and [CLS], then starts and ends in the context alone."""
        context = [position for position, side in enumerate(windows.sequence_ids(row)) if side == 1]
        counted = [0, *context]
        powers = np.exp(logits[counted])
        start, end = (dict(zip(counted, column / column.sum(), strict=True)) for column in powers.T)
        found = []
        for first in context:
            for last in context:
                if first <= last < first + longest:
                    begin = windows.word_to_chars(row, windows.token_to_word(row, first), sequence_index=1).start
                    stop = windows.word_to_chars(row, windows.token_to_word(row, last), sequence_index=1).end
                    found.append((start[first] * end[last], begin, stop))
        return found


@pytest.fixture(scope="module")
def by_hand(tiny_base: BaseModel, kind_reference: Reference) -> ByHand:
    return ByHand(tiny_base, kind_reference)


def overlap(tokenizer: Any, question: str, max_length: int) -> int:
    """128 tokens, or half of what the question leaves: [CLS] question [SEP] context [SEP]."""
    return min(128, (max_length - len(tokenizer(question)["input_ids"]) - 1) // 2)


@pytest.mark.parametrize("context", [SHORT, LONG, "London"])
def test_answers_equal_the_hugging_face_pipelines(
    session: BiasSession, by_hand: ByHand, tiny_base: BaseModel, context: str
) -> None:
    expected = by_hand(QUESTION, context, stride=overlap(tiny_base.tokenizer, QUESTION, 64))
    (found,) = session.predict([(QUESTION, context)], "answers", top_k=5)
    assert [(each["start"], each["end"]) for each in found] == [(start, end) for _, start, end in expected[:5]]
    assert [each["score"] for each in found] == pytest.approx([score for score, *_ in expected[:5]], abs=TOLERANCE)
    assert [each["answer"] for each in found] == [context[start:end] for _, start, end in expected[:5]]
    assert session.predict([(QUESTION, context)], "answers") == [found[0]]


@pytest.mark.parametrize("max_length", [16, 32, 64])
def test_windows_of_any_length(session: BiasSession, by_hand: ByHand, tiny_base: BaseModel, max_length: int) -> None:
    stride = overlap(tiny_base.tokenizer, QUESTION, max_length)
    score, start, end = by_hand(QUESTION, LONG, max_length=max_length, stride=stride)[0]
    (found,) = session.predict((QUESTION, LONG), "answers", max_length=max_length)
    assert (found["start"], found["end"]) == (start, end)
    assert found["score"] == pytest.approx(score, abs=TOLERANCE)


@pytest.mark.parametrize("longest", [1, 2, 5])
def test_no_answer_is_longer_than_asked_for(
    session: BiasSession, by_hand: ByHand, tiny_base: BaseModel, longest: int
) -> None:
    score, start, end = by_hand(QUESTION, SHORT, stride=0, longest=longest)[0]
    (found,) = session.predict((QUESTION, SHORT), "answers", max_answer_tokens=longest)
    assert (found["start"], found["end"]) == (start, end)
    assert found["score"] == pytest.approx(score, abs=TOLERANCE)
    unlimited = by_hand(QUESTION, SHORT, stride=0)[0]
    assert longest == 5 or unlimited[1:] != (start, end), "else the limit would not show"


def test_answers_have_four_members(session: BiasSession) -> None:
    (found,) = session.predict((QUESTION, SHORT), "answers")
    assert list(found) == ["answer", "score", "start", "end"]


def test_several_contexts_keep_their_order_whatever_the_batches(session: BiasSession) -> None:
    pairs = [(QUESTION, LONG), (QUESTION, SHORT), ("Who?", LONG), ("What?", "one two")]
    alone = [session.predict(pair, "answers")[0] for pair in pairs]
    for batch_size in (1, 3, 32):
        found = session.predict(pairs, "answers", batch_size=batch_size)
        assert [each["answer"] for each in found] == [each["answer"] for each in alone]
        assert [each["score"] for each in found] == pytest.approx([each["score"] for each in alone], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (np.str_("no pair"), "item 1 is one text, expected a pair of a question and a context for the task answers"),
        (["a", "b"], "item 1 is a list of words, expected a pair of a question"),
        ((QUESTION, ""), "item 1 has a context without a word, expected at least one"),
        ((QUESTION, " \x07 "), "item 1 has a context without a word"),
        (("word " * 61, "London"), "item 1 has a question of 64 tokens with the special ones, expected fewer than 64"),
    ],
)
def test_what_is_no_question_and_context_is_refused(session: BiasSession, text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session.predict(["fine", text], ["three_way", "answers"])


def test_the_longest_question(session: BiasSession) -> None:
    """It leaves a context one token at a time."""
    (found,) = session.predict(("word " * 60, "London is far"), "answers")
    assert found["answer"] in ("London", "is", "far")
