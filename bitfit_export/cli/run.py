"""Answer texts with a bundle: JSON lines in, JSON lines out.

example: bitfit run bundles/minilm-l6 --task sst2 --text "What a lovely day"
         bitfit run bundles/minilm-l6 --input texts.jsonl    with a JSON object on each line:

    {"task": "rte", "text": "It rained all day.", "text_pair": "The day was wet."}     any sentence task
    {"task": "ner", "tokens": ["Ada", "lives", "in", "Paris"]}                         a token task; a text will do
    {"task": "squad", "question": "Who lives here?", "context": "Ada lives here."}     a span task
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from bitfit_export.cli.input_lines import lines_of, object_of
from bitfit_export.cli.session_options import add_session_arguments, open_session
from bitfit_export.cli.streams import json_text, say
from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.arguments import check_positive
from bitfit_export.runtime.predict.batches import BATCH_SIZE, BATCH_TOKENS
from bitfit_export.runtime.predict.json_answers import json_answer
from bitfit_export.runtime.text.json_text import text_of
from bitfit_export.runtime.text.tokenizer import Text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--task", help="the task of every line that names none")
    parser.add_argument("--text", action="append", default=[], help="a text; give it twice with --pair for a text pair")
    parser.add_argument("--pair", action="store_true", help="take the texts in twos, as pairs")
    parser.add_argument("--input", help="a JSONL file, or - for stdin")
    parser.add_argument("--row", action="append", default=[], type=Path, help="a bias row to load besides the bundle's")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are longer than the model takes")
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=BATCH_TOKENS,
        metavar="N",
        help="tokens to run at once, at most, with padding (%(default)s)",
    )
    add_session_arguments(parser)


@dataclass(frozen=True)
class Question:
    """A text for a task, and where it was found, for messages."""

    where: str
    text: Text
    task: str


def run(options: argparse.Namespace) -> int:
    if bool(options.text) == bool(options.input):
        raise UsageError("expected either --text or --input", hint="bitfit run BUNDLE --task T --text 'some text'")
    asked = _from_words(options) if options.text else None
    check_positive("--batch-tokens", options.batch_tokens)
    session = open_session(options)
    if session.manifest.accelerator is not None:
        say(f"running on {session.device}")
    for path in options.row:
        session.load_task(path)
    answered = 0
    with nullcontext(asked) if asked is not None else _from_file(options.input, options.task) as source:
        questions = iter(source)
        while batch := list(islice(questions, BATCH_SIZE)):
            for answer in _answer(session, batch, options):
                print(json_text(answer))
            answered += len(batch)
    if not answered:
        raise InputError(f"{options.input} has no JSON object, expected one per line")
    return 0


def _answer(session: BiasSession, questions: list[Question], options: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = [question.task for question in questions]
    for question in questions:
        _check_task(session, question)
    try:
        texts = [question.text for question in questions]
        answers = session.predict(texts, tasks, truncate=options.truncate, batch_tokens=options.batch_tokens)
    except InputError as error:
        if error.item is None:
            raise
        raise InputError(f"{questions[error.item].where} {error.problem}", hint=error.hint) from error
    return [json_answer(task, answer) for task, answer in zip(tasks, answers, strict=True)]


def _check_task(session: BiasSession, question: Question) -> None:
    try:
        session.labels(question.task)
    except InputError as error:
        raise InputError(f"{question.where}: {error.problem}", hint=error.hint) from error


def _from_words(options: argparse.Namespace) -> list[Question]:
    """The questions of `--text`."""
    texts: list[str] = options.text
    if options.task is None:
        raise _no_task("--text")
    if not options.pair:
        return [Question(f"text {number}", text, options.task) for number, text in enumerate(texts, 1)]
    if len(texts) % 2:
        raise UsageError(f"--pair takes an even number of texts, found {len(texts)}")
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [Question(f"pair {number}", pair, options.task) for number, pair in enumerate(pairs, 1)]


@contextmanager
def _from_file(name: str, task: str | None) -> Iterator[Iterator[Question]]:
    """The questions of a JSONL file or of stdin, read as they are needed."""
    if name == "-":
        yield read_lines(name, sys.stdin.buffer, task)
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below; an error in the block must not be caught here
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield read_lines(name, stream, task)


def read_lines(name: str, stream: BinaryIO, task: str | None) -> Iterator[Question]:
    """The questions of JSON lines, as `docs/files.md` specifies them."""
    for number, line in lines_of(name, stream):
        if not line.strip(b" \t\r"):
            continue
        where = f"line {number} of {name}"
        value = object_of(line, where)
        chosen = value.get("task", task)
        if not isinstance(chosen, str):
            raise _no_task(where)
        yield Question(where, text_of(value, where), chosen)


def _no_task(where: str) -> UsageError:
    return UsageError(f"{where} names no task", hint="pass --task, or give each line a task of its own")
