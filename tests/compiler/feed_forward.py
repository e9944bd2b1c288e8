"""A feed-forward block as the passes meet it after the biases were lifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from bitfit_export.compiler.passes.quantize_weights import quantize_weights

__all__ = ["SHAPE", "N", "X", "lifted_model", "operators", "run"]

N = 64
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(0, 0.3, (2, N, N)).astype(np.float32)
SCALE = RANDOM.normal(1, 0.2, N).astype(np.float32)
SHAPE = ["batch", "sequence", N]
X = RANDOM.normal(0, 1, (2, 3, N)).astype(np.float32)


def lifted_model(bias_shape: Sequence[int | str] = (N,), *, precision: str = "fp32") -> onnx.ModelProto:
    """y = LayerNorm(x + gelu(x @ W + b) @ V + c), with b and c as inputs: a feed-forward block after lift."""
    names = {"x": ["batch", "sequence", N], "b": list(bias_shape), "c": list(bias_shape)}
    inputs = {name: gs.Variable(name, np.float32, shape) for name, shape in names.items()}
    graph = gs.Graph(inputs=list(inputs.values()), opset=20, ir_version=10)

    def emit(op: str, name: str, *tensors: gs.Tensor, **attributes: object) -> gs.Variable:
        out = gs.Variable(name, np.float32, SHAPE)
        graph.nodes.append(gs.Node(op, f"{name}/node", attributes, list(tensors), [out]))
        return out

    first = emit("Add", "first", emit("MatMul", "up", inputs["x"], gs.Constant("W", WEIGHTS[0])), inputs["b"])
    second = emit("MatMul", "down", emit("Gelu", "activated", first), gs.Constant("V", WEIGHTS[1]))
    total = emit("Add", "total", emit("Add", "second", second, inputs["c"]), inputs["x"])
    graph.outputs = [emit("LayerNormalization", "y", total, gs.Constant("scale", SCALE), axis=-1)]
    if precision != "fp32":
        quantize_weights(graph, precision)
    model: onnx.ModelProto = gs.export_onnx(graph)
    return model


def run(model: onnx.ModelProto, b: float = 0.3, c: float = -0.4, shape: Sequence[int] = (N,)) -> np.ndarray:
    """The graph as it is, unoptimised."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ramp = np.linspace(0, 1, N, dtype=np.float32)
    biases = {"b": np.broadcast_to(b * ramp, shape), "c": np.broadcast_to(c * ramp, shape)}
    (result,) = session.run(None, {"x": X, **{name: np.ascontiguousarray(each) for name, each in biases.items()}})
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
