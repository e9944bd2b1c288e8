"""What a manifest records of the base model, of each file and of each task."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from bitfit_export.bundle.fields import Record, check_digest, check_one_of, check_range, check_text, check_unique
from bitfit_export.bundle.row_format import LABEL_COUNTS, MAX_LABELS, PROBLEM_CODES, TASK_NAME
from bitfit_export.errors import BundleError, quoted, shown

__all__ = ["BaseRecord", "FileRecord", "TaskRecord", "row_file", "task_from_record", "task_to_json"]

_INT32_MAX = 2**31 - 1
_UINT32_MAX = 2**32 - 1
_INT64_MAX = 2**63 - 1


def row_file(task: str) -> str:
    """Returns the path of a task's row in its bundle."""
    return f"tasks/{task}.bias"


@dataclass(frozen=True)
class BaseRecord:
    """The base model: its name, its revision where it has one, and SHA-256 of its state dict."""

    name: str
    revision: str | None
    digest: str

    def __post_init__(self) -> None:
        check_text(self.name, "the base model's name")
        if self.revision is not None:
            check_text(self.revision, "the base model's revision")
        check_digest(self.digest, "the base model's digest")


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: SHA-256 as 64 hexadecimal digits, its size in bytes, and CRC-32C as in a row."""

    sha256: str
    size: int
    crc32c: int

    def __post_init__(self) -> None:
        check_digest(self.sha256, "a file's sha256")
        check_range(self.size, 0, _INT64_MAX, "a file's size")
        check_range(self.crc32c, 0, _UINT32_MAX, "a file's crc32c")


@dataclass(frozen=True)
class TaskRecord:
    """A task of the bundle.

    Attributes:
        name: as in its row.
        file: `tasks/<name>.bias`.
        sha256: of that file.
        problem_type: as in its row.
        labels: in id order, at most 65,536; empty for a regression.
        task_version: as in its row.
        max_length: tokens to which texts were truncated in training.
        metrics: on the task's validation set; finite.
    """

    name: str
    file: str
    sha256: str
    problem_type: str
    labels: tuple[str, ...]
    task_version: int
    max_length: int
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not TASK_NAME.fullmatch(self.name):
            raise BundleError(
                f"the task name {quoted(self.name)} is malformed, expected letters, digits, '.', '_' or '-'"
            )
        what = f"the task {self.name}"
        if self.file != row_file(self.name):
            raise BundleError(f"{what} has the file {quoted(self.file)}, expected {row_file(self.name)!r}")
        check_digest(self.sha256, f"{what}: sha256")
        check_one_of(self.problem_type, tuple(PROBLEM_CODES), f"{what}: problem_type")
        self._check_labels(what)
        check_range(self.task_version, 1, _UINT32_MAX, f"{what}: task_version")
        check_range(self.max_length, 1, _INT32_MAX, f"{what}: max_length")
        for name, value in self.metrics.items():
            check_text(name, f"{what}: a metric's name")
            if not math.isfinite(value):
                raise BundleError(f"{what}: the metric {shown(name)} is {value}, expected a finite number")

    @property
    def label_count(self) -> int:
        """The number of head outputs, as the row has it: one for a regression, else one a label."""
        return 1 if self.problem_type == "regression" else len(self.labels)

    def _check_labels(self, what: str) -> None:
        # A regression's one output has no name.
        count = 0 if self.problem_type == "regression" else LABEL_COUNTS.get(self.problem_type)
        if len(self.labels) != count if count is not None else not 1 <= len(self.labels) <= MAX_LABELS:
            expected = f"1 to {MAX_LABELS}" if count is None else count
            raise BundleError(f"{what}: a {self.problem_type} task has {len(self.labels)} labels, expected {expected}")
        check_unique(self.labels, f"{what}: labels")


def task_to_json(task: TaskRecord) -> dict[str, Any]:
    """Returns a task without its name, which is the key under which it stands."""
    members = asdict(task)
    del members["name"]
    return members | {"labels": list(task.labels)}


def task_from_record(name: str, record: Record) -> TaskRecord:
    """Read what `task_to_json` wrote under `name`, and check all of it."""
    return TaskRecord(
        name=name,
        file=record.text("file"),
        sha256=record.text("sha256"),
        problem_type=record.text("problem_type"),
        labels=record.texts("labels"),
        task_version=record.integer("task_version"),
        max_length=record.integer("max_length"),
        metrics=record.numbers("metrics"),
    )
