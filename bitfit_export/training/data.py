"""Training and evaluation rows: from the hub, from a data folder or from two files.

Everything that can be wrong with a row is found here, before training starts, and said with the file and the line.
Text is kept exactly as it is in the source. Formats: JSON lines (.jsonl, .json), CSV, TSV (GLUE's: no quoting) and
Parquet; the first three also with .gz.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitfit_export.base_models import quiet_hub
from bitfit_export.errors import DataError, MissingExtraError, UsageError
from bitfit_export.training.tasks import (
    GLUE_TASKS,
    TaskOptions,
    TaskSpec,
    check_options,
    infer_spec,
    is_integer,
    is_number,
    label_name,
)

__all__ = ["HUB_DATASET", "Rows", "TaskData", "load_task_data"]

HUB_DATASET = "nyu-mll/glue"

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Rows:
    """One split: for each row a tuple of one or two texts, and a label id or a regression's number."""

    texts: list[tuple[str, ...]]
    labels: list[int] | list[float]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TaskData:
    """A task's rows.

    digest: SHA-256, in hex, of `json.dumps([*texts, label])` and a newline for each row, train then validation:
            the same rows give the same digest whatever file they came from
    source: the hub's data set or the names of the two files, without their folder
    """

    spec: TaskSpec
    train: Rows
    validation: Rows
    digest: str
    source: str


@dataclass(frozen=True)
class _Table:
    """A split as it was read: each row with its line or row number, from 1."""

    name: str
    unit: str
    rows: list[tuple[int, Mapping[str, object]]]

    def at(self, number: int) -> str:
        return f"{self.name}, {self.unit} {number}"


def load_task_data(
    task: str,
    *,
    data: Path | None = None,
    train_file: Path | None = None,
    validation_file: Path | None = None,
    columns: Sequence[str] | None = None,
    label_column: str | None = None,
    problem_type: str | None = None,
    labels: Sequence[str] | None = None,
) -> TaskData:
    """Read and check a task's rows.

    They come from `train_file` and `validation_file`, else from the folder `data` (or its sub-folder named like the
    task), else, for a GLUE task, from the hub. A GLUE task has its known columns and labels; `columns` and
    `label_column` rename its columns. Any other task takes what is given, and else: columns `sentence`, or
    `sentence1` and `sentence2`, and `label`; a regression where a label of the training rows is not a whole
    number; the labels that the training rows have, sorted. A regression's labels are rounded to float32, the
    precision in which they are trained.

    Raises DataError for data that can't be used, UsageError for arguments that contradict each other or the task,
    MissingExtraError where `datasets` (hub) or `pyarrow` (Parquet) is missing.
    """
    options = check_options(task, columns, label_column, problem_type, labels)
    if train_file is not None or validation_file is not None:
        if train_file is None or validation_file is None or data is not None:
            raise UsageError("expected a training file and a validation file, both, and then no data folder")
        files = (Path(train_file), Path(validation_file))
    elif data is not None:
        files = _find_files(Path(data), task)
    elif task in GLUE_TASKS:
        train, validation = _load_from_hub(task)
        return _make_task_data(task, options, train, validation, f"{HUB_DATASET} {task}")
    else:
        raise UsageError(
            f"no data for the task {task!r}, which is not one of GLUE's: {', '.join(GLUE_TASKS)}",
            hint="pass --data DIR with its files",
        )
    train, validation = (_read_table(file) for file in files)
    return _make_task_data(task, options, train, validation, " ".join(file.name for file in files))


def _make_task_data(task: str, options: TaskOptions, train: _Table, validation: _Table, source: str) -> TaskData:
    for table in (train, validation):
        if not table.rows:
            raise DataError(f"{table.name} has no rows; expected one at least")
    spec = _resolve_spec(task, options, train, validation)
    rows = (_convert(train, spec), _convert(validation, spec))
    return TaskData(spec, *rows, _digest(*rows), source)


def _digest(*splits: Rows) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for texts, label in zip(split.texts, split.labels, strict=True):
            digest.update(json.dumps([*texts, label]).encode("ascii") + b"\n")
    return digest.hexdigest()


# --- what the task is


