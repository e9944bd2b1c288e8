"""Short questions to an onnx_ir graph, whose values may lack a shape, a producer or a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["add_constant", "attribute", "constant", "dimensions", "input_of", "numbers", "op_behind"]


def dimensions(value: ir.Value) -> tuple[int | str, ...] | None:
    """The sizes of a tensor, a name for each dynamic one; None where the rank is not known."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)


def input_of(node: ir.Node, index: int) -> ir.Value:
    """An input that the node's operator requires."""
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.op_type} {node.name} has no input {index}")
    return value


def op_behind(value: ir.Value) -> str | None:
    """The operator of the node that makes the value; None for a graph input or an initializer."""
    node = value.producer()
    return None if node is None else node.op_type


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The value of a node's attribute, or what the operator takes without it."""
    return node.attributes[name].value if name in node.attributes else default


def constant(value: ir.Value) -> np.ndarray | None:
    """The values of an initializer; None for anything that is computed or fed."""
    return None if value.const_value is None else np.asarray(value.const_value.numpy())


def numbers(value: ir.Value) -> list[int] | None:
    """The elements of a constant list of whole numbers, such as a shape; None where it is none."""
    array = constant(value)
    return None if array is None or array.dtype.kind != "i" else [int(number) for number in array.reshape(-1)]


def add_constant(graph: ir.Graph, name: str, elements: list[int]) -> ir.Value:
    """A new initializer, int64 [len(elements)]."""
    value = ir.Value(name=name, const_value=ir.tensor(np.array(elements, np.int64)))
    graph.register_initializer(value)
    return value
