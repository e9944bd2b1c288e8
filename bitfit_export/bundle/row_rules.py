"""The rules that a row obeys, one that is written as well as one that was read, and whether it fits a layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.fields import check_digest
from bitfit_export.bundle.layout import LABELS, HeadEntry, Layout
from bitfit_export.bundle.row_format import (
    DTYPES,
    LABEL_COUNTS,
    MAX_HEAD_RANK,
    MAX_HEAD_TENSORS,
    MAX_LABELS,
    PROBLEM_CODES,
    TASK_NAME,
)
from bitfit_export.errors import BundleError, RowError, RowFault, shown

if TYPE_CHECKING:
    from bitfit_export.bundle.row import BiasRow

__all__ = ["check_finite", "check_head_shape", "check_labels", "check_layout", "check_row", "check_task"]

FloatArray: TypeAlias = NDArray[np.floating[Any]]

_DTYPES = {np.dtype(name).newbyteorder("=") for name in DTYPES.values()}
_UINT32_MAX = 2**32 - 1


def check_row(row: BiasRow) -> None:
    """Check the rules that a row can break before it has bytes, in a reader's order."""
    dtypes = {tensor.dtype for tensor in (row.biases, *row.head)}
    if len(dtypes) != 1 or not dtypes <= _DTYPES:
        found = ", ".join(sorted(map(str, dtypes)))
        raise RowError(RowFault.BAD_DTYPE, f"the arrays are {found}, expected all float32 or all float16")
    if row.problem_type not in PROBLEM_CODES:
        raise RowError(RowFault.BAD_PROBLEM_TYPE, f"{row.problem_type!r}, expected one of {', '.join(PROBLEM_CODES)}")
    check_task(row.task, row.task_version)
    if row.biases.ndim != 1:
        raise RowError(RowFault.BAD_HEAD, f"the biases have shape {row.biases.shape}, expected one dimension")
    if len(row.head) > MAX_HEAD_TENSORS:
        raise RowError(RowFault.BAD_HEAD, f"{len(row.head)} tensors, expected at most {MAX_HEAD_TENSORS}")
    for index, tensor in enumerate(row.head):
        check_head_shape(index, tensor.ndim, tensor.shape)
    check_labels(row.problem_type, row.labels)
    for tensor in (row.biases, *row.head):
        check_finite(tensor)
    try:
        check_digest(row.layout_digest, "the layout digest")
    except BundleError as error:
        raise RowError(RowFault.WRONG_LAYOUT, error.message) from error


def check_task(name: str, version: int) -> None:
    """Check a task's name and version."""
    if not TASK_NAME.fullmatch(name):
        raise RowError(
            RowFault.BAD_TASK_NAME,
            f"{name!r}, expected 1 to 63 letters, digits, '.', '_' or '-', the first a letter or a digit",
        )
    if not 1 <= version <= _UINT32_MAX:
        raise RowError(RowFault.BAD_TASK_NAME, f"{name} has task version {version}, expected 1 to {_UINT32_MAX}")


def check_head_shape(index: int, rank: int, shape: Sequence[int]) -> None:
    """Check one head tensor. A limit on the product, in which a 0 counts as 1, keeps every size within 32 bits."""
    if not 1 <= rank <= MAX_HEAD_RANK:
        raise RowError(RowFault.BAD_HEAD, f"tensor {index} has rank {rank}, expected 1 to {MAX_HEAD_RANK}")
    if math.prod(dimension or 1 for dimension in shape) > _UINT32_MAX:
        raise RowError(RowFault.BAD_HEAD, f"tensor {index} has shape {list(shape)}, expected at most 2^32 - 1 values")


def check_labels(problem_type: str, labels: int) -> None:
    """Check that a task of this type can have so many labels."""
    fixed = LABEL_COUNTS.get(problem_type)
    if not 1 <= labels <= MAX_LABELS or (fixed is not None and labels != fixed):
        expected = f"1 to {MAX_LABELS}" if fixed is None else fixed
        raise RowError(RowFault.BAD_LABEL_COUNT, f"a {problem_type} task has {labels} labels, expected {expected}")


def check_finite(values: FloatArray) -> None:
    """Refuse an infinity and NaN."""
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise RowError(
            RowFault.NOT_FINITE,
            f"value {index} of {values.size} is {values.flat[index]}, expected finite numbers",
            hint="train the task again with a lower learning rate, or write the row as float32",
        )


def check_layout(row: BiasRow, layout: Layout) -> None:
    """Check rule 16, and the head against the layout's: each tensor is whole or absent, and so is each part."""
    if row.layout_digest != layout.digest:
        raise RowError(
            RowFault.WRONG_LAYOUT,
            f"the row {row.task} has layout {row.layout_digest[:12]}, expected {layout.digest[:12]}",
            hint=f"export the task {row.task} for this bundle's base model",
        )
    if row.biases.size != layout.bias_count:
        raise RowError(RowFault.WRONG_LAYOUT, f"{row.biases.size} bias values, expected {layout.bias_count}")
    if len(row.head) != len(layout.head):
        raise RowError(RowFault.BAD_HEAD, f"{len(row.head)} tensors, expected {len(layout.head)}")
    head = list(zip(layout.head, row.head, strict=True))
    absent = [_is_absent(entry, tensor) for entry, tensor in head]
    for (entry, tensor), lacks in zip(head, absent, strict=True):
        if not lacks:
            _check_head_tensor(entry, tensor, row.labels)
    parts: dict[str, bool] = {}
    for entry, lacks in zip(layout.head, absent, strict=True):
        part = entry.name.rpartition(".")[0]
        if parts.setdefault(part, lacks) != lacks:
            raise RowError(RowFault.BAD_HEAD, f"{part} has some of its tensors, expected all of them or none")


def _is_absent(entry: HeadEntry, tensor: FloatArray) -> bool:
    """Returns whether the task lacks the tensor. One with labels is never absent: many labels make a large row."""
    return LABELS not in entry.shape and tensor.shape == (0, *entry.shape[1:])


def _check_head_tensor(entry: HeadEntry, tensor: FloatArray, labels: int) -> None:
    expected = entry.resolve(labels)
    detail = f"{shown(entry.name)} has shape {list(tensor.shape)}, expected {list(expected)}"
    if tensor.ndim != len(expected):
        raise RowError(RowFault.BAD_HEAD, detail)
    for found, wanted, dimension in zip(tensor.shape, expected, entry.shape, strict=True):
        if found != wanted:
            raise RowError(RowFault.BAD_LABEL_COUNT if dimension == LABELS else RowFault.BAD_HEAD, detail)
