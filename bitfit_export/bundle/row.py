"""The row file: one task's bias values and head. `docs/bias_row.md` is its specification.

The header has fixed offsets, which `row_format` lists. The payload is N bias values, then the head tensors in order,
each in C order, with nothing between. The file ends where it ends. A reader checks everything before it makes a row, so
half a row does not exist.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.layout import Layout
from bitfit_export.bundle.regular_files import CheckBytes, read_file
from bitfit_export.bundle.row_format import (
    DTYPES,
    FORMAT_VERSION,
    HEADER,
    HEADER_CHECKSUM_AT,
    HEADER_SIZE,
    MAGIC,
    MAX_HEAD_RANK,
    MAX_HEAD_TENSORS,
    MAX_ROW_SIZE,
    PROBLEM_CODES,
    SLOT,
    TASK_NAME,
    Header,
)
from bitfit_export.bundle.row_rules import (
    check_finite,
    check_head_shape,
    check_labels,
    check_layout,
    check_row,
    check_task,
)
from bitfit_export.errors import BundleError, RowError, RowFault
from bitfit_export.files import write_bytes

__all__ = [
    "FORMAT_VERSION",
    "HEADER_SIZE",
    "MAGIC",
    "MAX_ROW_SIZE",
    "PROBLEM_CODES",
    "TASK_NAME",
    "BiasRow",
    "decode_row",
    "encode_row",
    "read_row",
    "write_row",
]

FloatArray: TypeAlias = NDArray[np.floating[Any]]

_PROBLEM_TYPES = {code: name for name, code in PROBLEM_CODES.items()}
_DTYPES: dict[int, np.dtype[np.floating[Any]]] = {code: np.dtype(name) for code, name in DTYPES.items()}
_DTYPE_CODES = {dtype.newbyteorder("="): code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True, eq=False)
class BiasRow:
    """One task's values, all float32 or all float16.

    Arrays become read-only and C-contiguous; one that could be written to is copied, so a row never changes.

    Attributes:
        task: 1 to 63 letters, digits, `.`, `_` or `-`; the first is a letter or a digit.
        problem_type: a key of `PROBLEM_CODES`.
        labels: the number of head outputs, 1 to 65,536: 1 for a regression, 2 for a span.
        task_version: from 1; a newer row of the same task has a larger one.
        layout_digest: 64 lower-case hexadecimal digits.
        biases: [N], in layout order.
        head: at most 16 tensors of rank 1 to 3, in layout order. One whose first dimension is 0 is absent: the task
            lacks it.
    """

    task: str
    problem_type: str
    labels: int
    task_version: int
    layout_digest: str
    biases: FloatArray
    head: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "biases", _read_only(self.biases))
        object.__setattr__(self, "head", tuple(_read_only(tensor) for tensor in self.head))

    @property
    def file_size(self) -> int:
        """The size of the row's file, in bytes."""
        return HEADER_SIZE + sum(tensor.nbytes for tensor in (self.biases, *self.head))


def encode_row(row: BiasRow) -> bytes:
    """The row file's bytes. The same row gives the same bytes, and `decode_row` takes them.

    Raises:
        RowError: the row breaks a rule of the format; `fault` is the one that a reader would give. A layout digest
            that is not a digest is WRONG_LAYOUT.
    """
    check_row(row)
    dtype = _DTYPE_CODES[row.biases.dtype]
    if row.file_size > MAX_ROW_SIZE:
        raise RowError(RowFault.TRAILING_BYTES, f"the row needs {row.file_size} bytes, expected at most {MAX_ROW_SIZE}")
    tensors = (row.biases, *row.head)
    payload = b"".join(tensor.astype(_DTYPES[dtype], copy=False).tobytes() for tensor in tensors)
    slots = [SLOT.pack(tensor.ndim, *tensor.shape, *(0,) * (MAX_HEAD_RANK - tensor.ndim)) for tensor in row.head]
    header = Header(
        magic=MAGIC,
        version=FORMAT_VERSION,
        header_size=HEADER_SIZE,
        flags=0,
        dtype=dtype,
        file_size=HEADER_SIZE + len(payload),
        layout_digest=bytes.fromhex(row.layout_digest),
        bias_count=row.biases.size,
        head_count=len(row.head),
        labels=row.labels,
        problem_type=PROBLEM_CODES[row.problem_type],
        task_version=row.task_version,
        payload_checksum=google_crc32c.value(payload),
        task=row.task.encode("utf-8"),
        head_table=b"".join(slots),  # struct pads both byte fields with zeros
        reserved=b"",
        header_checksum=0,
    )
    body = HEADER.pack(*header)[:HEADER_CHECKSUM_AT]
    return body + struct.pack("<I", google_crc32c.value(body)) + payload


