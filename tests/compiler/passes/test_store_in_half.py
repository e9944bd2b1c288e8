"""Weights in float16, everything else as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

ort = pytest.importorskip("onnxruntime")

import onnx_graphsurgeon as gs  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bitfit_export.compiler.passes.store_in_half import store_in_half  # noqa: E402
from bitfit_export.errors import CompileError  # noqa: E402

N = 64
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(0, 1, (50, N)).astype(np.float32)
WEIGHT = RANDOM.normal(0, 0.3, (N, N)).astype(np.float32)
IDS = np.array([[1, 49, 0], [7, 7, 2]])
BIAS = np.linspace(-1, 1, N, dtype=np.float32)


def model(weight: np.ndarray = WEIGHT) -> onnx.ModelProto:
    """y = (table[ids] @ W + bias) @ W, with the bias as an input."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0),
        helper.make_node("MatMul", ["rows", "W"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("MatMul", ["sum", "W"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("bias", TensorProto.FLOAT, [N]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", N])]
    weights = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(weight, "W")]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def in_half(full: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The model after the pass, and the number of weights that it stored."""
    graph = gs.import_onnx(full)
    stored = store_in_half(graph)
    return gs.export_onnx(graph), stored


def test_the_result_is_that_of_the_rounded_weights() -> None:
    half, stored = in_half(model())
    assert stored == 2
    onnx.checker.check_model(half, full_check=True)
    session = ort.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    table, weight = (each.astype(np.float16).astype(np.float64) for each in (TABLE, WEIGHT))
    expected = (table[IDS] @ weight + BIAS) @ weight
    np.testing.assert_allclose(session.run(None, {"ids": IDS, "bias": BIAS})[0], expected, atol=1e-4)


def test_the_file_is_half_as_large() -> None:
    full = model()
    half, _ = in_half(full)
    assert half.ByteSize() < 0.55 * full.ByteSize()


def test_a_matrix_is_cast_once_and_a_table_after_its_rows_are_taken() -> None:
    half, _ = in_half(model())
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.output[0]) for node in casts] == [("rows/half", "rows"), ("W/half", "W")]


def test_small_and_flat_tensors_stay_float32() -> None:
    small = model(WEIGHT)
    for name in ("scale", "little"):
        small.graph.node.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        small.graph.output.append(helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None))
    small.graph.initializer.append(numpy_helper.from_array(np.ones(5000, np.float32), "scale"))
    small.graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "little"))
    small, _ = in_half(small)
    kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    assert kinds["scale"] == kinds["little"] == TensorProto.FLOAT


def test_a_weight_beyond_float16_is_refused() -> None:
    weight = WEIGHT.copy()
    weight[0, 0] = 65504
    assert in_half(model(weight))[1] == 2
    weight[0, 0] = 70000
    with pytest.raises(CompileError, match="the weight W has a value of 7e"):
        in_half(model(weight))
