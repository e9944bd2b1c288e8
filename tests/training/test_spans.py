"""Windows of long contexts, the answer's place in them, and the best span over all of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from bitfit_export.errors import UsageError
from bitfit_export.training.data import load_task_data
from bitfit_export.training.examples import Examples
from bitfit_export.training.spans import BEST_STARTS, MAX_ANSWER_TOKENS, EncodedSpans, Span, Window, best_spans
from bitfit_export.training.tasks import TaskSpec
from tests.conftest import real_data

SPEC = TaskSpec("qa", "span", ("question", "context"), "answers", ("start", "end"), ("f1", "exact_match"))
#: 60 words of one token each, and an answer of three words near the end, in the last window alone.
LONG = " ".join(["the cat sat on a mat and"] * 8 + ["red blue green dog"])
CONTEXTS = ["The Denver Broncos won in Santa Clara, California.", LONG]
ANSWERS = ["Santa Clara", "blue green dog"]
EXAMPLES = Examples(
    [("Where did they win?", CONTEXTS[0]), ("which?", CONTEXTS[1])],
    [[(context.index(answer), answer)] for context, answer in zip(CONTEXTS, ANSWERS, strict=True)],
)


@pytest.fixture(scope="module")
def encoded(wordpiece: Any) -> EncodedSpans:
    return EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=32, stride=8)


def test_a_window_without_room_for_a_question_is_refused(wordpiece: Any) -> None:
    """[CLS] and two [SEP] are a window's own; half of it is for the context."""
    with pytest.raises(UsageError, match="--max-length is 7, expected at least 8"):
        EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=7, stride=0)
    assert EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=8, stride=0).windows


def test_a_long_context_is_read_in_windows_that_overlap(encoded: EncodedSpans, wordpiece: Any) -> None:
    assert [window.question for window in encoded.windows] == [0, 1, 1, 1]
    assert all(len(feature["input_ids"]) <= 32 for feature in encoded.features)
    parts = [window.offsets[window.context] for window in encoded.windows[1:]]
    for one, following in itertools.pairwise(parts):
        np.testing.assert_array_equal(one[-8:], following[:8])
    seen = {tuple(offset) for part in parts for offset in part}
    whole = wordpiece(LONG, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert seen == set(map(tuple, whole))


def test_the_labels_are_the_answer_s_tokens_or_else_the_first_token(encoded: EncodedSpans, wordpiece: Any) -> None:
    texts = []
    for feature in encoded.features:
        first, last = feature["labels"]
        texts.append(wordpiece.decode(feature["input_ids"][first : last + 1]))
    assert texts == ["santa clara", "[CLS]", "[CLS]", "blue green dog"]


def test_an_answer_that_a_window_has_in_part_is_not_in_it(wordpiece: Any) -> None:
    """Windows of 15 words begin at every sixth one; the answer is the words 20 to 25, each a token."""
    words = LONG.split()
    begin, answer = len(" ".join(words[:20])) + 1, " ".join(words[20:26])
    examples = Examples([("which?", LONG)], [[(begin, answer)]])
    encoded = EncodedSpans(SPEC, examples, wordpiece, max_length=20, stride=9)
    firsts = [len(LONG[: window.offsets[window.context][0, 0]].split()) for window in encoded.windows]
    assert firsts[:5] == [0, 6, 12, 18, 24]
    context_begins = 4  # after [CLS] which ? [SEP]
    for first, feature in zip(firsts, encoded.features, strict=True):
        place = [20 - first + context_begins, 25 - first + context_begins]
        assert feature["labels"] == (place if first in (12, 18) else [0, 0])


def test_many_questions_are_tokenised_in_parts(wordpiece: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=32, stride=8)
    monkeypatch.setattr("bitfit_export.training.spans._CHUNK", 1)
    parts = EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=32, stride=8)
    assert parts.features == whole.features
    assert [window.question for window in parts.windows] == [window.question for window in whole.windows]


def logits_for(encoded: EncodedSpans, labels: list[list[int]], strength: list[float]) -> list[np.ndarray]:
    """Logits that peak at the labels, with two tokens of padding that would win if they were read."""
    found = []
    for feature, (first, last), peak in zip(encoded.features, labels, strength, strict=True):
        values = np.zeros((len(feature["input_ids"]) + 2, 2), np.float32)
        values[-2:] = 100
        values[first, 0] = values[last, 1] = peak
        found.append(values)
    return found


def test_right_logits_are_a_perfect_score(encoded: EncodedSpans) -> None:
    labels = [feature["labels"] for feature in encoded.features]
    logits = logits_for(encoded, labels, [5, 5, 5, 5])
    assert encoded.answers(logits) == ANSWERS
    assert encoded.score(logits) == {"f1": 1.0, "exact_match": 1.0}


