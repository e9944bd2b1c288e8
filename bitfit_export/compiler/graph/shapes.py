"""What the graph says about shapes and numbers: enough to follow a Reshape and to know a scale from a tensor.

Declared shapes come from the trace. Where it declares none (inside an attention that the exporter wrote out) the
integers that a Reshape reads are computed from the shapes that it does declare.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.dimensions import Size

__all__ = [
    "constant_number",
    "integers_in",
    "is_number",
    "known_integers",
    "producer_of",
    "reshape_sizes",
    "sizes_of",
]

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
        return None if sizes is None else [sizes[axis] for axis in node.attrs.get("perm", range(len(sizes))[::-1])]
    if node.op == "MatMul":
        return _product_sizes(*(sizes_of(each) for each in node.inputs))
    return None


def _product_sizes(left: list[Size] | None, right: list[Size] | None) -> list[Size] | None:
    """The shape of a matrix product, whose leading dimensions broadcast."""
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    leading = itertools.zip_longest(reversed(left[:-2]), reversed(right[:-2]), fillvalue=1)
    return [*reversed([_broadcast(*pair) for pair in leading]), left[-2], right[-1]]


def _broadcast(first: Size, second: Size) -> Size:
    if first == 1 or first == second:
        return second
    # A number other than 1 stays, whatever the other size is.
    if second == 1 or isinstance(first, int):
        return first
    return second if isinstance(second, int) else None


def is_number(tensor: gs.Tensor) -> bool:
    """Returns whether a tensor is one number, the same for the whole batch."""
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


def known_integers(tensor: gs.Tensor) -> list[int] | None:
    """Returns the elements of an integer tensor, or None where one of them is not a known number."""
    values = integers_in(tensor)
    known = [value for value in values or [] if isinstance(value, int)]
    return known if values is not None and len(known) == len(values) else None


def _computed_integers(node: gs.Node) -> list[Size] | None:
    if node.op == "Shape":
        sizes = sizes_of(node.inputs[0])
        return None if sizes is None else sizes[node.attrs.get("start", 0) : node.attrs.get("end")]
    if node.op in _SAME_INTEGERS:
        return integers_in(node.inputs[0])
    if node.op == "Size":
        sizes = sizes_of(node.inputs[0])
        known = [size for size in sizes or [] if isinstance(size, int)]
        return [math.prod(known)] if sizes is not None and len(known) == len(sizes) else None
    parts = [integers_in(tensor) for tensor in node.inputs]
    values = [part for part in parts if part is not None]
    rule = _INTEGER_RULES.get(node.op)
    return rule(*values) if rule is not None and len(values) == len(parts) else None


def _concat(*parts: list[Size]) -> list[Size]:
    return [size for part in parts for size in part]


def _slice(data: list[Size], start: list[Size], end: list[Size], *others: list[Size]) -> list[Size] | None:
    if others or not isinstance(start[0], int) or not isinstance(end[0], int):
        return None
    return data[start[0] : end[0]]


def _sub(first: list[Size], second: list[Size]) -> list[Size] | None:
    if len(first) != len(second):
        return None
    pairs = zip(first, second, strict=True)
    return [one - other if isinstance(one, int) and isinstance(other, int) else None for one, other in pairs]


def _range(*bounds: list[Size]) -> list[Size] | None:
    known = [bound[0] for bound in bounds if isinstance(bound[0], int)]
    return list(range(*known)) if len(known) == len(bounds) else None


_INTEGER_RULES: dict[str, Callable[..., list[Size] | None]] = {
    "Concat": _concat,
    "Range": _range,
    "Slice": _slice,
    "Sub": _sub,
}


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
