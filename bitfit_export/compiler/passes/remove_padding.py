"""Remove padding: what is computed for each token is computed for the tokens of the texts alone.

In a batch of real texts more than half may be padding. This pass numbers the tokens that the mask keeps, and gives
embeddings, projections, normalisations and feed-forward tensors of [tokens, n] instead of [batch, sequence, n]. Only
attention, which brings the tokens of a text together, gets its tensors padded:

    input_ids -- Gather(tokens) --> embeddings, projections [tokens, n] -- Gather(places) --> attention [batch, ...]
                                          ^                                                          |
                                          +------------- Gather(tokens) <----------------------------+

`tokens` [tokens] says where each token stands in [batch * sequence], `places` [batch, sequence] which token stands at
each place. A place of padding gets some token's values: the mask hides them from every token of a text.

Requires: a lifted graph of dynamic shapes, whose mask and shapes are canonical.
Ensures: the same results for the tokens of the texts, and for heads; in int8, the range of an activation is that of the
texts without their padding. What an output has at places of padding is arbitrary, as it was before.
Does not: touch what is no work per token: what depends on positions or on biases alone, and what is integers. A graph
that mixes neighbouring tokens in another way than attention (a convolution) keeps its padding: there the values at
places of padding count.

A node is converted if it treats each token on its own: element by element, a LayerNormalization or a mean over the last
axis, a product with a weight, a look-up in a table. One that only arranges or adds, and all of whose readers need the
padded form, is left padded: the bias of a query is added for each item, not gathered for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle.interface import ATTENTION_MASK, TASK_IDS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS, SEQUENCE, TASK_BATCH, TOKENS, Size
from bitfit_export.compiler.graph.edit import emit, is_output, uses_of
from bitfit_export.compiler.graph.shapes import known_integers, producer_of, sizes_of
from bitfit_export.compiler.graph.weights import weight_in

__all__ = ["RemovePadding", "remove_padding"]

_ELEMENTWISE = frozenset(
    {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
    | {"Where"}
)
#: Nodes that are cheap in any form.
_CHEAP = frozenset({"Add", "Identity", "Mul", "Split", "Sub"})
#: What attention and heads are made of. A value at a place of padding gets no further than the mask, or its own row.
_ATTENTION = _ELEMENTWISE | frozenset(
    {"Clip", "Concat", "Expand", "GatherElements", "IsNaN", "MatMul", "Max", "Min", "Reshape", "Shape", "Slice"}
    | {"Softmax", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
#: Names of the first dimension of a tensor that has one value for each bias row: for each item, or for the whole batch.
_BIAS_ROWS = frozenset({ROWS, TASK_BATCH})
#: The first size of a bias by token, which is 1 where one row serves the whole batch. A size of its own: runtimes give
#: a tensor the memory of another where their sizes have the same name.
_TOKENS_OR_1 = "tokens_or_1"


class RemovePadding(Pass):
    """Compute what is per token for the tokens of the texts alone."""

    name = "remove_padding"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        outcome = remove_padding(compilation.graph)
        if isinstance(outcome, str):
            compilation.keeps_padding = outcome
            return False
        return outcome > 0


def remove_padding(graph: gs.Graph) -> int | str:
    """Change the graph in place.

    Returns:
        The number of nodes that compute the texts' tokens alone; or why the graph keeps its padding.
    """
    graph.toposort()
    mask = next((tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK), None)
    if mask is None:
        return "the model takes no attention_mask"
    nodes = _choose(graph)
    if not any(weight_in(node) is not None for node in nodes):
        return "no product with a weight reads each token on its own"
    mixer = _find_mixer(graph, nodes)
    if mixer is not None:
        return f"{mixer.op} {mixer.name} reads tokens beside each other"
    for out in (out for node in nodes for out in node.outputs):
        # Declared, for what is not declared is computed from the inputs, which are about to change.
        out.dtype, out.shape = np.dtype(np.float32), sizes_of(out)
    forms = _Forms(graph, mask)
    for node in nodes:
        forms.convert(node)
    chosen = {id(node) for node in nodes}
    for node in nodes:
        for out in node.outputs:
            forms.pad_for_others(out, chosen)
    graph.cleanup().toposort()
    return len(nodes)


def _choose(graph: gs.Graph) -> list[gs.Node]:
    """The nodes to convert, in the graph's order."""
    chosen = {id(node): node for node in graph.nodes if _is_per_token(node)}
    for node in reversed(graph.nodes):
        if id(node) in chosen and node.op in _CHEAP and _all_readers_padded(graph, node, chosen):
            del chosen[id(node)]
    return list(chosen.values())


def _find_mixer(graph: gs.Graph, nodes: list[gs.Node]) -> gs.Node | None:
    """A node that might let values at places of padding reach a token; it is neither per token nor of attention."""
    chosen = {id(node) for node in nodes}
    padded = {id(out) for node in nodes for out in node.outputs}
    for node in graph.nodes:
        if id(node) in chosen or _takes_first(node) or padded.isdisjoint(map(id, node.inputs)):
            continue
        if node.op not in _ATTENTION:
            return node
        padded |= {id(out) for out in node.outputs}
    return None


