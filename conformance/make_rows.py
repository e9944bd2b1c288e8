"""Make the golden rows: good files, and at least one bad file for each fault of a row.

    python conformance/make_rows.py

`rows/` has the files that a reader judges by themselves, `heads/` those that it judges with the whole layout: the head
tensors of each are right or wrong in another way. The bytes come from `docs/bias_row.md` by `struct` alone. Nothing of
bitfit_export is imported, and the checksum is the bitwise one, so these files judge the product's writer and readers
and not the other way round. The `index.json` of a folder says for each file which fault a reader must give (null:
none), and holds the layout that the rows are for.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

BASE_DIGEST = hashlib.sha256(b"a base model of hidden size 4").hexdigest()
BIASES = [
    {"name": "encoder.layer.0.attention.output.dense.bias", "shape": [4], "offset": 0},
    {"name": "encoder.layer.0.output.dense.bias", "shape": [4], "offset": 4},
]
HEAD = [
    {"name": "head.pooling", "shape": [3]},
    {"name": "head.classifier.weight", "shape": ["labels", 4]},
    {"name": "head.classifier.bias", "shape": ["labels"]},
]
POOLINGS = ["pooler", "cls", "mean"]

#: Of a model whose tasks may have a dense layer, and choose between it and none.
DENSE_HEAD = [
    {"name": "head.pooling", "shape": [3]},
    {"name": "head.dense.weight", "shape": [4, 4]},
    {"name": "head.dense.bias", "shape": [4]},
    {"name": "head.choice", "shape": [2]},
    {"name": "head.classifier.weight", "shape": ["labels", 4]},
    {"name": "head.classifier.bias", "shape": ["labels"]},
]
MAX_LABELS = 65_536

#: All of these are exact in float16.
BIAS_VALUES = [0.5, -1.25, 0.0, 3.0, -0.0625, 2.0, -7.5, 0.125]
HEAD_SHAPES = [(3,), (2, 4), (2,)]
HEAD_VALUES = [1.0, 0.0, 0.0, 0.25, -0.5, 0.75, -1.0, 1.25, -1.5, 1.75, -2.0, 0.03125, -0.03125]
FLOAT32, FLOAT16 = 1, 10


def crc32c(data: bytes) -> int:
    """CRC-32C, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def layout_digest(head: list[dict[str, Any]] = HEAD) -> bytes:
    """SHA-256 of the layout's text."""
    text = b"bitfit-layout-1\n" + bytes.fromhex(BASE_DIGEST)
    for bias in BIASES:
        text += f"bias\0{bias['name']}\0{','.join(map(str, bias['shape']))}\0{bias['offset']}\n".encode()
    for tensor in head:
        text += f"head\0{tensor['name']}\0{','.join(map(str, tensor['shape']))}\n".encode()
    for pooling in POOLINGS:
        text += f"pooling\0{pooling}\n".encode()
    return hashlib.sha256(text).digest()


def make_row(dtype: int = FLOAT32, values: list[float] | None = None) -> bytearray:
    """A good row."""
    values = BIAS_VALUES + HEAD_VALUES if values is None else values
    return write_row(layout_digest(), HEAD_SHAPES, values, dtype=dtype)


def write_row(
    digest: bytes, shapes: list[tuple[int, ...]], values: list[float], *, dtype: int = FLOAT32, labels: int = 2
) -> bytearray:
    """A row, one field after the other in the order of the specification."""
    payload = struct.pack(f"<{len(values)}{'f' if dtype == FLOAT32 else 'e'}", *values)
    row = bytearray()
    row += bytes([0x89, 0x42, 0x46, 0x52, 0x0D, 0x0A, 0x1A, 0x0A])  # magic
    row += struct.pack("<I", 1)  # format version
    row += struct.pack("<I", 448)  # header size
    row += struct.pack("<I", 0)  # flags
    row += struct.pack("<I", dtype)
    row += struct.pack("<Q", 448 + len(payload))  # file size
    row += digest
    row += struct.pack("<I", len(BIAS_VALUES))
    row += struct.pack("<I", len(shapes))
    row += struct.pack("<I", labels)
    row += struct.pack("<I", 1)  # problem type: single_label
    row += struct.pack("<I", 7)  # task version
    row += struct.pack("<I", crc32c(payload))
    row += b"sst-2".ljust(64, b"\0")
    for shape in shapes:
        row += struct.pack("<4I", len(shape), *shape, *[0] * (3 - len(shape)))
    row += bytes(444 - len(row))  # unused slots and reserved bytes
    row += struct.pack("<I", crc32c(bytes(row)))
    return row + payload


