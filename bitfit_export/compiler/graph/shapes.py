"""What the graph says about shapes and numbers: enough to follow a Reshape and to know a scale from a tensor.

Declared shapes come from the trace. Where it declares none (inside an attention that the exporter wrote out) the
integers that a Reshape reads are computed from the shapes that it does declare.
"""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.dimensions import Size

__all__ = ["constant_number", "integers_in", "is_number", "producer_of", "reshape_sizes", "sizes_of"]

#: Nodes whose result has the shape of their first input, whatever their other inputs are.
_SAME_SHAPE = frozenset({"Cast", "CastLike", "Identity", "Softmax", "Sqrt"})
#: Nodes that change how integers are arranged, and neither their number nor their order.
_SAME_INTEGERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def producer_of(tensor: gs.Tensor) -> gs.Node | None:
    """The node that computes a tensor; None for an input or a constant."""
    return tensor.inputs[0] if tensor.inputs else None


def sizes_of(tensor: gs.Tensor) -> list[Size] | None:
    """The shape of a tensor, or None where not even its rank is known."""
    if tensor.shape is not None:
        return [size if isinstance(size, (int, str)) else None for size in tensor.shape]
    node = producer_of(tensor)
    if node is None:
        return None
    if node.op in _SAME_SHAPE:
        return sizes_of(node.inputs[0])
    if node.op in ("Mul", "Div") and is_number(node.inputs[1]):
        return sizes_of(node.inputs[0])
    if node.op == "Transpose":
        sizes = sizes_of(node.inputs[0])
        return None if sizes is None else [sizes[axis] for axis in node.attrs["perm"]]
    return None


def is_number(tensor: gs.Tensor) -> bool:
    """Whether a tensor is one number, the same for the whole batch."""
    if isinstance(tensor, gs.Constant):
        return math.prod(tensor.shape) == 1 and len(tensor.shape) <= 1
    if tensor.shape is not None:
        return len(tensor.shape) == 0
    node = producer_of(tensor)
    return node is not None and node.op in _SAME_SHAPE and is_number(node.inputs[0])


def constant_number(tensor: gs.Tensor) -> float | None:
    """The value of a tensor all of whose elements are one known number, else None."""
    if isinstance(tensor, gs.Constant):
        return float(tensor.values.reshape(-1)[0]) if math.prod(tensor.shape) == 1 else None
    node = producer_of(tensor)
    if node is None or node.op not in {"Cast", "CastLike", "Expand", "Identity", "Reshape", "Unsqueeze"}:
        return None
    return constant_number(node.inputs[0])


def integers_in(tensor: gs.Tensor) -> list[Size] | None:
    """The elements of an integer tensor, sizes among them as symbols, or None where not even their number is known."""
    if isinstance(tensor, gs.Constant):
        return [int(value) for value in tensor.values.reshape(-1)]
    node = producer_of(tensor)
    values = None if node is None else _computed_integers(node)
    return [None] if values is None and is_number(tensor) else values


def _computed_integers(node: gs.Node) -> list[Size] | None:
    if node.op == "Shape":
        sizes = sizes_of(node.inputs[0])
        return None if sizes is None else sizes[node.attrs.get("start", 0) : node.attrs.get("end")]
    if node.op in _SAME_INTEGERS:
        return integers_in(node.inputs[0])
    parts = [integers_in(tensor) for tensor in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if node.op == "Concat":
        return [size for part in known for size in part]
    if node.op == "Slice" and len(known) == 3:
        data, start, end = known
        if isinstance(start[0], int) and isinstance(end[0], int):
            return data[start[0] : end[0]]
    return None


def reshape_sizes(node: gs.Node) -> list[Size] | None:
    """The sizes that a Reshape makes, None for one that is unknown; or None where not even their number is known."""
    sizes, declared = integers_in(node.inputs[1]), sizes_of(node.outputs[0])
    if sizes is None:
        return declared
    open_sizes = (-1,) if node.attrs.get("allowzero", 0) else (-1, 0)
    known = [None if size in open_sizes else size for size in sizes]
    if declared is None or len(declared) != len(known):
        return known
    # A declared symbol may stand for a product; a computed one is the size of an axis.
    return [
        other if size is None and isinstance(other, int) else size for size, other in zip(known, declared, strict=True)
    ]
