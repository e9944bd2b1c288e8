"""Pass 4, lift: bias constants become graph inputs, in one of three layouts.

Requires: every bias term of the layout is a constant with sites that `find_bias_sites` accepted.
Ensures: no bias is a constant any more, and every value of a row has a use. The graph gets these inputs:

- `table`: `task_ids` int64 [batch or 1] and `bias_table` float32 [tasks, N]. A row of the batch gets its own values:

      bias_table -- Gather by task_ids --> [b, N] -- Unsqueeze --> [b, 1, N] -- Split --> [b, 1, n] each

  where b is the batch, or 1 when one task serves the whole batch: then the dimension broadcasts;
- `packed`: `bias` float32 [N], one task for the whole batch, split into [n] each;
- `named`: a float32 [n] for each bias term, under its state-dict name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from bitfit_export.bundle import Layout
from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.edit import detach, emit
from bitfit_export.compiler.passes.attach_heads import HeadRows
from bitfit_export.compiler.passes.find_bias_sites import BiasSite

__all__ = [
    "BIAS_SPLIT",
    "BIAS_TABLE",
    "PACKED_BIAS",
    "TASK_IDS",
    "add_defaults",
    "declare_inputs",
    "head_rows",
    "lift_biases",
]

TASK_IDS = "task_ids"
BIAS_TABLE = "bias_table"
PACKED_BIAS = "bias"
#: The name of the node that cuts a row into bias terms.
BIAS_SPLIT = "bias_split"


def declare_inputs(graph: gs.Graph, layout: Layout, kind: str) -> dict[str, gs.Variable]:
    """Add the inputs that bring the biases; give them by name."""
    if kind == "named":
        # The inputs take the constants' names.
        tensors = graph.tensors()
        for entry in layout.biases:
            tensors[entry.name].name = f"{entry.name}/base"
    shapes: dict[str, list[int | str]]
    if kind == "named":
        shapes = {entry.name: [*entry.shape] for entry in layout.biases}
    else:
        shapes = {BIAS_TABLE: ["tasks", layout.bias_count]} if kind == "table" else {PACKED_BIAS: [layout.bias_count]}
    inputs = {name: gs.Variable(name, np.float32, shape) for name, shape in shapes.items()}
    if kind == "table":
        inputs = {TASK_IDS: gs.Variable(TASK_IDS, np.int64, ["task_batch"]), **inputs}
    graph.inputs += inputs.values()
    return inputs


def head_rows(graph: gs.Graph, inputs: Mapping[str, gs.Variable]) -> HeadRows:
    """How a head input becomes values for each row of the batch, [batch or 1, ...]."""
    task_ids = inputs.get(TASK_IDS)

    def rows(tensor: gs.Variable) -> gs.Variable:
        if task_ids is None:
            return emit(graph, "Unsqueeze", f"{tensor.name}/row", [tensor, [0]])
        return emit(graph, "Gather", f"{tensor.name}/row", [tensor, task_ids], axis=0)

    return rows


def lift_biases(
    graph: gs.Graph, sites: Sequence[BiasSite], layout: Layout, kind: str, inputs: Mapping[str, gs.Variable]
) -> None:
    """Replace each site's constant by its part of the inputs."""
    if kind == "table":
        values = _split_table(graph, layout, inputs)
    elif kind == "packed":
        values = _split(graph, layout, inputs[PACKED_BIAS], leading=[])
    else:
        values = dict(inputs)
    for number, site in enumerate(sites):
        value = values[site.name]
        if kind == "table" and site.rank == 2:
            value = emit(graph, "Squeeze", f"{site.name}/row_2d_{number}", [value, [1]])
        _reconnect(graph, site, value, number)
    graph.cleanup().toposort()


def add_defaults(model: onnx.ModelProto, layout: Layout, biases: Mapping[str, np.ndarray], *, labels: int = 1) -> None:
    """Give each input of the named layout a default: the biases' values [n], and a head that is all zero.

    ONNX Runtime's Python `LoraAdapter` feeds inputs that have one, and no others.
    """
    values = {entry.name: biases[entry.name] for entry in layout.biases}
    values |= {entry.name: np.zeros(entry.resolve(labels)) for entry in layout.head}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))


def _split_table(graph: gs.Graph, layout: Layout, inputs: Mapping[str, gs.Variable]) -> dict[str, gs.Variable]:
    row = emit(graph, "Gather", "bias_row", [inputs[BIAS_TABLE], inputs[TASK_IDS]], axis=0)
    row = emit(graph, "Unsqueeze", "bias_row_3d", [row, [1]])
    return _split(graph, layout, row, leading=["task_batch", 1])


def _split(
    graph: gs.Graph, layout: Layout, row: gs.Variable, *, leading: Sequence[int | str]
) -> dict[str, gs.Variable]:
    """The row, cut along its last axis into one slice a bias term."""
    sizes = int64s("bias_sizes", [entry.size for entry in layout.biases])
    # A new Variable for each slice: the constant of the same name keeps its own until nothing uses it.
    slices = {
        entry.name: gs.Variable(f"{entry.name}/row", np.float32, [*leading, entry.size]) for entry in layout.biases
    }
    axis = {"axis": len(leading)}
    graph.nodes.append(gs.Node("Split", BIAS_SPLIT, axis, inputs=[row, sizes], outputs=list(slices.values())))
    return slices


def _reconnect(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    if site.node.op == "LayerNormalization":
        _add_after(graph, site, value, number)
    else:
        site.node.inputs[site.index] = value


def _add_after(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    """LayerNormalization without a bias, then Add.

    The operator takes a bias of the normalised shape only; and ONNX Runtime would fuse a LayerNormalization that
    has one into SkipLayerNormalization, which is slower than the two nodes that it replaces.
    """
    del site.node.inputs[site.index]
    out = site.node.outputs[0]
    normalised = detach(out, f"{site.name}/normalised_{number}")
    emit(graph, "Add", f"{site.name}/add_{number}", [normalised, value], out=out)
