"""The files that a model names, of weights or for an accelerator, by the bytes of `model.onnx` and without onnx.

Only what leads to a tensor is looked at: ONNX's protobuf messages with graphs, nodes, attributes and tensors in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitfit_export.bundle.limits import MAX_JSON_DEPTH

__all__ = ["context_binaries", "external_locations"]

#: Message -> field number -> the message that the field holds. Numbers are those of onnx.proto.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
#: Of an entry of a tensor's external_data.
_KEY, _VALUE = 1, 2
_LOCATION = b"location"
#: The attribute of a context binary, and the numbers of the fields that lead to it.
_CONTEXT = b"ep_cache_context"
_GRAPH, _NODE, _ATTRIBUTE, _ATTRIBUTE_NAME, _ATTRIBUTE_TEXT = 7, 1, 5, 1, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_locations(model: bytes) -> set[str]:
    """Returns the paths, relative to the model's folder, of every file that holds data of its tensors.

    Raises:
        ValueError: the bytes are not a protobuf message, or messages nest too deeply.
    """
    locations = set()
    pending = [("model", 0, len(model), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > 2 * MAX_JSON_DEPTH:
            raise ValueError("its graphs nest too deeply")
        if kind == "entry":
            entry = {number: model[first:last] for number, first, last in _fields(model, start, end)}
            if entry.get(_KEY) == _LOCATION:
                locations.add(entry.get(_VALUE, b"").decode("utf-8"))
            continue
        for number, first, last in _fields(model, start, end):
            # Most messages name no location, and need not be looked into.
            if number in _FIELDS[kind] and model.find(_LOCATION, first, last) >= 0:
                pending.append((_FIELDS[kind][number], first, last, depth + 1))
    return locations


def context_binaries(model: bytes) -> list[str]:
    """Returns the paths that the graph's nodes name as binaries for an accelerator (`ep_cache_context`), in order.

    Raises:
        ValueError: the bytes are not a protobuf message, or a node of a function or a subgraph names one.
    """
    found = []
    for number, *graph in _fields(model, 0, len(model)):
        for number_, *node in _fields(model, *graph) if number == _GRAPH else ():
            found += _context_binaries_of(model, node) if number_ == _NODE else []
    if len(found) != model.count(_CONTEXT):
        raise ValueError("it names a context binary elsewhere than in its graph")
    return found


def _context_binaries_of(model: bytes, node: Sequence[int]) -> list[str]:
    found = []
    for number, *attribute in _fields(model, *node):
        if number == _ATTRIBUTE:
            values = {field: model[start:end] for field, start, end in _fields(model, *attribute)}
            if values.get(_ATTRIBUTE_NAME) == _CONTEXT:
                found.append(values.get(_ATTRIBUTE_TEXT, b"").decode("utf-8"))
    return found


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields with bytes of the message `data[at:end]`, in order: number, start and end."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            size, start = _varint(data, at, end)
            at = start + size
            if at <= end:
                yield number, start, at
        else:
            raise ValueError("it is not an ONNX model")
    if at > end:
        raise ValueError("it is truncated")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    for place in range(at, min(at + 10, end)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise ValueError("it is truncated")
