"""Dropout in a graph: masks drawn inside it, from a seed that is an input, by integer operators that every engine has.

The trace of a model in training has a Dropout node at each place where the model drops something. ONNX leaves the
generator of that operator open, so each node is replaced by

    x * factor,    factor = 1 / (1 - rate) where the entry is kept, else 0

with what is kept decided by a hash of the entry's position. Per pair of entries it is one 32-bit hash, whose halves
decide about one entry each; the rate is rounded to a multiple of 1/65536. The hash is lowbias32 (Chris Wellons, Hash
Prospector), two rounds of shift, xor and product; before each round a key is mixed in. The keys of a node are hashes of
the seed and the node's number, so each node has masks of its own, and the same seed draws the same masks again.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.adder import Adder
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.graph.shapes import constant_number

__all__ = ["DROPOUT", "DROPOUT_SEED", "draw_dropout"]

DROPOUT = "Dropout"
#: The graph input: uint32 [1].
DROPOUT_SEED = "dropout_seed"
_LOTS = 1 << 16
#: Of each round of the hash: the shift before the product, and the factor.
_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B))
_LAST_SHIFT = 16
#: 2^32 / golden ratio: multiples of it differ in all their bits.
_GOLDEN = 0x9E3779B9


def draw_dropout(graph: gs.Graph) -> int:
    """Replace each Dropout node, in place; the graph gets the input `DROPOUT_SEED` if there is one.

    The shapes of the graph are known (`infer_shapes`). The nodes are numbered in the graph's order.

    Returns:
        The number of nodes that drop something.
    """
    nodes = [node for node in graph.nodes if node.op == DROPOUT]
    for node in nodes:
        if not 0 < _rate_of(node) < 1:
            node.op, node.attrs, node.inputs = "Identity", {}, node.inputs[:1]
    nodes = [node for node in nodes if node.op == DROPOUT]
    if nodes:
        seed = gs.Variable(DROPOUT_SEED, np.uint32, [1])
        graph.inputs.append(seed)
        keys = _keys(graph, seed, len(nodes))
        for number, node in enumerate(nodes):
            _draw(graph, node, keys[2 * number : 2 * number + 2], f"dropout/{number}")
        graph.cleanup().toposort()
    return len(nodes)


def _rate_of(node: gs.Node) -> float:
    rate = constant_number(node.inputs[1]) if len(node.inputs) > 1 else None
    assert rate is not None, node.name  # the exporter writes numbers
    return rate


def _keys(graph: gs.Graph, seed: gs.Variable, nodes: int) -> list[gs.Variable]:
    """Two keys per node, each uint32 [1]."""
    numbers = np.arange(1, 2 * nodes + 1, dtype=np.uint64) * _GOLDEN % 2**32
    add = _Adder(graph, "dropout/keys")
    mixed = add("BitwiseXor", seed, gs.Constant("dropout/numbers", numbers.astype(np.uint32)))
    hashed = add.hash(mixed, [None, None])
    keys = [gs.Variable(f"dropout/key_{number}", np.uint32, [1]) for number in range(2 * nodes)]
    graph.nodes.append(gs.Node("Split", "dropout/keys/split", {"axis": 0, "num_outputs": 2 * nodes}, [hashed], keys))
    return keys


def _draw(graph: gs.Graph, node: gs.Node, keys: list[gs.Variable], name: str) -> None:
    x, out = node.inputs[0], node.outputs[0]
    rate = _rate_of(node)
    dropped = min(round(rate * _LOTS), _LOTS - 1)
    add = _Adder(graph, name)
    count = add("Size", x, dtype=np.int64)
    pairs = add(
        "Div", add("Add", count, add.number(1, np.int64), dtype=np.int64), add.number(2, np.int64), dtype=np.int64
    )
    every = add("Range", add.number(0, np.int64), pairs, add.number(1, np.int64), dtype=np.int64)
    drawn = add.hash(add("Cast", every, to=onnx.TensorProto.UINT32), keys)
    halves = (
        add("GreaterOrEqual", add("BitwiseAnd", drawn, add.number(_LOTS - 1)), add.number(dropped), dtype=np.bool_),
        add("GreaterOrEqual", drawn, add.number(dropped * _LOTS), dtype=np.bool_),
    )
    both = add("Concat", *halves, dtype=np.bool_, axis=0)
    end = add("Reshape", count, [1], dtype=np.int64)
    flat = add("Slice", both, [0], end, dtype=np.bool_)
    shape = add("Shape", x, dtype=np.int64)
    kept = emit(graph, "Reshape", f"{name}/kept", [flat, shape], np.bool_, shape=x.shape)
    ones = emit(graph, "Cast", f"{name}/ones", [kept], shape=x.shape, to=onnx.TensorProto.FLOAT)
    # Not a Where: ONNX Runtime's takes three passes over the entries, and the backward pass has it again.
    factor = emit(
        graph, "Mul", f"{name}/factor", [ones, add.number(_LOTS / (_LOTS - dropped), np.float32)], shape=x.shape
    )
    node.outputs.clear()
    emit(graph, "Mul", f"{name}/result", [x, factor], out=out)


class _Adder(Adder):
    """Adds the nodes of hashes."""

    dtype = np.uint32

    def hash(self, values: gs.Variable, keys: list[gs.Variable] | list[None]) -> gs.Variable:
        """The hash of uint32 [n], with a key mixed in before each round."""
        for key, (shift, factor) in zip(keys, _ROUNDS, strict=True):
            mixed = values if key is None else self("BitwiseXor", values, key)
            values = self("Mul", self._folded(mixed, shift), self.number(factor))
        return self._folded(values, _LAST_SHIFT)

    def _folded(self, values: gs.Variable, shift: int) -> gs.Variable:
        shifted = self("BitShift", values, self.number(shift), direction="RIGHT")
        return self("BitwiseXor", values, shifted)