def change(at: int, value: bytes) -> bytes:
    """A good float32 row with other bytes at `at`, and a header checksum that agrees with them."""
    row = make_row()
    row[at : at + len(value)] = value
    row[444:448] = struct.pack("<I", crc32c(bytes(row[:444])))
    return bytes(row)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def bad_rows() -> dict[str, bytes]:
    """One file for each fault, by the fault's name. Each is wrong in that way only."""
    good = bytes(make_row())
    last_bit = bytes([good[-1] ^ 1])
    return {
        "TRUNCATED_HEADER": good[:447],
        "BAD_MAGIC": change(4, b"\n\n\x1a\n"),  # a text-mode copy turned 0D 0A into 0A
        "BAD_VERSION": change(8, u32(2)),
        "BAD_HEADER_SIZE": change(12, u32(512)),
        "BAD_HEADER_CHECKSUM": good[:80] + u32(8) + good[84:],
        "UNKNOWN_FLAG": change(16, u32(1)),
        "BAD_DTYPE": change(20, u32(16)),  # ONNX's bfloat16
        "BAD_PROBLEM_TYPE": change(76, u32(6)),
        "BAD_TASK_NAME": change(88, b"../sst"),
        "BAD_HEAD": change(152, u32(4)),
        "BAD_LABEL_COUNT": change(76, u32(3)),  # a regression with two labels
        "TRUNCATED": good[:-4],
        "TRAILING_BYTES": good + b"\0",
        "BAD_PAYLOAD_CHECKSUM": good[:-1] + last_bit,
        "NOT_FINITE": bytes(make_row(values=[float("nan"), *BIAS_VALUES[1:], *HEAD_VALUES])),
        "WRONG_LAYOUT": change(32, hashlib.sha256(b"another layout").digest()),
    }


