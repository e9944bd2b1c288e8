"""The sources of examples: the hub, or files. These are JSON lines (.jsonl, .json), CSV, TSV (GLUE's: no quoting) and
SQuAD's JSON (.json), all also with .gz, and Parquet.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfit_export.base_model.loading import quiet_hub
from bitfit_export.errors import DataError, MissingExtraError

__all__ = ["HUB_DATASET", "HUB_REVISION", "Splits", "Table", "read_files", "read_folder", "read_hub"]

HUB_DATASET = "nyu-mll/glue"
#: The commit of it that is read unless another one is asked for, so that the same command has the same data
#: tomorrow.
HUB_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_TRAIN = ("train",)
#: Characters of a CSV field: the largest C long of every platform, in place of 128 KiB.
_MAX_FIELD = 2**31 - 1
#: A task that is judged on several validation sets: the first one chooses the best epoch, the others are reported too.
_VALIDATION_SETS = {"mnli": ("matched", "mismatched")}


@dataclass(frozen=True)
class Table:
    """A split as it was read: each example with the number of its line, question or example, from 1."""

    name: str
    unit: str
    examples: list[tuple[int, Mapping[str, object]]]

    def at(self, number: int) -> str:
        return f"{self.name}, {self.unit} {number}"


@dataclass(frozen=True)
class Splits:
    """A task's splits.

    Attributes:
        more: further validation sets, by name.
        source: the hub's data set or the files' names, without their folder.
        revision: of the hub's data set; None for files.
    """

    train: Table
    validation: Table
    source: str
    more: Mapping[str, Table] = field(default_factory=dict)
    revision: str | None = None


def read_files(train: Path, validation: Path) -> Splits:
    """Two files that are named."""
    return Splits(_read_table(train), _read_table(validation), f"{train.name} {validation.name}")


def read_folder(data: Path, task: str) -> Splits:
    """The training and the validation file in `data`, or in its sub-folder named like the task.

    Raises:
        DataError: no such folder, none or several files for a split, a file that is not of its format.
    """
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; expected one that holds train.* and validation.* or dev.*")
    folder, own = data, data / task
    if task == Path(task).name and own.is_dir() and (_candidates(own, _TRAIN) or not _candidates(data, _TRAIN)):
        folder = own
    train = _one_file(folder, _TRAIN, "" if folder == own else f", or a folder {task} that has one")
    first, *others = _VALIDATION_SETS.get(task, ("",))
    if first and _candidates(folder, _validation_stems(first)):
        validation = _one_file(folder, _validation_stems(first))
    else:
        validation, others = _one_file(folder, _validation_stems()), []
    more = {name: _one_file(folder, _validation_stems(name)) for name in others}
    return Splits(
        _read_table(train),
        _read_table(validation),
        " ".join(path.name for path in (train, validation, *more.values())),
        {name: _read_table(path) for name, path in more.items()},
    )


def _validation_stems(name: str = "") -> tuple[str, str]:
    end = f"_{name}" if name else ""
    return f"validation{end}", f"dev{end}"


def read_hub(task: str, revision: str | None = None) -> Splits:
    """A GLUE task's splits from the hub.

    Args:
        revision: a commit, tag or branch of the data set; None for `HUB_REVISION`.

    Raises:
        DataError: it cannot be loaded, or lacks a split.
        MissingExtraError: `datasets` is not installed.
    """
    datasets = _require("datasets")
    quiet_hub()
    revision = revision or HUB_REVISION
    try:
        splits = datasets.load_dataset(HUB_DATASET, task, revision=revision)
    except Exception as error:  # offline, refused and half-downloaded raise errors of four unrelated libraries
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{HUB_DATASET} {task} cannot be loaded from the hub: {reason}",
            hint=f"pass --data DIR with train.* and dev.* of {task}",
        ) from error
    sets = _VALIDATION_SETS.get(task, ("",))
    names = ["train", *(_validation_stems(name)[0] for name in sets)]
    for name in names:
        if name not in splits:
            raise DataError(f"{HUB_DATASET} {task} has the splits {', '.join(splits)}; expected {' and '.join(names)}")
    train, validation, *others = (
        Table(f"{HUB_DATASET} {task} {name}", "example", list(enumerate(splits[name].to_list(), start=1)))
        for name in names
    )
    return Splits(train, validation, f"{HUB_DATASET} {task}", dict(zip(sets[1:], others, strict=True)), revision)


def _candidates(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    wanted = [folder / f"{stem}{suffix}" for stem in stems for suffix in _READERS]
    return [path for path in wanted if path.is_file()]


def _one_file(folder: Path, stems: tuple[str, ...], otherwise: str = "") -> Path:
    found = _candidates(folder, stems)
    if len(found) == 1:
        return found[0]
    names = [path.name for path in found] or sorted(path.name for path in folder.iterdir())[:8] or ["nothing"]
    raise DataError(
        f"{folder} holds {', '.join(names)}; expected one file {' or '.join(f'{stem}.*' for stem in stems)}{otherwise}",
        hint=f"suffixes: {', '.join(_READERS)}",
    )


def _read_table(path: Path) -> Table:
    if not path.is_file():
        raise DataError(f"{path} is not there; expected a file of examples")
    suffix = next((suffix for suffix in _READERS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"{path} has no known suffix; expected one of {', '.join(_READERS)}")
    found = list(_READERS[suffix](path))
    if len(found) == 1 and isinstance(found[0][1].get("data"), list):
        return Table(str(path), "question", list(enumerate(_squad_questions(path, found[0][1]), start=1)))
    return Table(str(path), "example" if suffix == ".parquet" else "line", found)


def _squad_questions(path: Path, root: Mapping[str, Any]) -> Iterator[Mapping[str, object]]:
    """Each question of SQuAD's own JSON, an object of articles, with the context that it is about."""
    try:
        for article in root["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    yield {**entry, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} has a list 'data' but not SQuAD's form: {error}",
            hint="expected data > paragraphs > context and qas, as SQuAD v1.1 has them, or one JSON object a line",
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1, and its line end; a byte order mark before the first is dropped."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number} is not UTF-8 at byte {error.start + 1}",
                        hint="convert the file to UTF-8",
                    ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        is_array = line.lstrip().startswith("[")
        hint = _array_hint(path) if is_array else "one JSON object a line"
        try:
            example = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = " by itself: a JSON array begins there" if is_array else f": {error}"
            raise DataError(f"{path}, line {number} is not JSON{problem}", hint=hint) from error
        if not isinstance(example, dict):
            raise DataError(f"{path}, line {number} is not a JSON object{' but an array' * is_array}", hint=hint)
        yield number, example


def _array_hint(path: Path) -> str:
    """The command that makes lines of a JSON array."""
    name = shlex.quote(str(path))
    command = f"zcat {name} | jq -c '.[]'" if path.suffix == ".gz" else f"jq -c '.[]' {name}"
    return f"write each element on a line of its own: {command} > examples.jsonl"


def _read_csv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader((line for _, line in _lines(path)), strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num} is not CSV: {error}") from error

    return _with_header(path, records())


def _read_tsv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    stripped = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in _lines(path))
    return _with_header(path, ((number, line.split("\t") if line else []) for number, line in stripped))


def _with_header(path: Path, records: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Mapping[str, object]]]:
    _, header = next(records, (0, []))
    if len(set(header)) != len(header):
        raise DataError(f"{path} names a column twice: {', '.join(header)}")
    for number, cells in records:
        if len(cells) not in (0, len(header)):
            raise DataError(
                f"{path}, line {number} has {len(cells)} fields; expected {len(header)}: {', '.join(header)}"
            )
        if cells:
            yield number, dict(zip(header, cells, strict=True))


def _read_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    parquet = _require("pyarrow.parquet")
    try:
        # ParquetFile, not read_table: that one makes columns of folder names such as `label=1`.
        examples = parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors derive from these
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    return iter(enumerate(examples, start=1))


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module.partition(".")[0], "train") from error


_Reader = Callable[[Path], Iterator[tuple[int, Mapping[str, object]]]]
_TEXT_READERS: dict[str, _Reader] = {".jsonl": _read_jsonl, ".json": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
_READERS: dict[str, _Reader] = {
    **_TEXT_READERS,
    **{f"{suffix}.gz": reader for suffix, reader in _TEXT_READERS.items()},
    ".parquet": _read_parquet,
}
