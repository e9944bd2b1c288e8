"""The numbers of the row format, version 1: `docs/bias_row.md`.

The header, all of it little-endian:

     1.     0    8 bytes  magic
     2.     8    4 bytes  format version
     3.    12    4 bytes  header size, and the payload's offset
     4.    16    4 bytes  flags
     5.    20    4 bytes  dtype of all values, ONNX's code
     6.    24    8 bytes  file size in bytes
     7.    32   32 bytes  layout digest
     8.    64    4 bytes  number of bias values, N
     9.    68    4 bytes  number of head tensors, H
    10.    72    4 bytes  number of labels
    11.    76    4 bytes  problem type
    12.    80    4 bytes  task version
    13.    84    4 bytes  CRC-32C of the payload
    14.    88   64 bytes  task name, UTF-8
    15.   152  256 bytes  head tensors, one slot each
    16.   408   36 bytes  reserved
    17.   444    4 bytes  CRC-32C of bytes 0 to 443

spec/generate.py makes this module from spec/row.toml.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

MAGIC = b"\x89\x42\x46\x52\x0d\x0a\x1a\x0a"
FORMAT_VERSION = 1
HEADER_SIZE = 448
#: Of a file, in bytes.
MAX_ROW_SIZE = 1073741824
#: Of a task: every head tensor of every loaded task is as wide as the widest task needs.
MAX_LABELS = 65536
#: Slots for head tensors in the header, and dimensions in each.
MAX_HEAD_TENSORS = 16
MAX_HEAD_RANK = 3
#: What a task name looks like: a file name on every system, and no path.
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: numpy's type by the code of a dtype, which is ONNX's.
DTYPES = {1: "<f4", 10: "<f2"}
PROBLEM_CODES = {"single_label": 1, "multi_label": 2, "regression": 3, "token": 4, "span": 5}
#: Problem types whose number of labels is fixed.
FIXED_LABEL_COUNTS = {"regression": 1, "span": 2}

# Where each field begins.
MAGIC_AT = 0
VERSION_AT = 8
HEADER_SIZE_AT = 12
FLAGS_AT = 16
DTYPE_AT = 20
FILE_SIZE_AT = 24
LAYOUT_DIGEST_AT = 32
BIAS_COUNT_AT = 64
HEAD_COUNT_AT = 68
LABELS_AT = 72
PROBLEM_TYPE_AT = 76
TASK_VERSION_AT = 80
PAYLOAD_CHECKSUM_AT = 84
TASK_AT = 88
HEAD_TABLE_AT = 152
RESERVED_AT = 408
HEADER_CHECKSUM_AT = 444

HEADER = struct.Struct("<8sIIIIQ32sIIIIII64s256s36sI")
#: A slot of the head table: rank and dimensions.
SLOT = struct.Struct("<4I")


class Header(NamedTuple):
    """The header's 17 fields, in order."""

    magic: bytes
    version: int
    header_size: int
    flags: int
    dtype: int
    file_size: int
    layout_digest: bytes
    bias_count: int
    head_count: int
    labels: int
    problem_type: int
    task_version: int
    payload_checksum: int
    task: bytes
    head_table: bytes
    reserved: bytes
    header_checksum: int
