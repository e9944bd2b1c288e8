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
texts without their padding. What an output has at places of padding is arbitrary.
Does not: touch what is no work per token: what depends on positions or on biases alone, and what is integers. A graph
that mixes neighbouring tokens in another way than attention (a convolution) keeps its padding: there the values at
places of padding count.

A node is converted if it treats each token on its own: element by element, a LayerNormalization or a mean over the last
axis, a product with a weight, a look-up in a table. One that only arranges or adds, and all of whose readers need the
padded form, is left padded: the bias of a query is added for each item, not gathered for each token.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle.interface import ATTENTION_MASK
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE
from bitfit_export.compiler.graph.edit import is_output, uses_of
from bitfit_export.compiler.graph.operators import ELEMENTWISE
from bitfit_export.compiler.graph.shapes import known_integers, sizes_of
from bitfit_export.compiler.graph.weights import weight_in
from bitfit_export.compiler.passes.remove_padding.forms import Forms, operand_kind, takes_first

__all__ = ["RemovePadding", "remove_padding"]

#: Nodes that are cheap in any form.
_CHEAP = frozenset({"Add", "Identity", "Mul", "Split", "Sub"})
#: What attention and heads are made of. A value at a place of padding gets no further than the mask, or its own row.
_ATTENTION = ELEMENTWISE | frozenset(
    {"Clip", "Concat", "Expand", "GatherElements", "IsNaN", "MatMul", "Max", "Min", "Reshape", "Shape", "Slice"}
    | {"Softmax", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


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
    forms = Forms(graph, mask)
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
        if id(node) in chosen or takes_first(node) or padded.isdisjoint(map(id, node.inputs)):
            continue
        if node.op not in _ATTENTION:
            return node
        padded |= {id(out) for out in node.outputs}
    return None


def _all_readers_padded(graph: gs.Graph, node: gs.Node, chosen: dict[int, gs.Node]) -> bool:
    readers = [reader for out in node.outputs for reader, _ in uses_of(out)]
    padded = bool(readers) and not any(id(reader) in chosen or takes_first(reader) for reader in readers)
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
    return node.op in ELEMENTWISE and all(operand_kind(each) is not None for each in node.inputs)


def _has_tokens(tensor: gs.Tensor, rank: int | None = None) -> bool:
    """Returns whether a tensor is [batch, sequence] or [batch, sequence, n]."""
    sizes = sizes_of(tensor)
    is_rank = sizes is not None and len(sizes) in ((2, 3) if rank is None else (rank,))
    return (
        is_rank
        and sizes is not None
        and sizes[:2] == [BATCH, SEQUENCE]
        and all(isinstance(size, int) for size in sizes[2:])
    )
