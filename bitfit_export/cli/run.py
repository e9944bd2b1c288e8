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
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

from bitfit_export.cli.ray_options import add_ray_arguments, runs_on_ray
from bitfit_export.cli.session_options import add_session_arguments, open_session
from bitfit_export.cli.streams import json_text, say
from bitfit_export.errors import InputError, UsageError
from bitfit_export.files import refuse_overlap
from bitfit_export.runtime.arguments import check_positive
from bitfit_export.runtime.predict.batches import BATCH_SIZE, BATCH_TOKENS
from bitfit_export.runtime.predict.questions import Question, answer_questions, no_task, read_questions
from bitfit_export.serving.on_ray.answer_file import PART_LINES, AnswerFile

_SECONDS_BETWEEN_REPORTS = 5.0
#: What --engine ray takes besides.
_ON_RAY = {
    "workers": "processes, at most (as many as there is room for)",
    "part-lines": f"lines of --input in each part ({PART_LINES})",
}


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
    add_session_arguments(parser, on_ray=True)
    group = add_ray_arguments(parser, shared="BUNDLE, --input, --row and --output", counts=_ON_RAY)
    group.add_argument("--output", type=Path, metavar="DIR", help="where answers go, a file for each part of --input")


def run(options: argparse.Namespace) -> int:
    if bool(options.text) == bool(options.input):
        raise UsageError("expected either --text or --input", hint="bitfit run BUNDLE --task T --text 'some text'")
    check_positive("--batch-tokens", options.batch_tokens)
    if runs_on_ray(options, _ON_RAY, ["output"]):
        return _run_on_ray(options)
    asked = _from_words(options) if options.text else None
    session = open_session(options)
    if session.manifest.accelerator is not None:
        say(f"running on {session.device}")
    for path in options.row:
        session.load_task(path)
    answered = 0
    with nullcontext(asked) if asked is not None else _from_file(options.input, options.task) as source:
        questions = iter(source)
        while batch := list(islice(questions, BATCH_SIZE)):
            for answer in answer_questions(
                session, batch, truncate=options.truncate, batch_tokens=options.batch_tokens
            ):
                print(json_text(answer))
            answered += len(batch)
    if not answered:
        raise InputError(f"{options.input} has no JSON object, expected one per line")
    return 0


def _run_on_ray(options: argparse.Namespace) -> int:
    if not options.input or options.input == "-" or options.output is None:
        raise UsageError(
            "--engine ray takes the texts of a file, and a folder for their answers",
            hint="bitfit run BUNDLE --engine ray --input texts.jsonl --output answers/",
        )
    refuse_overlap(options.output, [options.bundle])
    options.threads = options.threads or 1
    work = AnswerFile(
        open_session(options),
        Path(options.input),
        options.output,
        rows=options.row,
        task=options.task,
        truncate=options.truncate,
        batch_tokens=options.batch_tokens,
        part_lines=options.part_lines or PART_LINES,
    )
    say(f"{work.parts} parts of {options.input}, {work.done} of them answered before")
    last = time.monotonic()
    for done in work.run(address=options.address, workers=options.workers, cpus=options.threads):
        if done == work.parts or time.monotonic() - last >= _SECONDS_BETWEEN_REPORTS:
            say(f"answered {done} of {work.parts} parts")
            last = time.monotonic()
    say(f"the answers are in {options.output}/part-*.jsonl, in the order of {options.input}")
    return 0


def _from_words(options: argparse.Namespace) -> list[Question]:
    """The questions of `--text`."""
    texts: list[str] = options.text
    if options.task is None:
        raise no_task("--text")
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
        yield read_questions(name, sys.stdin.buffer, task)
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below; an error in the block must not be caught here
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield read_questions(name, stream, task)
