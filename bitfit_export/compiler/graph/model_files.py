"""A model on disk, its weights in a file beside it: no limit of 2 GB, and a runtime can map them into memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir
from onnx import numpy_helper

from bitfit_export.bundle.interface import MODEL_FILE

__all__ = ["save_model", "write_model", "write_sharing"]

#: Smaller tensors stay in the model file. ONNX Runtime infers shapes from some of them (the sizes of the bias terms,
#: 8 bytes each) and cannot do so from a file beside it.
_EXTERNAL_FROM_BYTES = 64 * 1024
#: Larger than the pages of any system that maps files, so a tensor at a multiple of it can be mapped.
_PAGE = 65536


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


def write_sharing(model: onnx.ModelProto, path: Path, other: Path) -> None:
    """Write a model whose large tensors are those of another model's file of weights, which gets what it lacks.

    Args:
        other: a model that `save_model` wrote into the same folder.

    Raises:
        OSError: a file cannot be written.
    """
    stored = onnx.load(other, load_external_data=False).graph.initializer
    weights = path.with_name(f"{other.name}.data")
    places: dict[tuple[int, tuple[int, ...], bytes], tuple[int, int]] = {}
    smallest = min((_place(each)[1] for each in stored if _is_external(each)), default=0)
    with open(weights, "r+b") as file:
        for tensor in filter(_is_external, stored):
            start, size = _place(tensor)
            file.seek(start)
            places[_content(tensor, file.read(size))] = start, size
        sharing = onnx.ModelProto()
        sharing.CopyFrom(model)
        for tensor in sharing.graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if not smallest or len(data) < smallest:
                continue
            key = _content(tensor, data)
            if key not in places:
                places[key] = _append(file, data), len(data)
            _refer(tensor, weights.name, *places[key])
    path.write_bytes(sharing.SerializeToString())


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _place(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Where the bytes of a tensor are in its file: the first, and their number."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries["length"])


def _content(tensor: onnx.TensorProto, data: bytes) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), hashlib.sha256(data).digest()


def _append(file: BinaryIO, data: bytes) -> int:
    """Adds bytes at the next place at which a page may begin, and returns that place."""
    end = file.seek(0, os.SEEK_END)
    start = -(-end // _PAGE) * _PAGE
    file.write(bytes(start - end) + data)
    return start


def _refer(tensor: onnx.TensorProto, location: str, start: int, size: int) -> None:
    name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, kind, onnx.TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    for key, value in (("location", location), ("offset", str(start)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