def decode_row(data: bytes | memoryview, *, layout: Layout | None = None) -> BiasRow:
    """Check all of a row file and give its row. The arrays view `data` where it is read-only, else they are copies.

    Args:
        data: the whole file.
        layout: the frozen model's; the row must then fit it.

    Raises:
        RowError: the first rule that the file breaks, in the order of `RowFault`. A row that fits another layout is
            WRONG_LAYOUT; one that names this layout but has another head is BAD_HEAD or BAD_LABEL_COUNT.
    """
    view = memoryview(data).cast("B")
    header = _read_header(view)
    if header.flags or any(header.reserved):
        raise RowError(
            RowFault.UNKNOWN_FLAG,
            f"flags 0x{header.flags:08x} and reserved bytes {header.reserved.hex()}, expected all zero",
            hint="update bitfit-export to read this row",
        )
    if header.dtype not in _DTYPES:
        raise RowError(RowFault.BAD_DTYPE, f"code {header.dtype}, expected 1 (float32) or 10 (float16)")
    if header.problem_type not in _PROBLEM_TYPES:
        raise RowError(RowFault.BAD_PROBLEM_TYPE, f"code {header.problem_type}, expected 1 to {len(_PROBLEM_TYPES)}")
    problem_type = _PROBLEM_TYPES[header.problem_type]
    task = _read_task(header)
    shapes = _read_head_table(header)
    check_labels(problem_type, header.labels)
    values = _read_payload(view, header, shapes)
    tensors, start = [], header.bias_count
    for shape in shapes:
        size = math.prod(shape)
        tensors.append(values[start : start + size].reshape(shape))
        start += size
    row = BiasRow(
        task=task,
        problem_type=problem_type,
        labels=header.labels,
        task_version=header.task_version,
        layout_digest=header.layout_digest.hex(),
        biases=values[: header.bias_count],
        head=tuple(tensors),
    )
    if layout is not None:
        check_layout(row, layout)
    return row


def read_row(path: Path, *, layout: Layout | None = None, check: CheckBytes | None = None) -> BiasRow:
    """Read and check a row file.

    Args:
        layout: as `decode_row`.
        check: is given the bytes and their path before anything of them is used, and raises to refuse them.

    Raises:
        BundleError: the file cannot be read.
        RowError: as `decode_row`, with the path in the message.
    """
    return decode_file(read_row_file(path, check=check), path, layout=layout)


def read_row_file(path: Path, *, check: CheckBytes | None = None) -> bytes:
    """Returns the bytes of a row file, of which nothing was checked but what `check` does.

    Raises:
        BundleError: the file cannot be read; RowError, if it is too large.
    """
    try:
        data = read_file(path, limit=MAX_ROW_SIZE)
    except BundleError as error:
        raise RowError(RowFault.TRAILING_BYTES, error.message) from error
    except OSError as error:
        raise BundleError(
            f"the row {path} cannot be read: {error.strerror or error}",
            hint="expected a .bias file that bitfit-export wrote",
        ) from error
    if check is not None:
        check(data, path)
    return data


def decode_file(data: bytes, path: Path, *, layout: Layout | None = None) -> BiasRow:
    """Returns the row that these bytes of the file at `path` are.

    Raises:
        RowError: as `decode_row`, with the path in the message.
    """
    try:
        return decode_row(data, layout=layout)
    except RowError as error:
        detail = error.message.removeprefix(f"{error.fault.value}: ")
        raise RowError(error.fault, f"{path}: {detail}", hint=error.hint) from error


