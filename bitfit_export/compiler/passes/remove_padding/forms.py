"""The two forms of a tensor: padded, [batch, sequence, n], and by token, [tokens, n]."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS, SEQUENCE, TASK_BATCH, TOKENS, Size
from bitfit_export.compiler.graph.edit import Operand, emit, uses_of
from bitfit_export.compiler.graph.operators import gathers_first_token
from bitfit_export.compiler.graph.shapes import known_integers, producer_of, sizes_of
from bitfit_export.compiler.passes.remove_padding.token_indices import TokenIndices

__all__ = ["Forms", "operand_kind", "takes_first"]

#: Names of the first dimension of a tensor that has one value for each bias row: for each item, or for the whole batch.
_BIAS_ROWS = frozenset({ROWS, TASK_BATCH})
#: The first size of a bias by token, which is 1 where one row serves the whole batch. A size of its own: runtimes give
#: a tensor the memory of another where their sizes have the same name.
_TOKENS_OR_1 = "tokens_or_1"


def operand_kind(tensor: gs.Tensor) -> str | None:
    """How an operand of an elementwise node [batch, sequence, n] becomes one of [tokens, n]; None where it can't."""
    sizes = sizes_of(tensor)
    if sizes is None or len(sizes) > 3:
        return None
    if isinstance(tensor, gs.Constant):
        return "constant" if len(sizes) < 2 or set(sizes[:-1]) == {1} else None
    if len(sizes) < 2:
        return "constant" if all(isinstance(size, int) for size in sizes) else None
    leading, width = sizes[:-1], sizes[-1]
    if not isinstance(width, int):
        return None
    kinds = {(BATCH, SEQUENCE): "token", (BATCH, 1): "item", (1, SEQUENCE): "position", (SEQUENCE,): "position"}
    if len(leading) == 2 and leading[1] == 1 and leading[0] in _BIAS_ROWS:
        return "row"
    return kinds.get(tuple(leading))


def takes_first(node: gs.Node) -> bool:
    """Returns whether a node takes the first token of [batch, sequence, n] and nothing else."""
    if gathers_first_token(node):
        return True
    bounds = [known_integers(each) for each in node.inputs[1:]] if node.op == "Slice" else []
    return bounds[:3] == [[0], [1], [1]] and bounds[3:] in ([], [[1]])


