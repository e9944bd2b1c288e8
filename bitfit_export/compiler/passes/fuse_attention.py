"""Fuse attention: the nodes from query, key and value to their context become ONNX Runtime's MultiHeadAttention.

    softmax(scale * q k^T [+ what is added to the scores] [+ mask of the keys]) v

Requires: a graph whose shapes and mask are canonical; before or after lift.
Ensures: the same results up to rounding.
Does not: touch attention whose scores are more than that: a shift by relative positions that depend on the query
(DeBERTa), scores that are capped, a softmax that something else reads.

The kernel gains most where texts are short: it replaces twelve calls by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.bundle.interface import ATTENTION_MASK
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.edit import emit, only_reader
from bitfit_export.compiler.graph.shapes import constant_number, known_integers, producer_of, sizes_of

__all__ = ["FuseAttention", "fuse_attention"]

_DOMAIN = "com.microsoft"
_HEADS_FIRST = [0, 2, 1, 3]


class FuseAttention(Pass):
    """Give the nodes of an attention to one kernel of ONNX Runtime."""

    name = "fuse_attention"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        return fuse_attention(compilation.graph) > 0


@dataclass(frozen=True)
class _Attention:
    """What one attention is made of.

    Attributes:
        query, key, value: [batch, length, heads * width].
        scale: of the scores.
        bias: what is added to the scores, [batch or 1, heads or 1, queries, keys], where there is such.
        masked: what the mask of the keys adds to the scores of padding; None without a mask.
        out: the context, [batch, queries, heads * width].
    """

    query: gs.Tensor
    key: gs.Tensor
    value: gs.Tensor
    heads: int
    scale: float
    bias: gs.Tensor | None
    masked: float | None
    out: gs.Variable


def fuse_attention(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of attentions that it fused."""
    found = [each for node in graph.nodes if node.op == "Softmax" and (each := _match(graph, node)) is not None]
    if not found:
        return 0
    mask: gs.Variable | None = None
    for number, each in enumerate(found):
        if each.masked is not None and mask is None:
            source = next(tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK)
            mask = emit(graph, "Cast", "mask/int32", [source], np.int32, shape=source.shape, to=onnx.TensorProto.INT32)
        _emit(graph, each, mask, number)
    _import_domain(graph)
    graph.cleanup().toposort()
    return len(found)


def _match(graph: gs.Graph, softmax: gs.Node) -> _Attention | None:
    """The attention around a softmax, or None where there is something else in it."""
    product = only_reader(graph, softmax.outputs[0])
    if softmax.attrs.get("axis", -1) not in (-1, 3) or product is None or product.op != "MatMul":
        return None
    out = _merged_heads(graph, product.outputs[0])
    value = _split_heads(graph, product.inputs[1])
    terms = _terms(graph, softmax.inputs[0])
    if out is None or value is None or terms is None:
        return None
    scale, scores, bias, masked = terms
    query, key = _split_heads(graph, scores.inputs[0]), _split_heads(graph, scores.inputs[1], transposed=True)
    if query is None or key is None or not query[1] == key[1] == value[1]:
        return None
    return _Attention(query[0], key[0], value[0], query[1], scale, bias, masked, out)


def _terms(graph: gs.Graph, tensor: gs.Tensor) -> tuple[float, gs.Node, gs.Tensor | None, float | None] | None:
    """Scale, product, added tensor and mask of some scores."""
    bias: gs.Tensor | None = None
    masked: float | None = None
    scale = 1.0
    while True:
        node = producer_of(tensor)
        if node is None or only_reader(graph, tensor) is None:
            return None
        if node.op == "MatMul":
            return scale, node, bias, masked
        if node.op in ("Mul", "Div") and (number := constant_number(node.inputs[1])) is not None:
            scale *= number if node.op == "Mul" else 1 / number
            tensor = node.inputs[0]
        elif node.op == "Add" and scale == 1.0:
            tensor, added = _scores_and_added(node)
            value = _masked_value(added)
            if value is not None and masked is None:
                masked = value
            elif bias is None and _is_full(added, node):
                bias = added
            else:
                return None
        else:
            return None


