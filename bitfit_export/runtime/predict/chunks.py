"""Texts to sequences that the model can run, and the model's outputs to answers: what each kind of task does with both.

A text of a sentence or token task is one chunk. The context of a span task is one for each window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.interface import TOKEN_LOGITS
from bitfit_export.errors import InputError
from bitfit_export.runtime.predict.postprocess import (
    Answer,
    Prediction,
    WordLabel,
    best_answers,
    find_answers,
    label_words,
    rank_labels,
)
from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.alignment import AlignedTokens
from bitfit_export.runtime.text.tokenizer import Text, TextEncoder, TokenIds

__all__ = ["Chunk", "Result", "cut_chunks", "join_results", "numbered", "read_chunk"]

#: What is known of one text after one chunk of it, and at the end: labels, answers, or the words with theirs.
Result: TypeAlias = list[Prediction] | list[Answer] | list[WordLabel]

_SENTENCE = "sentence"
#: What a text of each kind of task is, as types and in words.
_TEXTS: dict[str, tuple[tuple[type, ...], str]] = {
    _SENTENCE: ((str, tuple), "one text or a pair of texts"),
    "token": ((str, list), "one text or a list of words"),
    "span": ((tuple,), "a pair of a question and a context"),
}
_FORMS: dict[type, str] = {str: "one text", tuple: "a pair of texts", list: "a list of words"}


@dataclass(frozen=True)
class Chunk:
    """A sequence to run, and the row of the text that it comes from."""

    row: int
    tokens: TokenIds | AlignedTokens


def cut_chunks(
    encoder: TextEncoder,
    texts: Sequence[Text],
    tasks: Sequence[LoadedTask],
    *,
    truncate: bool,
    max_length: int | None,
) -> list[Chunk]:
    """Tokenise each text for its task.

    Args:
        tasks: one for each text.
        truncate: cut a text that is too long; a context never needs it.

    Raises:
        InputError, UsageError: a text that its task can't take, or one that is too long.
    """
    rows: dict[str, list[int]] = {kind: [] for kind in _TEXTS}
    for row, (text, task) in enumerate(zip(texts, tasks, strict=True)):
        kind = task.problem_type if task.problem_type in _TEXTS else _SENTENCE
        types, words = _TEXTS[kind]
        if not isinstance(text, types):
            form = next(name for each, name in _FORMS.items() if isinstance(text, each))
            raise InputError(f"is {form}, expected {words} for the task {task.name}", row=row)
        rows[kind].append(row)
    chunks: list[Chunk] = []
    for kind, chosen in rows.items():
        if not chosen:
            continue
        items: Any = [texts[row] for row in chosen]
        found: Sequence[Sequence[TokenIds | AlignedTokens]]
        with numbered(chosen):
            if kind == "span":
                found = encoder.windows(items, max_length=max_length)
            elif kind == "token":
                found = [[each] for each in encoder.align(items, max_length=max_length, truncate=truncate)]
            else:
                found = [[each] for each in encoder.tokenize(items, max_length=max_length, truncate=truncate)]
        for row, windows in zip(chosen, found, strict=True):
            if not all(tokens.ids for tokens in windows):
                raise InputError("has no token, expected at least one", row=row)
            chunks += [Chunk(row, tokens) for tokens in windows]
    return chunks


def read_chunk(
    task: LoadedTask,
    chunk: Chunk,
    text: Text,
    values: NDArray[np.float32],
    *,
    answers: int,
    max_tokens: int,
) -> Result:
    """Returns the result of one chunk.

    Args:
        text: that the chunk comes from.
        values: the task's output: [labels], or [tokens and padding, labels] for a token or span task.
        answers: how many answers to look for in a context.
        max_tokens: the longest of these.

    Raises:
        InputError: logits that are not numbers, which no answer can be made of.
    """
    by_token = task.output == TOKEN_LOGITS
    logits = values[: len(chunk.tokens.ids), : task.label_count] if by_token else values[: task.label_count]
    if not np.isfinite(logits).all():
        raise InputError(
            f"has logits that are not finite numbers from the task {task.name}",
            row=chunk.row,
            hint=f"its biases may be too large for the model; bitfit verify compares the task {task.name} with PyTorch",
        )
    if not by_token:
        return rank_labels(task, logits)
    tokens = cast(AlignedTokens, chunk.tokens)
    if task.problem_type == "token":
        return list(label_words(task, logits, tokens, cast("str | list[str]", text)))
    return find_answers(logits, tokens, text[1], max_tokens=max_tokens, count=answers)


def join_results(task: LoadedTask, results: Sequence[Result]) -> Result:
    """One result of those of a text's chunks: words in order, everything else best first."""
    if task.problem_type == "span":
        return best_answers(answer for result in results for answer in cast("list[Answer]", result))
    (only,) = results
    return only


@contextmanager
def numbered(rows: Sequence[int]) -> Iterator[None]:
    """Errors about a row of a part of the texts name it by its place among all of them."""
    try:
        yield
    except InputError as error:
        if error.row is None:
            raise
        raise InputError(error.problem, row=rows[error.row], hint=error.hint) from error.__cause__
