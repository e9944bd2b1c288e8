"""Canonicalize the mask: what the graph computes from `attention_mask` alone becomes the shortest form that is equal.

transformers builds its mask for every model from the same general parts: indices of all queries and keys, a GatherND
of the mask by them, comparisons that are always true. Some 25 nodes are a function of `attention_mask` alone, and
NPUs refuse several of them. Mostly they say no more than "add -3.4e38 to the scores of keys that are padding".

Requires: a graph with the input `attention_mask`; before or after lift.
Ensures: the same function of the mask. Each tensor that depends on the mask and on sizes alone, and that something else
reads, is compared with the forms below at the model's longest text and at short ones, on masks of every kind. Where it
is equal to one of them to the bit, the form takes its place.
Does not: touch a tensor that equals none of them, nor a model that takes more than `LONGEST` tokens: a window that
begins only where no comparison was made must not be lost.

    keys     attention is to the tokens of the text                          BERT and most encoders
    pairs    the same, and padding attends to nothing                        DeBERTa
    causal   attention is to the tokens of the text that come before         GPT-2
    tokens   one value for each token of the text, another for padding       DeBERTa's embeddings, convolutions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from bitfit_export.bundle.interface import ATTENTION_MASK
from bitfit_export.compiler.compilation import Compilation, Pass
from bitfit_export.compiler.graph.edit import emit, is_output, replace_uses, uses_of
from bitfit_export.compiler.graph.shapes import sizes_of

__all__ = ["LONGEST", "CanonicalizeMask", "canonicalize_mask", "masks_to_compare"]

#: Tokens of the longest text at which forms are compared; a mask of as many queries and keys takes 67 MB.
LONGEST = 4096
_SHORT = (1, 2, 3, 7)
#: Readers whose result has the size of their largest input: for them [batch, 1, 1, n] is as good as [batch, 1, n, n].
_BROADCASTS = frozenset({"Add", "And", "Mul", "Or", "Sub", "Where"})


class CanonicalizeMask(Pass):
    """Replace what is computed from the mask by its shortest equal form."""

    name = "canonicalize_mask"

    def run(self, compilation: Compilation) -> bool:
        return canonicalize_mask(compilation.graph, compilation.base.max_positions) > 0


def canonicalize_mask(graph: gs.Graph, longest: int) -> int:
    """Change the graph in place; returns the number of tensors that got a shorter form.

    Args:
        longest: tokens of the longest text that the model takes.
    """
    mask = next((tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK), None)
    if mask is None or longest > LONGEST:
        return 0
    made: dict[_Equal, gs.Variable] = {}
    replaced = 0
    for tensor, nodes in _tensors_of_mask(graph, mask):
        equal = _find_equal(graph, tensor, nodes, longest)
        if equal is None or not _readers_broadcast(tensor):
            continue
        if equal not in made:
            made[equal] = _emit_form(graph, mask, equal)
        replace_uses(tensor, made[equal])
        replaced += 1
    if replaced:
        graph.cleanup().toposort()
    return replaced


def _tensors_of_mask(graph: gs.Graph, mask: gs.Variable) -> Iterator[tuple[gs.Variable, list[gs.Node]]]:
    """The tensors that depend on the mask, and otherwise on sizes alone, and that another node reads.

    Each comes with the nodes that compute it.
    """
    graph.toposort()
    inputs = {id(tensor) for tensor in graph.inputs}
    depends: dict[int, bool] = {id(mask): True}  # of a tensor of mask and sizes: whether it depends on the mask
    nodes: dict[int, list[gs.Node]] = {id(mask): []}
    for node in graph.nodes:
        read = [tensor for tensor in node.inputs if isinstance(tensor, gs.Variable) and not tensor.is_empty()]
        of_size = node.op == "Shape" and id(read[0]) in inputs
        if not of_size and not all(id(tensor) in depends for tensor in read):
            continue
        before = {id(each): each for tensor in read for each in nodes.get(id(tensor), [])}
        for out in node.outputs:
            depends[id(out)] = not of_size and any(depends[id(tensor)] for tensor in read)
            nodes[id(out)] = [*before.values(), node]
    for node in list(graph.nodes):
        for out in node.outputs:
            readers = [reader for reader, _ in uses_of(out)]
            leaves = any(id(each) not in depends for reader in readers for each in reader.outputs)
            if depends.get(id(out)) and leaves and not is_output(graph, out):
                yield out, nodes[id(out)]


@dataclass(frozen=True)
class _Form:
    """One form that a mask can take.

    Attributes:
        rank: of its tensor, whose first dimension is the batch.
        keeps: from a mask bool [batch, sequence], where the form is true, as an array that broadcasts to the tensor.
        emit: adds its nodes, given the mask and the mask as booleans.
        nodes: the number of nodes that it has at most.
    """

    rank: int
    keeps: Callable[[np.ndarray], np.ndarray]
    emit: Callable[[gs.Graph, str, gs.Variable, gs.Variable], gs.Variable]
    nodes: int


@dataclass(frozen=True)
class _Equal:
    """A form, and the two values that a tensor has where the form is true and where it is false.

    Attributes:
        dtype: of the tensor: float32 or bool.
    """

    form: str
    kept: float
    masked: float
    dtype: np.dtype


def masks_to_compare(longest: int) -> Iterator[np.ndarray]:
    """Masks int64 [batch, sequence]: full, padded on the right and on the left, with holes, with one token."""
    rng = np.random.default_rng(0)
    for length in sorted({size for size in _SHORT if size < longest} | {longest}):
        at = np.arange(length)
        kinds = [at >= 0, at <= length // 2, at >= length // 2, at % 3 != 1, at == 0, at == length - 1]
        kinds.append(rng.random(length) < 0.5)
        # The longest one is large: two kinds that together have every pair of kept and masked neighbours.
        yield np.array([kinds[0], kinds[-1]] if length > max(_SHORT) else kinds).astype(np.int64)


def _find_equal(graph: gs.Graph, tensor: gs.Variable, nodes: list[gs.Node], longest: int) -> _Equal | None:
    """The form that a tensor equals on every mask; None where it equals none, or where its nodes are as few."""
    sizes, dtype = sizes_of(tensor), np.dtype(tensor.dtype or np.float32)
    if sizes is None or dtype not in (np.float32, np.bool_):
        return None
    session, names = _open(graph, tensor, nodes)
    open_forms: dict[str, tuple[set[float], set[float]]] = {
        name: (set(), set()) for name, form in _FORMS.items() if form.rank == len(sizes)
    }
    for mask in masks_to_compare(longest):
        found = session.run(None, {name: mask if name == ATTENTION_MASK else np.zeros_like(mask) for name in names})[0]
        for name, (kept, masked) in list(open_forms.items()):
            keep = np.broadcast_to(_FORMS[name].keeps(mask.astype(bool)), found.shape)
            kept |= set(np.unique(found[keep]).tolist())
            masked |= set(np.unique(found[~keep]).tolist())
            if len(kept) > 1 or len(masked) > 1:
                del open_forms[name]
        if not open_forms:
            return None
    name, (kept, masked) = next(iter(open_forms.items()))
    if kept == masked or len(nodes) <= _FORMS[name].nodes:
        return None
    return _Equal(name, kept.pop(), masked.pop(), dtype)


def _open(graph: gs.Graph, tensor: gs.Variable, nodes: list[gs.Node]) -> tuple[ort.InferenceSession, list[str]]:
    """A session that computes one tensor, and the names of the inputs that it needs."""
    read = {id(each) for node in nodes for each in node.inputs}
    inputs = [each for each in graph.inputs if id(each) in read]
    part = gs.Graph(nodes, inputs, [tensor], opset=graph.opset, import_domains=graph.import_domains)
    part.ir_version = graph.ir_version
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = gs.export_onnx(part).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]), [each.name for each in inputs]


def _readers_broadcast(tensor: gs.Variable) -> bool:
    """Returns whether all that reads a tensor takes its form, which may have ones where the tensor has sizes."""
    for node, index in uses_of(tensor):
        others = [sizes_of(each) for position, each in enumerate(node.inputs) if position != index]
        if node.op not in _BROADCASTS or sizes_of(node.outputs[0]) not in others:
            return False
    return True


def _emit_form(graph: gs.Graph, mask: gs.Variable, equal: _Equal) -> gs.Variable:
    name = f"mask/{equal.form}"
    keep = emit(graph, "Cast", f"{name}_bool", [mask], np.bool_, to=onnx.TensorProto.BOOL)
    keep = _FORMS[equal.form].emit(graph, name, mask, keep)
    if equal.dtype == np.bool_:
        return keep if equal.kept else emit(graph, "Not", f"{name}_not", [keep], np.bool_, shape=keep.shape)
    values = [
        gs.Constant(f"{name}_{part}", np.array(value, np.float32))
        for part, value in (("kept", equal.kept), ("masked", equal.masked))
    ]
    return emit(graph, "Where", f"{name}_values", [keep, *values], shape=keep.shape)


def _emit_keys(graph: gs.Graph, name: str, mask: gs.Variable, keep: gs.Variable) -> gs.Variable:
    batch, sequence = mask.shape
    return emit(graph, "Unsqueeze", f"{name}_keys", [keep, [1, 2]], np.bool_, shape=[batch, 1, 1, sequence])


def _emit_pairs(graph: gs.Graph, name: str, mask: gs.Variable, keep: gs.Variable) -> gs.Variable:
    batch, sequence = mask.shape
    keys = _emit_keys(graph, name, mask, keep)
    queries = emit(graph, "Unsqueeze", f"{name}_queries", [keep, [1, 3]], np.bool_, shape=[batch, 1, sequence, 1])
    return emit(graph, "And", name, [keys, queries], np.bool_, shape=[batch, 1, sequence, sequence])


def _emit_causal(graph: gs.Graph, name: str, mask: gs.Variable, keep: gs.Variable) -> gs.Variable:
    batch, sequence = mask.shape
    length = emit(graph, "Shape", f"{name}_length", [mask], np.int64, start=1)
    length = emit(graph, "Squeeze", f"{name}_length_number", [length], np.int64, shape=[])
    at = emit(graph, "Range", f"{name}_positions", [0, length, 1], np.int64, shape=[sequence])
    query = emit(graph, "Unsqueeze", f"{name}_query_positions", [at, [1]], np.int64, shape=[sequence, 1])
    before = emit(graph, "LessOrEqual", f"{name}_before", [at, query], np.bool_, shape=[sequence, sequence])
    keys = _emit_keys(graph, name, mask, keep)
    return emit(graph, "And", name, [keys, before], np.bool_, shape=[batch, 1, sequence, sequence])


def _emit_tokens(graph: gs.Graph, name: str, mask: gs.Variable, keep: gs.Variable) -> gs.Variable:
    return emit(graph, "Unsqueeze", name, [keep, [2]], np.bool_, shape=[*mask.shape, 1])


_FORMS = {
    "keys": _Form(4, lambda mask: mask[:, None, None, :], _emit_keys, 3),
    "pairs": _Form(4, lambda mask: mask[:, None, None, :] & mask[:, None, :, None], _emit_pairs, 5),
    "causal": _Form(4, lambda mask: mask[:, None, None, :] & np.tri(mask.shape[1], dtype=bool), _emit_causal, 9),
    "tokens": _Form(3, lambda mask: mask[:, :, None], _emit_tokens, 2),
}