def _all_readers_padded(graph: gs.Graph, node: gs.Node, chosen: dict[int, gs.Node]) -> bool:
    readers = [reader for out in node.outputs for reader, _ in uses_of(out)]
    padded = bool(readers) and not any(id(reader) in chosen or _takes_first(reader) for reader in readers)
    return padded and not any(is_output(graph, out) for out in node.outputs)


def _is_per_token(node: gs.Node) -> bool:
    """Returns whether a node computes float values for each token from that token's values alone."""
    if not all(_has_tokens(out, rank=3) and out.dtype in (None, np.float32) for out in node.outputs):
        return False
    if node.op == "Gather":
        return (
            isinstance(node.inputs[0], gs.Constant) and node.attrs.get("axis", 0) == 0 and _has_tokens(node.inputs[1])
        )
    if node.op == "MatMul":
        return weight_in(node) is not None and _has_tokens(node.inputs[0])
    if node.op == "LayerNormalization":
        return node.attrs.get("axis", -1) in (-1, 2) and _has_tokens(node.inputs[0])
    if node.op == "ReduceMean":
        axes = known_integers(node.inputs[1]) if len(node.inputs) > 1 else node.attrs.get("axes")
        return axes in ([-1], [2]) and bool(node.attrs.get("keepdims", 1)) and _has_tokens(node.inputs[0])
    if node.op == "Split":
        return node.attrs.get("axis", 0) in (-1, 2) and _has_tokens(node.inputs[0])
    return node.op in _ELEMENTWISE and all(_operand_kind(each) is not None for each in node.inputs)


def _has_tokens(tensor: gs.Tensor, rank: int | None = None) -> bool:
    """Returns whether a tensor is [batch, sequence] or [batch, sequence, n]."""
    sizes = sizes_of(tensor)
    is_rank = sizes is not None and len(sizes) in ((2, 3) if rank is None else (rank,))
    return is_rank and sizes is not None and sizes[:2] == [BATCH, SEQUENCE] and all(map(_is_number, sizes[2:]))


def _is_number(size: Size) -> bool:
    return isinstance(size, int)


def _operand_kind(tensor: gs.Tensor) -> str | None:
    """How an operand of an elementwise node [batch, sequence, n] becomes one of [tokens, n]; None where it can't."""
    sizes = sizes_of(tensor)
    if sizes is None or len(sizes) > 3:
        return None
    if isinstance(tensor, gs.Constant):
        return "constant" if len(sizes) < 2 or set(sizes[:-1]) == {1} else None
    if len(sizes) < 2:
        return "constant" if all(map(_is_number, sizes)) else None
    leading, width = sizes[:-1], sizes[-1]
    if not _is_number(width):
        return None
    kinds = {(BATCH, SEQUENCE): "token", (BATCH, 1): "item", (1, SEQUENCE): "position", (SEQUENCE,): "position"}
    if len(leading) == 2 and leading[1] == 1 and leading[0] in _BIAS_ROWS:
        return "row"
    return kinds.get(tuple(leading))


def _takes_first(node: gs.Node) -> bool:
    """Returns whether a node takes the first token of [batch, sequence, n] and nothing else."""
    if node.op == "Gather":
        return node.attrs.get("axis", 0) == 1 and known_integers(node.inputs[1]) == [0]
    bounds = [known_integers(each) for each in node.inputs[1:]] if node.op == "Slice" else []
    return bounds[:3] == [[0], [1], [1]] and bounds[3:] in ([], [[1]])


