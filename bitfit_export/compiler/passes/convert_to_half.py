"""Pass 4 for `--precision fp16 --target portable`: arithmetic in float16; inputs, outputs and rows stay float32.

Requires: a lifted graph.
Ensures: the same interface. A task's row is cast after it was chosen, never the whole table.
Does not: suit a CPU, which computes in float32 with casts around; see `store_in_half.py`. Accelerators have float16.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.edit import detach, emit, replace_uses
from bitfit_export.compiler.graph.half import to_half

__all__ = ["ConvertToHalf", "convert_to_half"]


class ConvertToHalf(Pass):
    """Compute in float16."""

    name = "convert_to_half"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        convert_to_half(compilation.graph)
        return True


def convert_to_half(graph: gs.Graph) -> None:
    """Convert a graph in place."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.dtype == np.float32:
            tensor.values = to_half(tensor.values)
    for node in graph.nodes:
        _convert_attributes(node)
    results = [output for node in graph.nodes for output in node.outputs]
    outputs = [output for output in graph.outputs if output.dtype == np.float32]
    for tensor in results:
        if tensor.dtype == np.float32:
            tensor.dtype = np.dtype(np.float16)
    for tensor in list(graph.inputs):
        if tensor.dtype == np.float32:
            _cast_input(graph, tensor)
    for tensor in outputs:
        _cast_output(graph, tensor)
    graph.cleanup().toposort()


def _convert_attributes(node: gs.Node) -> None:
    if node.op == "Cast" and node.attrs["to"] in (onnx.TensorProto.FLOAT, np.float32):
        node.attrs["to"] = onnx.TensorProto.FLOAT16
    value = node.attrs.get("value")
    if isinstance(value, gs.Constant) and value.dtype == np.float32:
        value.values = to_half(value.values)


def _cast_input(graph: gs.Graph, tensor: gs.Variable) -> None:
    """Cast what is read of an input: behind the Gather that chooses a task's row, or else the input itself."""
    readers = list(tensor.outputs)
    if readers and all(reader.op == "Gather" and reader.inputs[0] is tensor for reader in readers):
        for reader in readers:
            row = reader.outputs[0]
            single = detach(row, f"{row.name}/single")
            single.dtype = np.dtype(np.float32)
            emit(graph, "Cast", f"{row.name}/to_half", [single], out=row, to=onnx.TensorProto.FLOAT16)
        return
    half = gs.Variable(f"{tensor.name}/half", np.float16, tensor.shape)
    replace_uses(tensor, half)
    emit(graph, "Cast", f"{tensor.name}/to_half", [tensor], out=half, to=onnx.TensorProto.FLOAT16)


def _cast_output(graph: gs.Graph, tensor: gs.Variable) -> None:
    """The output keeps its name and type; what made it makes a float16 tensor that is cast."""
    half = detach(tensor, f"{tensor.name}/half")
    tensor.dtype = np.dtype(np.float32)
    emit(graph, "Cast", f"{tensor.name}/to_single", [half], out=tensor, to=onnx.TensorProto.FLOAT)