#: Head shapes for `DENSE_HEAD`, and the fault that the layout finds in them.
HEADS: dict[str, tuple[str | None, int, list[tuple[int, ...]]]] = {
    "dense": (None, 2, [(3,), (4, 4), (4,), (2,), (2, 4), (2,)]),
    "linear": (None, 2, [(3,), (0, 4), (0,), (2,), (2, 4), (2,)]),
    "one_label": (None, 1, [(3,), (0, 4), (0,), (2,), (1, 4), (1,)]),
    "many_labels": (None, 300, [(3,), (0, 4), (0,), (2,), (300, 4), (300,)]),
    "short_weight": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 3), (2,)]),
    "long_weight": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 5), (2,)]),
    "short_pooling": ("BAD_HEAD", 2, [(2,), (0, 4), (0,), (2,), (2, 4), (2,)]),
    "rank": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 4, 1), (2,)]),
    "one_tensor_less": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 4)]),
    "one_tensor_more": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 4), (2,), (2,)]),
    "empty_columns": ("BAD_HEAD", 2, [(3,), (4, 0), (0,), (2,), (2, 4), (2,)]),
    "empty_dense": ("BAD_HEAD", 2, [(3,), (0, 0), (0,), (2,), (2, 4), (2,)]),
    "wide_absent": ("BAD_HEAD", 2, [(3,), (0, 2**31), (0,), (2,), (2, 4), (2,)]),
    "dense_without_bias": ("BAD_HEAD", 2, [(3,), (4, 4), (0,), (2,), (2, 4), (2,)]),
    "dense_without_weight": ("BAD_HEAD", 2, [(3,), (0, 4), (4,), (2,), (2, 4), (2,)]),
    "no_pooling": ("BAD_HEAD", 2, [(0,), (0, 4), (0,), (2,), (2, 4), (2,)]),
    "labels_without_columns": ("BAD_HEAD", 2, [(3,), (0, 4), (0,), (2,), (2, 0), (2,)]),
    # Small files that would make room for many labels.
    "wide_empty": ("BAD_HEAD", MAX_LABELS, [(3,), (0, 4), (0,), (2,), (MAX_LABELS, 0), (0,)]),
    "wide_without_weight": ("BAD_LABEL_COUNT", MAX_LABELS, [(3,), (0, 4), (0,), (2,), (0, 4), (0,)]),
    "wide_too_wide": ("BAD_LABEL_COUNT", MAX_LABELS + 1, [(3,), (0, 4), (0,), (2,), (MAX_LABELS + 1, 0), (0,)]),
    "widest": ("BAD_LABEL_COUNT", 2**32 - 1, [(3,), (0, 4), (0,), (2,), (2**32 - 1, 0), (0,)]),
    "no_classifier": ("BAD_LABEL_COUNT", 2, [(3,), (0, 4), (0,), (2,), (0, 4), (0,)]),
    "no_classifier_bias": ("BAD_LABEL_COUNT", 2, [(3,), (0, 4), (0,), (2,), (2, 4), (0,)]),
    "no_classifier_weight": ("BAD_LABEL_COUNT", 2, [(3,), (0, 4), (0,), (2,), (0, 4), (2,)]),
    "fewer_labels": ("BAD_LABEL_COUNT", 3, [(3,), (0, 4), (0,), (2,), (2, 4), (2,)]),
    "more_labels": ("BAD_LABEL_COUNT", 2, [(3,), (0, 4), (0,), (2,), (3, 4), (3,)]),
    "labels_differ": ("BAD_LABEL_COUNT", 3, [(3,), (0, 4), (0,), (2,), (3, 4), (2,)]),
}


def build() -> dict[str, bytes]:
    """Every file of the folder `rows`, by name."""
    rows = {"good_float32.bias": bytes(make_row(FLOAT32)), "good_float16.bias": bytes(make_row(FLOAT16))}
    faults: dict[str, str | None] = dict.fromkeys(rows)
    for fault, data in bad_rows().items():
        name = f"bad_{fault.removeprefix('BAD_').lower()}.bias"
        rows[name] = data
        faults[name] = fault
    rows["bad_too_many_labels.bias"] = change(72, u32(MAX_LABELS + 1))
    faults["bad_too_many_labels.bias"] = "BAD_LABEL_COUNT"
    return rows | {"index.json": index_of(HEAD, faults)}


def build_heads() -> dict[str, bytes]:
    """Every file of the folder `heads`, by name."""
    rows, faults = {}, {}
    for what, (fault, labels, shapes) in HEADS.items():
        values = BIAS_VALUES + [0.25 * (i % 7) for i in range(sum(map(math.prod, shapes)))]
        name = f"{'good' if fault is None else 'bad'}_{what}.bias"
        rows[name] = bytes(write_row(layout_digest(DENSE_HEAD), shapes, values, labels=labels))
        faults[name] = fault
    return rows | {"index.json": index_of(DENSE_HEAD, faults)}


def index_of(head: list[dict[str, Any]], faults: dict[str, str | None]) -> bytes:
    layout = {"base_digest": BASE_DIGEST, "biases": BIASES, "head": head, "poolings": POOLINGS}
    index = {"layout": layout, "layout_digest": layout_digest(head).hex(), "rows": faults}
    return json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"


if __name__ == "__main__":
    for folder, files in {"rows": build(), "heads": build_heads()}.items():
        (HERE / folder).mkdir(exist_ok=True)
        for name, data in files.items():
            (HERE / folder / name).write_bytes(data)
