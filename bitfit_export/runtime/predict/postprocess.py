"""Logits to what a Hugging Face pipeline returns: for texts, for their words, and for spans of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.alignment import AlignedTokens

__all__ = ["Answer", "Prediction", "WordLabel", "best_answers", "find_answers", "label_words", "rank_labels"]

FloatArray: TypeAlias = NDArray[np.floating[Any]]


class Prediction(TypedDict, total=False):
    """A label and its probability; a regression has no label, and its score is the value itself."""

    label: str
    score: float


class WordLabel(TypedDict):
    """A word, its label with the label's probability, and the characters that it takes, from start to before end."""

    word: str
    label: str
    score: float
    start: int
    end: int


class Answer(TypedDict):
    """A part of a context, its probability, and the characters that it takes, from start to before end."""

    answer: str
    score: float
    start: int
    end: int


def rank_labels(task: LoadedTask, logits: FloatArray) -> list[Prediction]:
    """The task's labels with their scores, best first; equal scores keep the order of the labels.

    Args:
        logits: [labels] of one text, of a sentence task.

    Returns:
        Softmax probabilities for `single_label`, sigmoids for `multi_label`, the one value for `regression`.
    """
    values = logits.astype(np.float64)
    if task.problem_type == "regression":
        return [{"score": float(values[0])}]
    scores = _sigmoid(values) if task.problem_type == "multi_label" else _softmax(values)
    order = np.argsort(-scores, kind="stable")
    return [{"label": task.labels[index], "score": float(scores[index])} for index in order]


def label_words(
    task: LoadedTask, logits: FloatArray, tokens: AlignedTokens, text: str | list[str]
) -> Iterator[WordLabel]:
    """Each word with the label of its first token, in order, as it is in training.

    A word that has no token, for it was cut off or is nothing to the tokenizer, is left out.

    Args:
        logits: [tokens, labels], of a token task.
        text: that the tokens come from, or the list of its words.
    """
    before = None
    for values, word, (start, end) in zip(logits.astype(np.float64), tokens.words, tokens.spans, strict=True):
        if word is not None and word != before and start < end:
            scores = _softmax(values)
            best = int(scores.argmax())
            yield {
                "word": text[word] if isinstance(text, list) else text[start:end],
                "label": task.labels[best],
                "score": float(scores[best]),
                "start": start,
                "end": end,
            }
        before = word


def find_answers(
    logits: FloatArray, tokens: AlignedTokens, context: str, *, max_tokens: int, count: int
) -> list[Answer]:
    """The most likely spans of one window of a context, best first, as the question-answering pipeline scores them.

    A score is the product of two probabilities: that the first token starts the answer, that the last one ends it. Both
    are softmaxes over the context's tokens and the special token before the question, which stands for "no answer" and
    is never one. An answer begins and ends with whole words.

    Args:
        logits: [tokens, 2], for start and end.
        tokens: of a question and a window.
        max_tokens: the longest answer.
        count: how many different answers to give, if there are as many.
    """
    context_tokens = np.flatnonzero([side == 1 for side in tokens.sides])
    counted = context_tokens if tokens.sides[0] is not None else np.r_[0, context_tokens]
    start, end = (_softmax(column)[-len(context_tokens) :] for column in logits[counted].astype(np.float64).T)
    has_text = np.isin(context_tokens, tokens.positions(1))
    firsts, lasts = np.nonzero(np.triu(np.tril(np.outer(has_text, has_text), max_tokens - 1)))
    scores = start[firsts] * end[lasts]
    found: dict[tuple[int, int], Answer] = {}
    for index in np.argsort(-scores, kind="stable"):
        begin = tokens.spans[context_tokens[firsts[index]]][0]
        stop = tokens.spans[context_tokens[lasts[index]]][1]
        if (begin, stop) not in found:
            found[begin, stop] = {
                "answer": context[begin:stop],
                "score": float(scores[index]),
                "start": begin,
                "end": stop,
            }
        if len(found) == count:
            break
    return list(found.values())


def best_answers(answers: Iterable[Answer]) -> list[Answer]:
    """The answers of all windows of a context, best first; one that several windows have counts once."""
    found: dict[tuple[int, int], Answer] = {}
    for answer in sorted(answers, key=lambda each: (-each["score"], each["start"], each["end"])):
        found.setdefault((answer["start"], answer["end"]), answer)
    return list(found.values())


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    halves: NDArray[np.float64] = np.tanh(0.5 * values)
    return 0.5 * (1.0 + halves)
