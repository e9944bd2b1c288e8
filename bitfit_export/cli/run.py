"""Answer texts with a bundle: JSON lines in, JSON lines out.

example: bitfit run bundles/minilm-l6 --task sst2 --text "What a lovely day"
         bitfit run bundles/minilm-l6 --input rows.jsonl     with {"text": ..., "text_pair": ..., "task": ...} a line
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime import BiasSession

_BATCH = 32
#: Column names for the first and the second text, in the order in which they are looked for.
_FIRST = ("text", "sentence", "sentence1")
_SECOND = ("text_pair", "sentence2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--task", help="the task of every row that names none itself")
    parser.add_argument("--text", action="append", default=[], help="a text; twice with --pair for a text pair")
    parser.add_argument("--pair", action="store_true", help="take the texts two by two, as pairs")
    parser.add_argument("--input", help="a JSONL file, or - for stdin")
    parser.add_argument("--row", action="append", default=[], type=Path, help="a bias row to load besides the bundle's")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are longer than the model takes")
    parser.add_argument("--threads", type=int, help="CPU threads")


def run(options: argparse.Namespace) -> int:
    if bool(options.text) == bool(options.input):
        raise UsageError("expected either --text or --input", hint="bitfit run BUNDLE --task T --text 'some text'")
    rows = _texts(options.text, pair=options.pair) if options.text else None
    session = BiasSession(options.bundle, threads=options.threads)
    for path in options.row:
        session.load_task(path)
    answered = 0
    with nullcontext(rows) if rows is not None else _lines(options.input) as source:
        for batch in _batches(source):
            answered += _answer(session, batch, options)
    if not answered:
        raise InputError(f"{options.input} has no rows, expected a JSON object a line")
    return 0


def _texts(texts: list[str], *, pair: bool) -> Iterator[dict[str, Any]]:
    if not pair:
        return iter([{"text": text} for text in texts])
    if len(texts) % 2:
        raise UsageError(f"--pair takes an even number of texts, found {len(texts)}")
    return iter([{"text": a, "text_pair": b} for a, b in zip(texts[::2], texts[1::2], strict=True)])


@contextmanager
def _lines(name: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Rows of a JSONL file or of stdin, read as they are needed."""
    if name == "-":
        yield _rows(name, sys.stdin.buffer)
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below; an error in the block must not be caught here
    except OSError as error:
        raise InputError(f"{name} can't be read: {error.strerror}") from error
    with stream:
        yield _rows(name, stream)


def _rows(name: str, stream: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} of {name} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"line {number} of {name} is a {type(row).__name__}, expected an object")
        yield row


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        yield batch


def _answer(session: BiasSession, rows: list[dict[str, Any]], options: argparse.Namespace) -> int:
    texts = [_text_of(row) for row in rows]
    tasks = [_task_of(row, options.task) for row in rows]
    for answer, task in zip(session.predict(texts, tasks, truncate=options.truncate), tasks, strict=True):
        print(json.dumps({"task": task, **answer}, ensure_ascii=False))
    return len(rows)


def _text_of(row: dict[str, Any]) -> str | tuple[str, str]:
    first = next((row[name] for name in _FIRST if name in row), None)
    second = next((row[name] for name in _SECOND if name in row), None)
    if not isinstance(first, str) or not isinstance(second, str | None):
        raise InputError(
            f"a row has {', '.join(sorted(row)) or 'nothing'}, expected text and, for a pair, text_pair, both strings",
            hint="sentence, or sentence1 and sentence2, will do as well",
        )
    return first if second is None else (first, second)


def _task_of(row: dict[str, Any], default: str | None) -> str:
    task = row.get("task", default)
    if not isinstance(task, str):
        raise UsageError("a row names no task", hint="pass --task, or give each row a task of its own")
    return task
