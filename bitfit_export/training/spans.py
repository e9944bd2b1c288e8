"""Span tasks: the answer to a question is a span of its context, as in SQuAD v1.1 (Rajpurkar et al., 2016).

A context that is too long is read in windows that overlap. A window that the answer is not in has the first token,
[CLS], as its answer (Devlin et al., 2019). The best span over all windows is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfit_export.errors import UsageError
from bitfit_export.training import metrics
from bitfit_export.training.examples import Examples
from bitfit_export.training.tasks import TaskSpec

__all__ = ["BEST_STARTS", "MAX_ANSWER_TOKENS", "EncodedSpans", "Span", "Window", "best_spans"]

MAX_ANSWER_TOKENS = 30
#: How many of the best starts, and of the best ends, are looked at together.
BEST_STARTS = 20
#: The number of tokens at which a question is cut, as in BERT's own script.
_MAX_QUESTION_TOKENS = 64
#: Questions that are tokenised at once: what the tokenizer gives is large until it is read.
_CHUNK = 512


@dataclass(frozen=True)
class Window:
    """A part of a context.

    Attributes:
        question: its number, from 0.
        offsets: for each token its first character in the context and the one after its last, int32 [tokens, 2].
        context: whether a token is one of the context, bool [tokens].
    """

    question: int
    offsets: np.ndarray
    context: np.ndarray


@dataclass(frozen=True)
class Span:
    """A possible answer: characters of the context, and the sum of its start's and end's logits."""

    start: int
    end: int
    score: float


class EncodedSpans:
    """Questions, and windows of their contexts that have `max_length` tokens together and share `stride` tokens."""

    def __init__(self, spec: TaskSpec, examples: Examples, tokenizer: Any, max_length: int, stride: int) -> None:
        if not 0 <= stride < max_length // 2:
            raise UsageError(f"--stride is {stride}, expected 0 to below half of --max-length {max_length}")
        self._spec = spec
        self._contexts = [context for _, context in examples.texts]
        self._references = [[text for _, text in answers] for answers in examples.labels]
        self.features: list[dict[str, Any]] = []
        self.windows: list[Window] = []
        for first in range(0, len(examples), _CHUNK):
            for feature, window in _windows(
                examples.texts[first : first + _CHUNK], first, tokenizer, max_length, stride
            ):
                start, text = examples.labels[window.question][0]
                feature["labels"] = list(_answer_tokens(window, start, start + len(text)))
                self.features.append(feature)
                self.windows.append(window)
        self.sizes = [len(feature["input_ids"]) for feature in self.features]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """See `EncodedExamples`."""
        return metrics.compute(self._spec.metrics, "span", self.answers(logits), self._references)

    def answers(self, logits: Sequence[np.ndarray]) -> list[str]:
        """The best answer to each question, from the logits [tokens, 2] of each window; "" where none is possible."""
        best: list[Span | None] = [None] * len(self._contexts)
        for window, values in zip(self.windows, logits, strict=True):
            for span in best_spans(values, window, count=1):
                rival = best[window.question]
                if rival is None or span.score > rival.score:
                    best[window.question] = span
        # Some tokenizers count the space before a word as part of it.
        return [
            context[span.start : span.end].strip() if span else ""
            for context, span in zip(self._contexts, best, strict=True)
        ]


def best_spans(logits: np.ndarray, window: Window, *, count: int = BEST_STARTS) -> list[Span]:
    """The best answers in a window, the best first.

    They are made of the `BEST_STARTS` best starts and ends within the context, whose end is not before their start
    and which have at most `MAX_ANSWER_TOKENS` tokens.

    Args:
        logits: [tokens, 2], of a token as the first and as the last one; those of padding may follow.
    """
    scores = np.where(window.context[:, None], logits[: len(window.context)], -np.inf)
    starts, ends = np.argsort(-scores, axis=0, kind="stable")[:BEST_STARTS].T
    sums = scores[starts, 0][:, None] + scores[ends, 1]
    lengths = ends - starts[:, None] + 1
    sums[(lengths < 1) | (lengths > MAX_ANSWER_TOKENS)] = -np.inf
    order = np.argsort(-sums, axis=None, kind="stable")[:count]
    found = [(*np.unravel_index(index, sums.shape), float(sums.flat[index])) for index in order]
    return [
        Span(int(window.offsets[starts[i], 0]), int(window.offsets[ends[j], 1]), score)
        for i, j, score in found
        if np.isfinite(score)
    ]


def _windows(
    texts: Sequence[tuple[str, ...]], first_question: int, tokenizer: Any, max_length: int, stride: int
) -> Iterator[tuple[dict[str, Any], Window]]:
    """Each window of each text with what the model is fed for it."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = min(_MAX_QUESTION_TOKENS, max_length // 2 - special)
    if room < 1:
        raise UsageError(
            f"--max-length is {max_length}, expected at least {2 * (special + 1)} for question and context"
        )
    encoded = tokenizer(
        _cut([question for question, _ in texts], tokenizer, room),
        [context for _, context in texts],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    names = [name for name in tokenizer.model_input_names if name in encoded]
    for index, question in enumerate(encoded["overflow_to_sample_mapping"]):
        context = np.array([side == 1 for side in encoded.sequence_ids(index)])
        offsets = np.array(encoded["offset_mapping"][index], np.int32)
        yield {name: encoded[name][index] for name in names}, Window(first_question + question, offsets, context)


def _cut(questions: list[str], tokenizer: Any, room: int) -> list[str]:
    """Questions without what goes beyond `room` tokens."""
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question if len(offsets) <= room else question[: offsets[room - 1][1]]
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _answer_tokens(window: Window, start: int, end: int) -> tuple[int, int]:
    """The first and the last token of the context's characters `start` to `end`; twice the first of all where the
    window does not have all of them."""
    tokens = np.flatnonzero(window.context & (window.offsets[:, 1] > window.offsets[:, 0]))
    inside = tokens[(window.offsets[tokens, 1] > start) & (window.offsets[tokens, 0] < end)]
    covers = len(inside) > 0 and window.offsets[tokens[0], 0] <= start and window.offsets[tokens[-1], 1] >= end
    return (int(inside[0]), int(inside[-1])) if covers else (0, 0)
