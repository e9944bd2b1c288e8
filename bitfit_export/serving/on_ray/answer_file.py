"""The texts of a large file, answered by many processes with Ray Data.

<output>/run.json             what is answered, with what
<output>/part-000000.jsonl    the answers of the first lines of the file, and so on: there only when it is complete

A part that is there is not answered again, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bitfit_export.cluster import connected
from bitfit_export.errors import BitfitError, InputError, OutputError, UsageError
from bitfit_export.files import canonical_json, locked, refuse_overlap, sha256_of_file, write_bytes
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.predict.batches import BATCH_SIZE, BATCH_TOKENS
from bitfit_export.runtime.predict.questions import answer_questions, check_task, questions_of
from bitfit_export.runtime.text.json_lines import lines_of

__all__ = ["PART_LINES", "AnswerFile"]

#: Lines of a part, by default.
PART_LINES = 1024
_FORMAT = 1
_RECORD = "run.json"


class Part(NamedTuple):
    """Lines of the input: the number of the part, where its bytes begin, its first line, and how many lines it has."""

    number: int
    offset: int
    first: int
    lines: int

    @property
    def file_name(self) -> str:
        return f"part-{self.number:06}.jsonl"


@dataclass(frozen=True)
class _Work:
    """What a process needs to answer a part."""

    session: bytes  # pickled
    rows: Sequence[Path]
    source: Path
    output: Path
    task: str | None
    truncate: bool
    batch_tokens: int


class AnswerFile:
    """A file of texts, and a folder that fills with their answers.

    Args:
        session: answers; every process opens it anew. It has its bundle's own tasks alone.
        source: lines of JSON, as `bitfit run --input` takes them.
        output: the folder. One in which the same run was begun is gone on with.
        rows: files of rows to load besides the bundle's.
        task: the task of every line that names none.
        truncate: cut texts that are longer than the model takes.
        batch_tokens: the most tokens to run at once.
        part_lines: lines of a part.

    Raises:
        InputError: the source cannot be read or has no text; a line is malformed, or of a task that there is not.
        UsageError: a line without a task.
        OutputError: the folder cannot be written, is one of the inputs, or has answers of something else.
        BundleError: a row cannot be used.
    """

    def __init__(
        self,
        session: BiasSession,
        source: Path,
        output: Path,
        *,
        rows: Sequence[Path] = (),
        task: str | None = None,
        truncate: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        part_lines: int = PART_LINES,
    ) -> None:
        refuse_overlap(output, [source, *rows])
        paths = [path.absolute() for path in rows]
        self._output = output.absolute()
        self._work = _Work(pickle.dumps(session), paths, source.absolute(), self._output, task, truncate, batch_tokens)
        for path in paths:
            session.load_task(path)
        self._parts = _divide(source, session, task, part_lines)
        self._record = {
            "format_version": _FORMAT,
            "input": sha256_of_file(source),
            "bundle": session.manifest.digest,
            "rows": [sha256_of_file(path) for path in paths],
            "task": task,
            "truncate": truncate,
            "part_lines": part_lines,
        }
        with self._locked():
            self._begin()

    @property
    def parts(self) -> int:
        """How many parts the file has."""
        return len(self._parts)

    @property
    def done(self) -> int:
        """How many of them are answered."""
        return len(self._parts) - len(self._left())

    def run(self, *, address: str | None = None, workers: int | None = None, cpus: int = 1) -> Iterator[int]:
        """Answer what is left, and give the number of parts that are done after each.

        Args:
            address: of a running cluster; None starts one on this machine.
            workers: processes, at most; by default as many as the cluster has room for.
            cpus: CPUs that a process takes; give as many as the session has threads.

        Raises:
            InputError: a text that its task cannot take. The parts that are done stay.
            OutputError: a part cannot be written.
            BusyError: another process answers into the same folder.
            MissingExtraError: Ray is not installed.
            UsageError: no cluster answers at the address, or this machine has fewer CPUs.
        """
        with self._locked():
            left = self._left()
            done = self.parts - len(left)
            if not left:
                return
            with connected(address) as ray:
                there = int(ray.cluster_resources().get("CPU", 0))
                if address is None and there < cpus:
                    raise UsageError(f"a process is to have {cpus} CPUs, and this machine has {there}")
                most = min(workers or len(left), len(left), max(1, there // cpus))
                for reply in _replies(self._work, left, most, cpus):
                    if reply["error"]:
                        raise pickle.loads(reply["error"])
                    done += 1
                    yield done

    def _left(self) -> list[Part]:
        return [part for part in self._parts if not (self._output / part.file_name).exists()]

    def _begin(self) -> None:
        """Note what is answered, or find that it is the same as before."""
        path = self._output / _RECORD
        if not path.exists():
            if any(self._output.glob("[!.]*")):
                raise OutputError(
                    f"the output {self._output} has other files, expected a new folder", hint="choose another --output"
                )
            write_bytes(path, canonical_json(self._record))
            return
        try:
            before = json.loads(path.read_bytes())
            names = [name for name, value in self._record.items() if before.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise OutputError(f"{path} is damaged: {error}", hint="choose another --output") from error
        if names:
            raise OutputError(
                f"the output {self._output} has answers of a run with another {', '.join(names)}",
                hint="choose another --output",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._output.mkdir(parents=True, exist_ok=True)
            with locked(self._output / ".lock", f"another process answers into {self._output}"):
                yield
        except OSError as error:
            raise OutputError(f"{self._output} cannot be written: {error.strerror or error}") from error


class _Worker:
    """A process of Ray Data's, which passes each part as a batch of one row."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._session: BiasSession = pickle.loads(work.session)
        for path in work.rows:
            self._session.load_task(path)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        part = Part(**{name: int(values[0]) for name, values in batch.items()})
        error = b""
        try:
            self._answer(part)
        except BitfitError as failure:  # Ray would print it with the stack of every process
            error = pickle.dumps(failure)
        return {"part": [part.number], "error": [error]}

    def _answer(self, part: Part) -> None:
        work = self._work
        with work.source.open("rb") as stream:
            stream.seek(part.offset)
            lines = islice(lines_of(str(work.source), stream), part.lines)
            numbered = ((part.first - 1 + number, line) for number, line in lines)
            questions = questions_of(str(work.source), numbered, work.task)
            answers = []
            while some := list(islice(questions, BATCH_SIZE)):
                answers += answer_questions(self._session, some, truncate=work.truncate, batch_tokens=work.batch_tokens)
        data = "".join(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n" for answer in answers)
        write_bytes(work.output / part.file_name, data.encode())


def _replies(work: _Work, parts: Sequence[Part], most: int, cpus: int) -> Iterator[dict[str, Any]]:
    """What at most so many processes say of each part, in the order in which they end."""
    from ray import data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = data.from_items([part._asdict() for part in parts], override_num_blocks=len(parts)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=(work,),
        compute=data.ActorPoolStrategy(min_size=1, max_size=most),
        num_cpus=cpus,
    )
    yield from dataset.iter_rows()


def _divide(source: Path, session: BiasSession, task: str | None, part_lines: int) -> list[Part]:
    """The parts of the file. Every line is checked, so that a bad one is known before any work."""
    parts: list[Part] = []
    found = start = 0
    try:
        with source.open("rb") as stream:
            lines = lines_of(str(source), stream)
            while some := list(islice(lines, part_lines)):
                for question in questions_of(str(source), some, task):
                    check_task(session, question)
                    found += 1
                parts.append(Part(len(parts), start, some[0][0], len(some)))
                start = stream.tell()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(f"{source} has no JSON object, expected one per line")
    return parts
