"""Texts of mixed tasks on lines of JSON, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime.predict.batches import BATCH_TOKENS
from bitfit_export.runtime.predict.json_answers import json_answer
from bitfit_export.runtime.session import BiasSession
from bitfit_export.runtime.text.json_lines import lines_of, object_of
from bitfit_export.runtime.text.json_text import text_of
from bitfit_export.runtime.text.tokenizer import Text

__all__ = ["Question", "answer_questions", "check_task", "no_task", "questions_of", "read_questions"]


@dataclass(frozen=True)
class Question:
    """A text for a task, and where it was found, for messages."""

    where: str
    text: Text
    task: str


def read_questions(name: str, stream: BinaryIO, task: str | None) -> Iterator[Question]:
    """The questions of JSON lines, as `docs/files.md` specifies them.

    Args:
        name: of the stream, for messages.
        task: of every line that names none.

    Raises:
        InputError: a line that is too long, is not JSON or has no text.
        UsageError: a line without a task.
    """
    return questions_of(name, lines_of(name, stream), task)


def questions_of(name: str, lines: Iterable[tuple[int, bytes]], task: str | None) -> Iterator[Question]:
    """As `read_questions`, for lines with their numbers."""
    for number, line in lines:
        if not line.strip(b" \t\r"):
            continue
        where = f"line {number} of {name}"
        value = object_of(line, where)
        chosen = value.get("task", task)
        if not isinstance(chosen, str):
            raise no_task(where)
        yield Question(where, text_of(value, where), chosen)


def answer_questions(
    session: BiasSession,
    questions: Sequence[Question],
    *,
    truncate: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> list[dict[str, Any]]:
    """One JSON object for each question.

    Raises:
        InputError: as `BiasSession.predict`; the message says where the question was found.
    """
    tasks = [question.task for question in questions]
    for question in questions:
        check_task(session, question)
    try:
        texts = [question.text for question in questions]
        answers = session.predict(texts, tasks, truncate=truncate, batch_tokens=batch_tokens)
    except InputError as error:
        if error.item is None:
            raise
        raise InputError(f"{questions[error.item].where} {error.problem}", hint=error.hint) from error
    return [json_answer(task, answer) for task, answer in zip(tasks, answers, strict=True)]


def no_task(where: str) -> UsageError:
    """The error of a question that names no task."""
    return UsageError(f"{where} names no task", hint="pass --task, or give each line a task of its own")


def check_task(session: BiasSession, question: Question) -> None:
    """Refuse a question of a task that the session does not have.

    Raises:
        InputError: see above; the message says where the question was found.
    """
    try:
        session.labels(question.task)
    except InputError as error:
        raise InputError(f"{question.where}: {error.problem}", hint=error.hint) from error
