"""Tensors of the Open Inference Protocol: as JSON, and as bytes behind the JSON where a client asks for it.

The protocol is that of KServe's `open-inference-protocol`, REST, version 2; the bytes are those of Triton's binary data
extension, which its clients use unless told otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from bitfit_export.errors import InputError, quoted

__all__ = ["InferInput", "InferOutput", "InferRequest", "read_texts", "write_outputs"]

BYTES = "BYTES"
_DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64", np.dtype(object): BYTES}
_LENGTH = struct.Struct("<I")


class InferInput(BaseModel):
    """An input tensor."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class InferOutput(BaseModel):
    """An output tensor that is wanted."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON of a request. `parameters` may have `truncate`, and `binary_data_output` of the binary extension."""

    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InferInput] = Field(min_length=1, max_length=8)
    outputs: list[InferOutput] | None = None

    def is_binary(self, output: str) -> bool:
        """Whether an output is sent as bytes."""
        asked = next((each for each in self.outputs or () if each.name == output), None)
        default = bool(self.parameters.get("binary_data_output", False))
        return default if asked is None else bool(asked.parameters.get("binary_data", default))


def read_texts(request: InferRequest, binary: bytes) -> dict[str, list[str]]:
    """The texts of each input.

    Args:
        binary: what follows the JSON: the data of the inputs that have `binary_data_size`, one after the other.

    Raises:
        InputError: an input of another datatype or shape, or whose data is not what its shape says.
    """
    texts: dict[str, list[str]] = {}
    start = 0
    for each in request.inputs:
        if each.datatype != BYTES:
            raise InputError(
                f"the input {quoted(each.name)} has the datatype {quoted(each.datatype)}, expected {BYTES}"
            )
        count = _count(each)
        size = each.parameters.get("binary_data_size")
        if size is None:
            found = _from_json(each)
        else:
            if type(size) is not int or size < 0 or start + size > len(binary):
                raise InputError(f"the input {quoted(each.name)} has a binary_data_size that the body does not have")
            found = list(_from_bytes(binary[start : start + size], each.name))
            start += size
        if len(found) != count:
            raise InputError(f"the input {quoted(each.name)} has {len(found)} elements, expected {count} by its shape")
        if each.name in texts:
            raise InputError(f"the input {quoted(each.name)} is there twice")
        texts[each.name] = found
    if start != len(binary):
        raise InputError(f"{len(binary) - start} bytes follow the tensors, expected none")
    return texts


def write_outputs(request: InferRequest, arrays: dict[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """The outputs that are wanted: their JSON, and the bytes that follow it.

    Args:
        arrays: all outputs, float32, int64 or, for text, object.

    Raises:
        InputError: an output is wanted that the task does not have.
    """
    names = [each.name for each in request.outputs] if request.outputs else list(arrays)
    described, parts = [], []
    for name in names:
        if name not in arrays:
            raise InputError(f"there is no output {quoted(name)}, expected one of {', '.join(arrays)}")
        values = arrays[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES[values.dtype],
            "shape": list(values.shape),
        }
        if request.is_binary(name):
            data = _to_bytes(values)
            tensor["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            tensor["data"] = values.ravel().tolist()
        described.append(tensor)
    return described, b"".join(parts)


def _count(tensor: InferInput) -> int:
    shape = tensor.shape
    if len(shape) not in (1, 2) or any(size < 0 for size in shape) or shape[1:] not in ([], [1]):
        raise InputError(f"the input {quoted(tensor.name)} has the shape {shape}, expected [texts] or [texts, 1]")
    return shape[0]


def _from_json(tensor: InferInput) -> list[str]:
    if tensor.data is None:
        raise InputError(f"the input {quoted(tensor.name)} has no data")
    flat = [text for each in tensor.data for text in (each if isinstance(each, list) else [each])]
    if not all(isinstance(text, str) for text in flat):
        raise InputError(f"the input {quoted(tensor.name)} has data that is no text")
    return flat


def _from_bytes(data: bytes, name: str) -> Iterator[str]:
    """The elements of a BYTES tensor: a length, uint32 in little endian, before each."""
    at = 0
    while at < len(data):
        end = at + _LENGTH.size
        size = _LENGTH.unpack_from(data, at)[0] if end <= len(data) else len(data)
        if end + size > len(data):
            raise InputError(f"the input {quoted(name)} ends within an element")
        try:
            yield data[end : end + size].decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"the input {quoted(name)} is not UTF-8") from error
        at = end + size


def _to_bytes(values: NDArray[Any]) -> bytes:
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    texts: Sequence[bytes] = [str(text).encode("utf-8") for text in values.ravel()]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
