"""Pass 4 for `--precision fp16 --target portable`: arithmetic in float16; inputs, outputs and rows stay float32.

Requires: a lifted graph.
Ensures: the same interface. A task's row is cast after it was chosen, never the whole table.
Does not: suit a CPU, which computes in float32 with casts around; see `half_storage.py`. Accelerators have float16.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass

__all__ = ["ConvertToHalf", "convert_to_half"]

_LIMITS = np.finfo(np.float16)


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
            tensor.values = _to_half(tensor.values)
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


def _to_half(values: np.ndarray) -> np.ndarray:
    """Masks have the smallest float32, which would be an infinity; a guard against zero must not become zero."""
    half = np.clip(values, _LIMITS.min, _LIMITS.max).astype(np.float16)
    lost = (half == 0) & (values != 0) & (np.size(values) == 1)
    return np.where(lost, _LIMITS.tiny, half).astype(np.float16)


def _convert_attributes(node: gs.Node) -> None:
    if node.op == "Cast" and node.attrs["to"] in (onnx.TensorProto.FLOAT, np.float32):
        node.attrs["to"] = onnx.TensorProto.FLOAT16
    value = node.attrs.get("value")
    if isinstance(value, gs.Constant) and value.dtype == np.float32:
        value.values = _to_half(value.values)


def _cast_input(graph: gs.Graph, tensor: gs.Variable) -> None:
    """Cast what is read of an input: behind the Gather that chooses a task's row, or else the input itself."""
    readers = list(tensor.outputs)
    if readers and all(reader.op == "Gather" and reader.inputs[0] is tensor for reader in readers):
        for reader in readers:
            _insert_cast(graph, reader.outputs[0], reader)
        return
    half = gs.Variable(f"{tensor.name}/half", np.float16, tensor.shape)
    for reader in readers:
        reader.inputs = [half if each is tensor else each for each in reader.inputs]
    to_half = {"to": onnx.TensorProto.FLOAT16}
    graph.nodes.append(gs.Node("Cast", f"{tensor.name}/to_half", to_half, inputs=[tensor], outputs=[half]))


def _insert_cast(graph: gs.Graph, row: gs.Variable, reader: gs.Node) -> None:
    single = gs.Variable(f"{row.name}/single", np.float32, row.shape)
    reader.outputs[0] = single
    to_half = {"to": onnx.TensorProto.FLOAT16}
    graph.nodes.append(gs.Node("Cast", f"{row.name}/to_half", to_half, inputs=[single], outputs=[row]))


def _cast_output(graph: gs.Graph, tensor: gs.Variable) -> None:
    """The output keeps its name and type; what made it makes a float16 tensor that is cast."""
    half = gs.Variable(f"{tensor.name}/half", np.float16, tensor.shape)
    maker = tensor.inputs[0]
    maker.outputs = [half if each is tensor else each for each in maker.outputs]
    tensor.dtype = np.dtype(np.float32)
    to_single = {"to": onnx.TensorProto.FLOAT}
    graph.nodes.append(gs.Node("Cast", f"{tensor.name}/to_single", to_single, inputs=[half], outputs=[tensor]))
