"""Sequences of tensors become plain splits: the exporter writes `torch.chunk` and `torch.split` as a sequence."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.edit import uses_of
from bitfit_export.compiler.graph.shapes import known_integers, sizes_of

__all__ = ["split_sequences"]


def split_sequences(graph: gs.Graph) -> None:
    """Replaces each SplitToSequence whose parts are read by number by a Split, in place."""
    for node in [each for each in graph.nodes if each.op == "SplitToSequence"]:
        readers = [reader for reader, _ in uses_of(node.outputs[0])]
        places = [known_integers(reader.inputs[1]) for reader in readers if reader.op == "SequenceAt"]
        sizes = _part_sizes(node)
        if sizes is None or len(places) != len(readers) or None in places:
            continue
        parts = [
            gs.Variable(f"{node.outputs[0].name}/part_{number}", node.inputs[0].dtype) for number in range(len(sizes))
        ]
        for reader, place in zip(readers, places, strict=True):
            assert place is not None
            # Several nodes may read the same part.
            graph.nodes.append(gs.Node("Identity", f"{reader.name}/part", {}, [parts[place[0]]], [reader.outputs[0]]))
            reader.inputs.clear()
            reader.outputs.clear()
        axis = node.attrs.get("axis", 0)
        node.op, node.attrs = "Split", {"axis": axis}
        node.inputs = [node.inputs[0], int64s(f"{node.name}/sizes", sizes)]
        node.outputs = parts
    graph.cleanup().toposort()


def _part_sizes(node: gs.Node) -> list[int] | None:
    """The sizes of the parts; None where they are not known, or an axis is lost on the way."""
    whole = sizes_of(node.inputs[0])
    split = known_integers(node.inputs[1]) if len(node.inputs) > 1 else [1]
    if whole is None or not split or (len(node.inputs) < 2 and not node.attrs.get("keepdims", 1)):
        return None
    size = whole[node.attrs.get("axis", 0)]
    if len(split) > 1 or not isinstance(size, int):
        return split if len(split) > 1 else None
    return [min(split[0], size - start) for start in range(0, size, split[0])]