class _Forms:
    """The tensors of a graph in both forms: padded, [batch, sequence, n], and by token, [tokens, n]."""

    def __init__(self, graph: gs.Graph, mask: gs.Variable) -> None:
        self._graph = graph
        self._mask = mask
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
            "item": lambda each: self._gather_items(each, self._items, TOKENS),
            "row": lambda each: self._gather_items(each, self._rows, _TOKENS_OR_1),
            "constant": _without_leading_ones,
        }
        kind = _operand_kind(tensor)
        assert kind is not None, "chosen only where every operand has a kind"
        return makers[kind](tensor)

    def _tokens_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """A padded tensor by token."""
        if id(tensor) not in self._by_token:
            sizes = sizes_of(tensor) or []
            flat = self._emit("Reshape", f"{tensor.name}/flat", [tensor, [-1, *sizes[2:]]], tensor.dtype)
            self._by_token[id(tensor)] = self._gather(f"{tensor.name}/by_token", flat, self._tokens, sizes[2:])
        return self._by_token[id(tensor)]

    def _positions_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """A tensor [1, sequence, n] or [sequence, n] by token."""
        sizes = sizes_of(tensor) or []
        if len(sizes) == 3:
            tensor = self._emit("Squeeze", f"{tensor.name}/by_position", [tensor, [0]], tensor.dtype)
        return self._gather(f"{tensor.name}/of_tokens", tensor, self._columns, sizes[-1:])

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
            if _takes_first(node):
                self._take_first(node, tensor)
            else:
                node.inputs[index] = self._pad(tensor)
        for index, output in enumerate(self._graph.outputs):
            if output is tensor:
                self._graph.outputs[index] = self._pad_output(tensor)

    def _take_first(self, node: gs.Node, tensor: gs.Variable) -> None:
        """Gather's output is [batch, n], Slice's [batch, 1, n]."""
        first = self._firsts if node.op == "Gather" else self._firsts_2d
        node.op, node.attrs, node.inputs = "Gather", {"axis": 0}, [tensor, first]

    def _pad(self, tensor: gs.Variable) -> gs.Variable:
        if id(tensor) not in self._padded:
            shape = [BATCH, SEQUENCE, *(sizes_of(tensor) or [])[1:]]
            self._padded[id(tensor)] = self._emit(
                "Gather", f"{tensor.name}/padded", [tensor, self._places], tensor.dtype, shape=shape, axis=0
            )
        return self._padded[id(tensor)]

    def _pad_output(self, tensor: gs.Variable) -> gs.Variable:
        name = tensor.name
        tensor.name = f"{name}/by_token"
        padded = self._pad(tensor)
        padded.name = name
        return padded

    # What the mask says, as indices; each is computed once, and only where something needs it.

    @cached_property
    def _flat_mask(self) -> gs.Variable:
        return self._emit("Reshape", "padding/mask", [self._mask, [-1]], np.int64)

    @cached_property
    def _tokens(self) -> gs.Variable:
        """Where each token stands in [batch * sequence], int64 [tokens]."""
        found = self._emit("NonZero", "padding/kept", [self._flat_mask], np.int64)
        return self._emit("Squeeze", "padding/tokens", [found, [0]], np.int64, shape=[TOKENS])

    @cached_property
    def _places(self) -> gs.Variable:
        """Which token stands at each place, int64 [batch, sequence]; at padding the last one before it."""
        count = self._emit("CumSum", "padding/count", [self._flat_mask, 0], np.int64)
        number = self._emit("Sub", "padding/number", [count, 1], np.int64)
        number = self._emit("Max", "padding/number_from_0", [number, 0], np.int64)
        shape = self._emit("Shape", "padding/shape", [self._mask], np.int64)
        return self._emit("Reshape", "padding/places", [number, shape], np.int64, shape=[BATCH, SEQUENCE])

    @cached_property
    def _length(self) -> gs.Variable:
        return self._emit("Shape", "padding/sequence", [self._mask], np.int64, start=1, end=2)

    @cached_property
    def _items(self) -> gs.Variable:
        """The item of each token, int64 [tokens]."""
        return self._emit("Div", "padding/item_of_token", [self._tokens, self._length], np.int64)

    @cached_property
    def _columns(self) -> gs.Variable:
        """The position of each token in its text, int64 [tokens]."""
        return self._emit("Mod", "padding/column", [self._tokens, self._length], np.int64)

    @cached_property
    def _rows(self) -> gs.Variable:
        """The bias row of each token, int64 [tokens]; [1] where one serves the whole batch: nothing is copied."""
        task_ids = next(tensor for tensor in self._graph.inputs if tensor.name == TASK_IDS)
        rows = self._emit("Shape", "padding/rows", [task_ids], np.int64)
        last = self._emit("Sub", "padding/last_row", [rows, 1], np.int64)
        # 1 for one row, more than all tokens for several. OpenVINO computes sizes in 32 bits, so no larger than that.
        several = self._emit("Min", "padding/several_rows", [last, 1], np.int64)
        count = self._emit("Shape", "padding/token_count", [self._tokens], np.int64)
        end = self._emit("Mul", "padding/tokens_if_several", [several, count], np.int64)
        end = self._emit("Add", "padding/rows_to_gather", [end, 1], np.int64)
        item = self._emit("Min", "padding/row_of_token", [self._items, last], np.int64)
        return self._emit("Slice", "padding/row", [item, [0], end], np.int64)

    @cached_property
    def _firsts(self) -> gs.Variable:
        """The first token of each text, int64 [batch]."""
        return self._emit("Gather", "padding/first", [self._places, 0], np.int64, axis=1)

    @cached_property
    def _firsts_2d(self) -> gs.Variable:
        return self._emit("Unsqueeze", "padding/first_2d", [self._firsts, [1]], np.int64)

    def _gather(
        self, name: str, tensor: gs.Tensor, at: gs.Variable, sizes: Iterable[Size], first: str = TOKENS
    ) -> gs.Variable:
        return self._emit("Gather", name, [tensor, at], tensor.dtype, shape=[first, *sizes], axis=0)

    def _emit(self, op: str, name: str, inputs: list, dtype: object, **more: object) -> gs.Variable:  # type: ignore[type-arg]
        return emit(self._graph, op, name, inputs, dtype or np.float32, **more)  # type: ignore[arg-type]


def _without_leading_ones(tensor: gs.Tensor) -> gs.Tensor:
    """A constant [1, 1, n] as [n], which broadcasts to [tokens, n]."""
    if not isinstance(tensor, gs.Constant) or len(tensor.shape) < 2:
        return tensor
    return gs.Constant(f"{tensor.name}/by_token", tensor.values.reshape(tensor.shape[-1:]))
