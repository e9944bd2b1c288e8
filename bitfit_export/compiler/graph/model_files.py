"""A model on disk, its weights in a file beside it: no limit of 2 GB, and a runtime can map them into memory."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir

__all__ = ["save_model"]


def save_model(model: onnx.ModelProto, path: Path, *, external_from: int = 1024) -> None:
    """Write a model to `path`, and its weights, aligned, to `<path>.data`.

    Args:
        external_from: bytes of the smallest tensor that goes to the second file.
    """
    onnx_ir.save(onnx_ir.from_proto(model), path, external_data=f"{path.name}.data", size_threshold_bytes=external_from)
