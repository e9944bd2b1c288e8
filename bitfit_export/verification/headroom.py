"""How much of the ranges of an int8 bundle its tasks use: a range is a constant, and a row may push beyond it.

The ranges were calibrated with the tasks that the bundle was compiled with. A row that came later may make larger
activations, which saturate. This runs the frozen model on texts with each row, and looks at what it rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfit_export.bundle import MODEL_FILE, BiasRow, Manifest
from bitfit_export.bundle.interface import ATTENTION_MASK, BIAS_TABLE, TASK_IDS
from bitfit_export.bundle.row_arrays import fill_shape, row_arrays
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.runtime import BiasSession

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

__all__ = ["Headroom", "measure_headroom"]

_BATCH, _TOKENS = 8, 128
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Headroom:
    """What one task uses of the ranges.

    Attributes:
        used: the largest activation by the largest that its range represents, of the product for which that is most;
            more than 1 where it saturates.
        product: that product's name.
        calibrated: what the tasks that the bundle was compiled with used of that product's range.
        saturated: the share of all activations that were beyond their range.
    """

    task: str
    used: float
    product: str
    calibrated: float
    saturated: float


def measure_headroom(
    folder: Path, rows: Sequence[BiasRow], texts: Sequence[str | tuple[str, str]]
) -> tuple[Headroom, ...]:
    """Run the frozen model of an int8 bundle on texts and pairs with each row.

    Args:
        folder: the bundle's.
        rows: some that fit its layout.

    Raises:
        UsageError: a bundle whose ranges are not constants, or whose program was compiled for an accelerator.
        MissingExtraError: onnx is not installed.
    """
    session = BiasSession(folder, tasks=())
    manifest = session.manifest
    if not manifest.quantization.ranges:
        raise UsageError(
            f"{folder} has no ranges that are constants, expected a bundle of int8 or int8-static",
            hint="bitfit-export --precision int8-static",
        )
    if manifest.accelerator is not None:
        raise UsageError(
            f"{folder} has a program that was compiled for an accelerator, whose activations cannot be observed",
            hint="look at the headroom of the same tasks in a bundle of --precision int8-static --target portable",
        )
    with tempfile.TemporaryDirectory() as temporary:
        observed, reads = _open_observed(folder / manifest.infer.file, Path(temporary, MODEL_FILE), manifest)
        batches = list(_batches(session, manifest, texts))
        return tuple(_measure(observed, reads, manifest, row, batches) for row in rows)


def _measure(
    observed: ort.InferenceSession,
    reads: dict[str, str],
    manifest: Manifest,
    row: BiasRow,
    batches: Sequence[dict[str, np.ndarray]],
) -> Headroom:
    inputs = {each.name for each in (*observed.get_inputs(), *observed.get_overridable_initializers())}
    fed = {name: value for name, value in _feeds_of(row, manifest).items() if name in inputs}
    used = dict.fromkeys(reads, 0.0)
    beyond = seen = 0
    for batch in batches:
        kept = batch[ATTENTION_MASK].astype(bool)
        texts = {name: value for name, value in batch.items() if name in inputs}
        for product, values in zip(reads, observed.run(list(reads.values()), fed | texts), strict=True):
            if values.shape[:2] == kept.shape and values.ndim == 3:
                values = values[kept]
            low, high = manifest.quantization.ranges[product].largest
            ends = [(values.min(), low), (values.max(), high)]
            used[product] = max(used[product], *(float(each / end) for each, end in ends if end))
            beyond += int(((values < low) | (values > high)).sum())
            seen += values.size
    most = max(used, key=lambda product: used[product])
    return Headroom(row.task, used[most], most, manifest.quantization.ranges[most].used, beyond / max(seen, 1))


def _open_observed(path: Path, copy: Path, manifest: Manifest) -> tuple[ort.InferenceSession, dict[str, str]]:
    """The model with what it rounds as outputs, and the names of these by product."""
    try:
        import onnx
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    model = onnx.load(str(path))
    reads = dict(_rounded(model, manifest))
    del model.graph.output[:]
    names = dict.fromkeys(reads.values())
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    onnx.save(model, str(copy), save_as_external_data=True, location=f"{copy.name}.data")
    options = ort.SessionOptions()
    # An optimiser would give what is rounded to kernels that round it themselves.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    return ort.InferenceSession(str(copy), options, providers=["CPUExecutionProvider"]), reads


def _rounded(model: onnx.ModelProto, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Each product whose range is a constant, with the tensor that is rounded for it."""
    for node in model.graph.node:
        product = node.name.rpartition("/")[0]
        if node.op_type == "QuantizeLinear" and product in manifest.quantization.ranges:
            yield product, node.input[0]


def _batches(
    session: BiasSession, manifest: Manifest, texts: Sequence[str | tuple[str, str]]
) -> Iterator[dict[str, np.ndarray]]:
    """Texts and pairs as the session encodes them."""
    size, longest = manifest.static_shape or (_BATCH, _TOKENS)
    for start in range(0, len(texts), size):
        chosen = [texts[(start + number) % len(texts)] for number in range(size)]
        batch = session.encode(chosen, truncate=True, max_length=min(longest, manifest.max_positions))
        if manifest.static_shape is None:
            yield batch
        else:
            more = longest - batch[ATTENTION_MASK].shape[1]
            yield {name: np.pad(values, ((0, 0), (0, more))) for name, values in batch.items()}


def _feeds_of(row: BiasRow, manifest: Manifest) -> dict[str, np.ndarray]:
    """The inputs that a row has for the model."""
    if manifest.layout_kind != "table":
        labels = max((task.label_count for task in manifest.tasks.values()), default=row.labels)
        return dict(
            row_arrays(
                row, manifest.layout, manifest.layout_kind, labels=None if manifest.static_shape is None else labels
            )
        )
    head = {
        entry.name: fill_shape(entry.resolve(row.labels), tensor)[None]
        for entry, tensor in zip(manifest.layout.head, row.head, strict=True)
    }
    feeds: dict[str, np.ndarray] = {BIAS_TABLE: row.biases.astype(np.float32)[None], TASK_IDS: np.zeros(1, np.int64)}
    return feeds | head