def _scores_and_added(node: gs.Node) -> tuple[gs.Tensor, gs.Tensor]:
    """Of the two inputs of an Add, the one that comes from a product, and the other."""
    first, second = node.inputs
    return (first, second) if _comes_from_product(first) else (second, first)


def _comes_from_product(tensor: gs.Tensor) -> bool:
    node = producer_of(tensor)
    while node is not None and node.op in ("Add", "Div", "Mul"):
        node = producer_of(node.inputs[0])
    return node is not None and node.op == "MatMul"


def _masked_value(tensor: gs.Tensor) -> float | None:
    """What a mask of keys adds for padding; None where a tensor is not the mask as `canonicalize_mask` writes it."""
    where = producer_of(tensor)
    if where is None or where.op != "Where" or constant_number(where.inputs[1]) != 0:
        return None
    keys = producer_of(where.inputs[0])
    keep = None if keys is None or keys.op != "Unsqueeze" else producer_of(keys.inputs[0])
    if keys is None or keep is None or keep.op != "Cast" or keep.inputs[0].name != ATTENTION_MASK:
        return None
    return constant_number(where.inputs[2]) if known_integers(keys.inputs[1]) == [1, 2] else None


def _is_full(tensor: gs.Tensor, add: gs.Node) -> bool:
    """Returns whether the kernel takes a tensor as what is added: all queries and keys, heads and batch maybe not."""
    sizes, wanted = sizes_of(tensor), sizes_of(add.outputs[0])
    if sizes is None or wanted is None or len(sizes) != 4 or len(wanted) != 4:
        return False
    return sizes[2:] == wanted[2:] and all(size in (1, each) for size, each in zip(sizes[:2], wanted[:2], strict=True))


def _split_heads(graph: gs.Graph, tensor: gs.Tensor, *, transposed: bool = False) -> tuple[gs.Tensor, int] | None:
    """What a tensor [batch, heads, length, width] was before its heads were split, and the number of heads."""
    perm = [0, 1, 2, 3]
    node = producer_of(tensor)
    while node is not None and node.op == "Transpose" and only_reader(graph, tensor) is not None:
        perm = [node.attrs["perm"][axis] for axis in perm]
        tensor = node.inputs[0]
        node = producer_of(tensor)
    if perm != ([0, 2, 3, 1] if transposed else _HEADS_FIRST) or node is None or node.op != "Reshape":
        return None
    target, sizes = known_integers(node.inputs[1]), sizes_of(node.inputs[0])
    if target is None or sizes is None or len(sizes) != 3 or len(target) != 4 or target[2] < 1:
        return None
    return node.inputs[0], target[2]


def _merged_heads(graph: gs.Graph, tensor: gs.Variable) -> gs.Variable | None:
    """The context [batch, queries, heads * width] that a product [batch, heads, queries, width] becomes."""
    transpose = only_reader(graph, tensor)
    if transpose is None or transpose.op != "Transpose" or transpose.attrs["perm"] != _HEADS_FIRST:
        return None
    reshape = only_reader(graph, transpose.outputs[0])
    if reshape is None or reshape.op != "Reshape":
        return None
    sizes = sizes_of(reshape.outputs[0])
    return reshape.outputs[0] if sizes is not None and len(sizes) == 3 else None


def _emit(graph: gs.Graph, attention: _Attention, mask: gs.Variable | None, number: int) -> None:
    (node,) = attention.out.inputs
    node.outputs.clear()
    nothing = gs.Variable.empty()
    attrs: dict[str, object] = {"num_heads": attention.heads, "scale": attention.scale}
    if attention.masked is not None:
        attrs["mask_filter_value"] = attention.masked
    inputs = [attention.query, attention.key, attention.value, nothing]
    inputs.append(nothing if attention.masked is None or mask is None else mask)
    inputs.append(attention.bias or nothing)
    while inputs[-1].is_empty():
        inputs.pop()
    graph.nodes.append(
        gs.Node("MultiHeadAttention", f"attention_{number}", attrs, inputs, [attention.out], domain=_DOMAIN)
    )


def _import_domain(graph: gs.Graph) -> None:
    domains = list(graph.import_domains or [])
    if all(each.domain != _DOMAIN for each in domains):
        graph.import_domains = [*domains, onnx.helper.make_opsetid(_DOMAIN, 1)]