def _resolve_spec(task: str, options: TaskOptions, train: _Table, validation: _Table) -> TaskSpec:
    known = GLUE_TASKS.get(task)
    label_column = options.label_column or (known.label_column if known else "label")
    columns = options.columns or (known.columns if known else _default_columns(train, label_column))
    for table in (train, validation):
        _check_columns(table, (*columns, label_column))
    if options.labels is None:
        _check_label_kinds(train, validation, label_column)
    if known:
        return replace(known, columns=columns, label_column=label_column)
    labels = [row[label_column] for _, row in train.rows]
    return infer_spec(task, options, columns, label_column, labels, train.name)


def _default_columns(train: _Table, label_column: str) -> tuple[str, ...]:
    names = train.rows[0][1].keys()
    found = [pick for pick in (("sentence",), ("sentence1", "sentence2")) if all(name in names for name in pick)]
    if len(found) != 1:
        rest = ", ".join(name for name in names if name != label_column)
        raise DataError(
            f"{train.name} has the columns {rest}; expected either sentence, or sentence1 and sentence2",
            hint="--columns NAME or --columns NAME,NAME says which columns are the text",
        )
    return found[0]


def _check_columns(table: _Table, expected: tuple[str, ...]) -> None:
    """Each row has every column, and its label is there and of a type that can be a label."""
    label_column = expected[-1]
    for number, row in table.rows:
        for name in expected:
            if name not in row:
                raise DataError(
                    f"{table.at(number)} has no column {name!r}; found {', '.join(row)}; needed {', '.join(expected)}",
                    hint="--columns and --label-column name other columns",
                )
        label = row[label_column]
        if label is None or label == "":
            raise DataError(f"{table.at(number)} has no label; expected a value in {label_column!r}")
        if isinstance(label, bool) or not isinstance(label, int | float | str):
            raise DataError(f"{table.at(number)}: the label {label!r} is neither a number nor a name")


def _check_label_kinds(train: _Table, validation: _Table, label_column: str) -> None:
    """Labels are all numbers or all names, in both splits: a mixture is a broken file, not a task."""
    first: dict[bool, str] = {}
    for table in (train, validation):
        for number, row in table.rows:
            value = row[label_column]
            first.setdefault(not isinstance(value, str) or is_number(value), f"{value!r} ({table.at(number)})")
    if len(first) == 2:
        raise DataError(
            f"labels of two kinds: {first[True]} and {first[False]}; expected all numbers or all names",
            hint="--labels NAME,NAME,... where all of them are names",
        )


# --- rows to texts and labels


def _convert(table: _Table, spec: TaskSpec) -> Rows:
    texts = [tuple(_text(table, number, row, name) for name in spec.columns) for number, row in table.rows]
    values = [(number, row[spec.label_column]) for number, row in table.rows]
    if spec.problem_type == "regression":
        return Rows(texts, [_regression_label(table, number, value) for number, value in values])
    find = _label_finder(table, spec)
    return Rows(texts, [find(number, value) for number, value in values])