def test_the_best_window_wins(encoded: EncodedSpans) -> None:
    """Windows 1 and 2 claim the words at their tokens 5 to 6; the surer one is believed."""
    labels = [encoded.features[0]["labels"], [5, 6], [5, 6], [0, 0]]
    for strength, winner in (([5, 9, 7, 5], 1), ([5, 7, 9, 5], 2)):
        start, end = encoded.windows[winner].offsets[5, 0], encoded.windows[winner].offsets[6, 1]
        assert encoded.answers(logits_for(encoded, labels, strength))[1] == LONG[start:end]


def test_a_question_is_no_answer(encoded: EncodedSpans) -> None:
    """Tokens 1 and 2 are the question's; without another peak the first word of the context is as good as any."""
    answer = encoded.answers(logits_for(encoded, [[1, 2]] * 4, [9, 9, 9, 9]))[0]
    assert answer == "The"


def test_the_best_spans_are_those_of_all_pairs() -> None:
    """Against every pair of tokens, one by one, where all starts and ends are among those that are looked at."""
    random = np.random.default_rng(0)
    tokens = BEST_STARTS
    logits = random.normal(size=(tokens, 2)).astype(np.float32)
    context = random.random(tokens) < 0.7
    window = Window(0, np.stack([np.arange(tokens), np.arange(tokens) + 1], -1).astype(np.int32), context)
    expected = sorted(
        (
            Span(first, last + 1, float(logits[first, 0] + logits[last, 1]))
            for first in range(tokens)
            for last in range(first, tokens)
            if context[first] and context[last]
        ),
        key=lambda span: -span.score,
    )
    assert best_spans(logits, window, count=7) == expected[:7]
    assert len(best_spans(logits, window, count=1000)) == len(expected)


@pytest.mark.parametrize(("tokens", "allowed"), [(MAX_ANSWER_TOKENS, True), (MAX_ANSWER_TOKENS + 1, False)])
def test_answers_have_a_greatest_length(tokens: int, allowed: bool) -> None:
    logits = np.zeros((40, 2), np.float32)
    logits[2, 0] = logits[1 + tokens, 1] = 9
    window = Window(0, np.stack([np.arange(40), np.arange(40) + 1], -1).astype(np.int32), np.ones(40, bool))
    found = best_spans(logits, window, count=1)[0]
    assert (found == Span(2, 2 + tokens, 18.0)) is allowed


def test_the_space_before_a_word_is_not_part_of_the_answer(byte_level: Any) -> None:
    examples = Examples([("x?", "xx ab yy")], [[(3, "ab")]])
    encoded = EncodedSpans(SPEC, examples, byte_level, max_length=32, stride=4)
    (feature,) = encoded.features
    first, last = feature["labels"]
    assert byte_level.convert_ids_to_tokens(feature["input_ids"][first : last + 1]) == ["Ġa", "b"]
    assert encoded.answers(logits_for(encoded, [[first, last]], [5])) == ["ab"]


def test_a_question_that_is_too_long_is_cut(wordpiece: Any) -> None:
    examples = Examples([("why " * 100, CONTEXTS[0])], EXAMPLES.labels[:1])
    encoded = EncodedSpans(SPEC, examples, wordpiece, max_length=32, stride=8)
    for feature, window in zip(encoded.features, encoded.windows, strict=True):
        assert wordpiece.decode(feature["input_ids"]).count("why") == 32 // 2 - 3
        assert window.context.any()


@pytest.mark.parametrize("stride", [-1, 16, 40])
def test_windows_must_go_forward(wordpiece: Any, stride: int) -> None:
    with pytest.raises(UsageError, match=f"--stride is {stride}, expected 0 to below half of --max-length 32"):
        EncodedSpans(SPEC, EXAMPLES, wordpiece, max_length=32, stride=stride)


@pytest.mark.slow
@pytest.mark.data
def test_real_answers_are_found_again(wordpiece: Any) -> None:
    """SQuAD v1.1's dev set: with logits that peak at the labels only answers of more than 30 tokens, and those that
    annotators ended within a token, are not given."""
    data = load_task_data("squad", data=real_data("squad"))
    assert (len(data.train), len(data.validation)) == (87599, 10570)
    encoded = EncodedSpans(data.spec, data.validation, wordpiece, max_length=384, stride=128)
    labels = [feature["labels"] for feature in encoded.features]
    answers = encoded.answers(logits_for(encoded, labels, [5] * len(labels)))
    pairs = zip(answers, (references[0][1] for references in data.validation.labels), strict=True)
    lost = [text for found, text in pairs if found != text and len(wordpiece.tokenize(text)) <= MAX_ANSWER_TOKENS]
    assert len(lost) < 0.005 * len(answers)
