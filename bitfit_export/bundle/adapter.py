"""A row as an `.onnx_adapter`: the file that ONNX Runtime's own `LoraAdapter` reads, in the layout `named`.

It holds the arrays of `row_arrays` by the names of their graph inputs, float32. Unlike a row it does not say for which
model it was made, and has no checksum: the manifest's SHA-256 is all that tells a good one from another. Needs
onnxruntime.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bitfit_export.bundle.layout import Layout
from bitfit_export.bundle.row import BiasRow
from bitfit_export.bundle.row_arrays import row_arrays
from bitfit_export.errors import BundleError
from bitfit_export.files import write_bytes

__all__ = ["MODEL_VERSION", "adapter_file", "write_adapter"]

#: Stored in every adapter; nothing compares it with anything.
MODEL_VERSION = 1
_INT32_MAX = 2**31 - 1


def adapter_file(task: str) -> str:
    """Returns the path of a task's adapter in its bundle."""
    return f"tasks/{task}.onnx_adapter"


def write_adapter(path: Path, row: BiasRow, layout: Layout, *, labels: int | None = None) -> None:
    """Write the adapter of a row atomically, replacing one that is there. The same row gives the same bytes.

    Args:
        row: one that was compared with `layout`.
        layout: of a frozen model with the layout `named`; for Python's `LoraAdapter` an overridable one.
        labels: the number of labels that the graph's head inputs have, where it is fixed; by default the row's.

    Raises:
        BundleError: a task version that an adapter can't hold.
        OutputError: the file cannot be written; the old one is untouched.
    """
    import onnxruntime as ort

    if row.task_version > _INT32_MAX:
        raise BundleError(f"the row {row.task} has version {row.task_version}, expected at most {_INT32_MAX}")
    arrays = row_arrays(row, layout, "named", labels=labels)
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(row.task_version)
    adapter.set_model_version(MODEL_VERSION)
    adapter.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        adapter.export_adapter(str(temporary))
        write_bytes(path, temporary.read_bytes())
