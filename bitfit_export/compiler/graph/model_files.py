"""A model on disk, its weights in a file beside it: no limit of 2 GB, and a runtime can map them into memory."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir

from bitfit_export.bundle.interface import MODEL_FILE

__all__ = ["save_model", "write_model"]

#: Smaller tensors stay in the model file. ONNX Runtime infers shapes from some of them (the sizes of the bias terms,
#: 8 bytes each) and cannot do so from a file beside it.
_EXTERNAL_FROM_BYTES = 64 * 1024


def save_model(model: onnx.ModelProto, path: Path, *, external_from: int = 1024) -> None:
    """Write a model to `path`, and its weights, aligned, to `<path>.data`.

    Args:
        external_from: bytes of the smallest tensor that goes to the second file.
    """
    onnx_ir.save(onnx_ir.from_proto(model), path, external_data=f"{path.name}.data", size_threshold_bytes=external_from)


def write_model(model: onnx.ModelProto, folder: Path, name: str = MODEL_FILE) -> tuple[str, str]:
    """Write a bundle's model and its weights beside it, aligned, so that a runtime can map them into memory.

    Returns:
        The names of the two files.
    """
    save_model(model, folder / name, external_from=_EXTERNAL_FROM_BYTES)
    return name, f"{name}.data"