def _text(table: _Table, number: int, row: Mapping[str, object], column: str) -> str:
    text = row[column]
    if not isinstance(text, str):
        raise DataError(f"{table.at(number)}: {column!r} is {text!r}; expected a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair, which no tokenizer takes
        raise DataError(
            f"{table.at(number)}: {column!r} holds a lone surrogate at character {error.start + 1}"
        ) from error
    return text


def _regression_label(table: _Table, number: int, value: object) -> float:
    if isinstance(value, int | float) or (isinstance(value, str) and is_number(value)):
        # The comparison is false for NaN, and for an int too large for a float it is exact.
        parsed = float(value) if isinstance(value, str) else value
        if abs(parsed) <= _MAX_FLOAT32:
            # The shortest decimal of the float32, so that 3.8 from a text file and from the hub's float32 are equal.
            return float(str(np.float32(parsed)))
    raise DataError(f"{table.at(number)}: the label {value!r} is not a finite number, as a regression's must be")


def _label_finder(table: _Table, spec: TaskSpec) -> Callable[[int, object], int]:
    """A function from (row number, label) to the label's id: by name, or by the id itself.

    Where the names are numbers themselves, a number is a name and never an id.
    """
    ids = {label_name(name): label_id for label_id, name in enumerate(spec.labels)}
    if not any(is_integer(name) for name in ids):
        ids |= {str(label_id): label_id for label_id in range(len(spec.labels))}

    def find(number: int, value: object) -> int:
        label_id = ids.get(label_name(value))
        if label_id is not None:
            return label_id
        known = ", ".join(f"{name} ({label_id})" for label_id, name in enumerate(spec.labels))
        hint = None
        if label_name(value) == "-1":
            hint = "-1 marks a row without a label, as in GLUE's test split: use the validation split"
        elif isinstance(value, float):
            hint = "write label ids as whole numbers"
        raise DataError(f"{table.at(number)}: the label {value!r} is none of {spec.name}'s labels: {known}", hint=hint)

    return find


# --- where rows come from


def _load_from_hub(task: str) -> tuple[_Table, _Table]:
    datasets = _require("datasets")
    quiet_hub()
    try:
        splits = datasets.load_dataset(HUB_DATASET, task)
    except Exception as error:  # offline, refused and half-downloaded raise errors of four unrelated libraries
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{HUB_DATASET} {task} can't be had from the hub: {reason}",
            hint=f"pass --data DIR with train.* and dev.* of {task}",
        ) from error
    names = ("train", "validation_matched" if task == "mnli" else "validation")
    for name in names:
        if name not in splits:
            raise DataError(f"{HUB_DATASET} {task} has the splits {', '.join(splits)}; expected {' and '.join(names)}")
    train, validation = (
        _Table(f"{HUB_DATASET} {task} {name}", "row", list(enumerate(splits[name].to_list(), start=1)))
        for name in names
    )
    return train, validation


def _find_files(data: Path, task: str) -> tuple[Path, Path]:
    """The training and the validation file in `data`, or in its sub-folder named like the task."""
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; expected one that holds train.* and validation.* or dev.*")
    folder = data
    if task == Path(task).name and (data / task).is_dir() and _candidates(data / task, ("train",)):
        folder = data / task
    return _one_file(folder, ("train",)), _one_file(folder, ("validation", "dev"))


def _candidates(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    wanted = [folder / f"{stem}{suffix}" for stem in stems for suffix in _READERS]
    return [path for path in wanted if path.is_file()]


def _one_file(folder: Path, stems: tuple[str, ...]) -> Path:
    found = _candidates(folder, stems)
    if len(found) == 1:
        return found[0]
    names = [path.name for path in found] or sorted(path.name for path in folder.iterdir())[:8] or ["nothing"]
    raise DataError(
        f"{folder} holds {', '.join(names)}; expected one file {' or '.join(f'{stem}.*' for stem in stems)}",
        hint=f"suffixes: {', '.join(_READERS)}",
    )


# --- reading a file


def _read_table(path: Path) -> _Table:
    if not path.is_file():
        raise DataError(f"{path} is not there; expected a file of rows")
    suffix = next((suffix for suffix in _READERS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"{path} has no known suffix; expected one of {', '.join(_READERS)}")
    return _Table(str(path), "row" if suffix == ".parquet" else "line", list(_READERS[suffix](path)))


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
        raise DataError(f"{path} can't be read: {error}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not JSON: {error}", hint="one JSON object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is not a JSON object", hint="one JSON object a line")
        yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num} is not CSV: {error}") from error

    return _with_header(path, rows())


def _read_tsv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    stripped = ((number, line.removesuffix("\n").removesuffix("\r")) for number, line in _lines(path))
    return _with_header(path, ((number, line.split("\t") if line else []) for number, line in stripped))


def _with_header(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Mapping[str, object]]]:
    _, header = next(rows, (0, []))
    if len(set(header)) != len(header):
        raise DataError(f"{path} names a column twice: {', '.join(header)}")
    for number, row in rows:
        if len(row) not in (0, len(header)):
            raise DataError(f"{path}, line {number} has {len(row)} fields; expected {len(header)}: {', '.join(header)}")
        if row:
            yield number, dict(zip(header, row, strict=True))


def _read_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    parquet = _require("pyarrow.parquet")
    try:
        # ParquetFile, not read_table: that one makes columns of folder names such as `label=1`.
        rows = parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors derive from these
        raise DataError(f"{path} can't be read as Parquet: {error}") from error
    return iter(enumerate(rows, start=1))


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
