"""What the scripts of `conformance/sessions` need: a bundle of their tasks, and their row files.

Every weight of a head is zero, so the logits of a task are its head's bias, whatever the text and the base model are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfit_export.bundle import BiasRow, Layout, encode_row
from bitfit_export.bundle.interface import HEAD_BIAS
from tests import traces
from tests.conftest import MakeDelta

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

SESSIONS = Path(__file__).parents[2] / "conformance" / "sessions"
ROWS: dict[str, Any] = json.loads((SESSIONS / "rows.json").read_text(encoding="utf-8"))
SCRIPTS: dict[str, Any] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(SESSIONS.glob("*.json"))
    if path.name != "rows.json"
}
#: (name, layout) of each script and each layout that it is for.
RUNS = [(name, layout) for name in SCRIPTS for layout in SCRIPTS[name].get("layouts", ["table", "packed", "named"])]
#: Scores in the scripts have nine digits.
TOLERANCE = 1e-8


def session_bundle(base: BaseModel, make_delta: MakeDelta, layout: str, *, target: str = "ort") -> Path:
    """Returns the folder of a bundle of the scripts' tasks."""
    from bitfit_export.compiler import CompileOptions

    deltas = {}
    for name, task in ROWS["bundle"].items():
        delta = make_delta(base, name, labels=task["labels"], problem_type=task["problem_type"])
        weight = np.zeros_like(delta.head["classifier.weight"])
        bias = np.array(task["logits"], np.float32)
        deltas[name] = replace(delta, head={"classifier.weight": weight, "classifier.bias": bias})
    return traces.bundle_of(base, deltas, CompileOptions(layout=layout, target=target))


def save_rows(layout: Layout, folder: Path) -> dict[str, Path]:
    """Write the scripts' row files into `folder`. Returns their paths by name."""
    paths = {}
    for name, row in ROWS["rows"].items():
        paths[name] = folder / f"{name}.bias"
        paths[name].write_bytes(row_bytes(layout, row))
    return paths


def row_bytes(layout: Layout, row: dict[str, Any]) -> bytes:
    """The bytes of a row file, damaged where the row says so."""
    dtype, logits = np.dtype(row.get("dtype", "float32")), row["logits"]
    head = [np.zeros(shape, dtype) for shape in layout.head_shapes(len(logits))]
    head[[entry.name for entry in layout.head].index(HEAD_BIAS)][:] = logits
    data = bytearray(
        encode_row(
            BiasRow(
                task=row["task"],
                problem_type=row["problem_type"],
                labels=row.get("label_count", len(logits)),
                task_version=row["task_version"],
                layout_digest="0" * 64 if row.get("other_layout") else layout.digest,
                biases=np.zeros(layout.bias_count, dtype),
                head=tuple(head),
            )
        )
    )
    if "flip" in row:
        data[row["flip"]] ^= 1
    cut = row.get("cut", 0)
    return bytes(data[: max(0, len(data) - cut)] + b"\0" * -cut)


def batch_of(step: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a run: those of the step, or as many items of four tokens as it says, the last token padding."""
    if "items" not in step:
        return {key: step[key] for key in ("input_ids", "attention_mask")}
    return {"input_ids": [[2, 5, 3, 0]] * step["items"], "attention_mask": [[1, 1, 1, 0]] * step["items"]}


def with_infinity(logits: Any) -> Any:
    """Nested lists of logits, in which null stands for -infinity."""
    if isinstance(logits, list):
        return [with_infinity(each) for each in logits]
    return -np.inf if logits is None else logits
