"""Examples, the formats that they are written in, and folders of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bitfit_export.errors import DataError
from bitfit_export.training.data import TaskData, load_task_data

TRAIN = [
    {"sentence1": 'He said "no", twice.', "sentence2": "He refused. ", "label": 0},
    {"sentence1": "Zoë — naïve", "sentence2": "", "label": 1},
    {"sentence1": " led by a space", "sentence2": "a, b", "label": 1},
]
VALIDATION = [{"sentence1": "one", "sentence2": "two", "label": 1}, {"sentence1": "x", "sentence2": "y", "label": 0}]
TEXTS = [(example["sentence1"], example["sentence2"]) for example in TRAIN]
JSON_ROW = '{"sentence": "a", "label": %s}\n'


def as_jsonl(examples) -> bytes:
    return "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples).encode()


def as_csv(examples) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, examples[0].keys())
    writer.writeheader()
    writer.writerows(examples)
    return stream.getvalue().encode()


def as_tsv(examples) -> bytes:
    lines = [examples[0].keys(), *(example.values() for example in examples)]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines).encode()


def as_parquet(examples) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples), stream)
    return stream.getvalue()


TEXT_FORMATS = {".jsonl": as_jsonl, ".json": as_jsonl, ".csv": as_csv, ".tsv": as_tsv}
FORMATS = {
    **TEXT_FORMATS,
    **{
        f"{suffix}.gz": lambda examples, write=write: gzip.compress(write(examples), mtime=0)
        for suffix, write in TEXT_FORMATS.items()
    },
    ".parquet": as_parquet,
}


def write_folder(folder: Path, suffix: str = ".jsonl", train=TRAIN, validation=VALIDATION, dev: str = "dev") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"train{suffix}").write_bytes(FORMATS[suffix](train))
    (folder / f"{dev}{suffix}").write_bytes(FORMATS[suffix](validation))
    return folder


def write_raw(folder: Path, train: str | bytes, validation: str | bytes | None = None, suffix: str = ".jsonl") -> Path:
    for name, content in (("train", train), ("dev", train if validation is None else validation)):
        (folder / f"{name}{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def fails(message: str, task: str, folder: Path, **options) -> DataError:
    """The DataError of a load; its text, message and hint, has at most two lines."""
    with pytest.raises(DataError, match=message) as caught:
        load_task_data(task, data=folder, **options)
    assert len(str(caught.value).splitlines()) <= 2
    return caught.value


def own(folder: Path, train, dev=None, **options) -> TaskData:
    """A task of one's own whose examples have these labels."""
    examples = [
        [{"sentence": "s", "label": label} for label in split] for split in (train, train if dev is None else dev)
    ]
    return load_task_data("own", data=write_folder(folder, ".jsonl", *examples), **options)