class Forms:
    """The tensors of a graph in both forms: padded, [batch, sequence, n], and by token, [tokens, n]."""

    def __init__(self, graph: gs.Graph, mask: gs.Variable) -> None:
        self._graph = graph
        self._at = TokenIndices(graph, mask)
        self._by_token: dict[int, gs.Tensor] = {}
        self._padded: dict[int, gs.Variable] = {}
        self._splits: dict[int, list[gs.Variable]] = {}

    def convert(self, node: gs.Node) -> None:
        """Let a node compute [tokens, n]; what reads it padded is served by `pad_for_others`."""
        for index, tensor in enumerate(node.inputs):
            if not tensor.is_empty():
                node.inputs[index] = self._operand(node, index, tensor)
        if node.op in ("LayerNormalization", "Split"):
            node.attrs["axis"] = -1 if node.op == "LayerNormalization" else 1
        if node.op == "ReduceMean" and len(node.inputs) > 1:
            node.inputs[1] = int64s(f"{node.name}/last_axis", [-1])
        for out in node.outputs:
            self._by_token[id(out)] = out
            out.shape = [TOKENS, *(sizes_of(out) or [])[2:]]

    def _operand(self, node: gs.Node, index: int, tensor: gs.Tensor) -> gs.Tensor:
        """An input of a converted node, in the form that it needs."""
        if id(tensor) in self._by_token:
            return self._by_token[id(tensor)]
        if node.op in ("Gather", "LayerNormalization", "MatMul", "ReduceMean", "Split"):
            takes_tokens = 1 if node.op == "Gather" else 0
            return self._tokens_of(tensor) if index == takes_tokens else tensor
        makers: dict[str, Callable[[gs.Tensor], gs.Tensor]] = {
            "token": self._tokens_of,
            "position": self._positions_of,
            "item": lambda each: self._gather_items(each, self._at.items, TOKENS),
            "row": lambda each: self._gather_items(each, self._at.rows, _TOKENS_OR_1),
            "constant": _without_leading_ones,
        }
        kind = operand_kind(tensor)
        assert kind is not None, "chosen only where every operand has a kind"
        return makers[kind](tensor)

    def _tokens_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """A padded tensor by token."""
        if id(tensor) not in self._by_token:
            sizes = sizes_of(tensor) or []
            flat = self._emit("Reshape", f"{tensor.name}/flat", [tensor, [-1, *sizes[2:]]], tensor.dtype)
            self._by_token[id(tensor)] = self._gather(f"{tensor.name}/by_token", flat, self._at.tokens, sizes[2:])
        return self._by_token[id(tensor)]

    def _positions_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """A tensor [1, sequence, n] or [sequence, n] by token."""
        sizes = sizes_of(tensor) or []
        if len(sizes) == 3:
            tensor = self._emit("Squeeze", f"{tensor.name}/by_position", [tensor, [0]], tensor.dtype)
        return self._gather(f"{tensor.name}/of_tokens", tensor, self._at.columns, sizes[-1:])

    def _gather_items(self, tensor: gs.Tensor, at: gs.Variable, size: str) -> gs.Tensor:
        """A tensor [batch or rows, 1, n] by token; or, where one row serves the whole batch, [1, n]."""
        if id(tensor) not in self._by_token:
            width = (sizes_of(tensor) or [])[-1:]
            flat = self._without_sequence(tensor)
            self._by_token[id(tensor)] = self._gather(f"{tensor.name}/of_tokens", flat, at, width, size)
        return self._by_token[id(tensor)]

    def _without_sequence(self, tensor: gs.Tensor) -> gs.Tensor:
        """A tensor [b, 1, n] as [b, n]. All the parts of a row are cut anew, by one node."""
        split = producer_of(tensor)
        unsqueeze = None if split is None or split.op != "Split" else producer_of(split.inputs[0])
        if split is None or unsqueeze is None or unsqueeze.op != "Unsqueeze":
            return self._emit("Squeeze", f"{tensor.name}/by_item", [tensor, [1]], tensor.dtype)
        if id(split) not in self._splits:
            parts = [
                gs.Variable(f"{out.name}/by_item", out.dtype, [out.shape[0], out.shape[2]]) for out in split.outputs
            ]
            inputs = [unsqueeze.inputs[0], *split.inputs[1:]]
            self._graph.nodes.append(gs.Node("Split", f"{split.name}/by_item", {"axis": 1}, inputs, parts))
            self._splits[id(split)] = parts
        return next(part for part, out in zip(self._splits[id(split)], split.outputs, strict=True) if out is tensor)

    def pad_for_others(self, tensor: gs.Variable, chosen: set[int]) -> None:
        """Give the readers of a tensor that are not converted its padded form, or the first tokens alone."""
        for node, index in uses_of(tensor):
            if id(node) in chosen:
                continue
            if takes_first(node):
                self._take_first(node, tensor)
            else:
                node.inputs[index] = self._pad(tensor)
        for index, output in enumerate(self._graph.outputs):
            if output is tensor:
                self._graph.outputs[index] = self._pad_output(tensor)

    def _take_first(self, node: gs.Node, tensor: gs.Variable) -> None:
        """Gather's output is [batch, n], Slice's [batch, 1, n]."""
        first = self._at.firsts if node.op == "Gather" else self._at.firsts_2d
        node.op, node.attrs, node.inputs = "Gather", {"axis": 0}, [tensor, first]

    def _pad(self, tensor: gs.Variable) -> gs.Variable:
        if id(tensor) not in self._padded:
            shape = [BATCH, SEQUENCE, *(sizes_of(tensor) or [])[1:]]
            self._padded[id(tensor)] = self._emit(
                "Gather", f"{tensor.name}/padded", [tensor, self._at.places], tensor.dtype, shape=shape, axis=0
            )
        return self._padded[id(tensor)]

    def _pad_output(self, tensor: gs.Variable) -> gs.Variable:
        name = tensor.name
        tensor.name = f"{name}/by_token"
        padded = self._pad(tensor)
        padded.name = name
        return padded

    def _gather(
        self, name: str, tensor: gs.Tensor, at: gs.Variable, sizes: Iterable[Size], first: str = TOKENS
    ) -> gs.Variable:
        return self._emit("Gather", name, [tensor, at], tensor.dtype, shape=[first, *sizes], axis=0)

    def _emit(self, op: str, name: str, inputs: list[Operand], dtype: object, **more: object) -> gs.Variable:
        return emit(self._graph, op, name, inputs, dtype or np.float32, **more)  # type: ignore[arg-type]


def _without_leading_ones(tensor: gs.Tensor) -> gs.Tensor:
    """A constant [1, 1, n] as [n], which broadcasts to [tokens, n]."""
    if not isinstance(tensor, gs.Constant) or len(tensor.shape) < 2:
        return tensor
    return gs.Constant(f"{tensor.name}/by_token", tensor.values.reshape(tensor.shape[-1:]))