def write_row(path: Path, row: BiasRow) -> None:
    """Write a row file atomically, replacing one that is there.

    Raises:
        RowError: as `encode_row`; nothing is written.
        OutputError: the file cannot be written; the old one is untouched.
    """
    write_bytes(path, encode_row(row))


def _read_header(view: memoryview) -> Header:
    """Rules 1 to 5: is this a whole header of this format, as it was written?"""
    if len(view) < HEADER_SIZE:
        raise RowError(RowFault.TRUNCATED_HEADER, f"the file has {len(view)} bytes, expected at least {HEADER_SIZE}")
    header = Header._make(HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise RowError(
            RowFault.BAD_MAGIC,
            f"the file starts with {header.magic.hex(' ')}, expected {MAGIC.hex(' ')}",
            hint="expected a .bias file that bitfit-export wrote, copied as binary",
        )
    if header.version != FORMAT_VERSION:
        raise RowError(
            RowFault.BAD_VERSION,
            f"version {header.version}, expected {FORMAT_VERSION}",
            hint="use the release of bitfit-export that wrote this row, or export the task again",
        )
    if header.header_size != HEADER_SIZE:
        raise RowError(RowFault.BAD_HEADER_SIZE, f"{header.header_size} bytes, expected {HEADER_SIZE}")
    checksum = google_crc32c.value(bytes(view[:HEADER_CHECKSUM_AT]))
    if header.header_checksum != checksum:
        raise RowError(
            RowFault.BAD_HEADER_CHECKSUM,
            f"the header says 0x{header.header_checksum:08x}, its bytes give 0x{checksum:08x}",
            hint="copy the row again",
        )
    return header


def _read_task(header: Header) -> str:
    """Rule 9. Bytes after the name must be zero, so that a name has one spelling."""
    name = header.task.rstrip(b"\0").decode("latin-1")
    check_task(name, header.task_version)
    return name


def _read_head_table(header: Header) -> list[tuple[int, ...]]:
    """Rule 10. The head tensors' shapes."""
    if header.head_count > MAX_HEAD_TENSORS:
        raise RowError(RowFault.BAD_HEAD, f"{header.head_count} tensors, expected at most {MAX_HEAD_TENSORS}")
    shapes = []
    for index, (rank, *dimensions) in enumerate(SLOT.iter_unpack(header.head_table)):
        unused = [rank, *dimensions]
        if index < header.head_count:
            check_head_shape(index, rank, dimensions[:rank])
            shapes.append(tuple(dimensions[:rank]))
            unused = dimensions[rank:]
        if any(unused):
            raise RowError(RowFault.BAD_HEAD, f"slot {index} has {unused} where nothing is used, expected zeros")
    return shapes


def _read_payload(view: memoryview, header: Header, shapes: Sequence[tuple[int, ...]]) -> FloatArray:
    """Rules 12 to 15. All values, in one array [N + head values].

    The size that the counts need, the one that the header states and the one at hand must be equal. They are compared
    as Python integers, which don't overflow, before anything of that size is made.
    """
    dtype = _DTYPES[header.dtype]
    count = header.bias_count + sum(math.prod(shape) for shape in shapes)
    expected = HEADER_SIZE + dtype.itemsize * count
    detail = f"the file has {len(view)} bytes and states {header.file_size}, expected {expected} for {count} values"
    if min(len(view), header.file_size) < expected:
        raise RowError(RowFault.TRUNCATED, detail, hint="copy the row again")
    if max(len(view), header.file_size) > min(expected, MAX_ROW_SIZE):
        raise RowError(RowFault.TRAILING_BYTES, f"{detail} and at most {MAX_ROW_SIZE}", hint="copy the row again")
    payload = view[HEADER_SIZE:]
    checksum = google_crc32c.value(np.frombuffer(payload, np.uint8)) if len(payload) else 0
    if header.payload_checksum != checksum:
        raise RowError(
            RowFault.BAD_PAYLOAD_CHECKSUM,
            f"the header says 0x{header.payload_checksum:08x}, the payload gives 0x{checksum:08x}",
            hint="copy the row again",
        )
    values: FloatArray = np.frombuffer(payload, dtype)
    check_finite(values)
    return values


def _read_only(values: FloatArray) -> FloatArray:
    array = np.asarray(values, order="C")
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
