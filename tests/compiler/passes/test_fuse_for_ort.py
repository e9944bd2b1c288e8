"""ONNX Runtime's optimiser, run once at compile time, and the biases in its int8 kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")

from bitfit_export.compiler.passes.fuse_for_ort import add_biases_in_kernels, optimise_for_ort  # noqa: E402
from bitfit_export.compiler.passes.quantize_weights import quantize_weights  # noqa: E402
from bitfit_export.errors import CompileError  # noqa: E402

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
    for key in ("z", "a", "m"):
        model.metadata_props.add(key=key, value="abc")
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


def test_the_slow_kernels_do_not_appear() -> None:
    found = operators(optimise_for_ort(lifted_model()))
    assert "SkipLayerNormalization" not in found
    assert "BiasGelu" not in found
    assert sorted(found) == ["Add", "Add", "Add", "Gelu", "LayerNormalization", "MatMul", "MatMul"]


@pytest.mark.parametrize(
    ("precision", "kernels"), [("int8", {"DynamicQuantizeMatMul"}), ("int4", {"MatMulNBits"})], ids=["int8", "int4"]
)
def test_quantised_products_become_kernels_of_onnx_runtime(precision: str, kernels: set[str]) -> None:
    found = set(operators(optimise_for_ort(lifted_model(precision=precision))))
    assert kernels <= found
    assert not found & {"MatMul", "MatMulInteger", "DequantizeLinear"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_results_are_the_same_for_any_bias(precision: str) -> None:
    model = lifted_model(precision=precision)
    optimised = optimise_for_ort(model)
    for b, c in ((0, 0), (0.3, -0.4), (-2, 1)):
        np.testing.assert_allclose(run(optimised, b, c), run(model, b, c), atol=2e-5)


def test_inputs_outputs_and_metadata_stay() -> None:
    model = lifted_model()
    optimised = optimise_for_ort(model)
    assert list(optimised.graph.input) == list(model.graph.input)
    assert list(optimised.graph.output) == list(model.graph.output)
    assert [(each.key, each.value) for each in optimised.metadata_props] == [("z", "abc"), ("a", "abc"), ("m", "abc")]


def test_the_same_model_gives_the_same_bytes() -> None:
    first, second = (optimise_for_ort(lifted_model(precision="int8")).SerializeToString() for _ in range(2))
    assert first == second


def test_the_model_holds_its_own_weights_and_names_the_domains_that_it_uses() -> None:
    optimised = optimise_for_ort(lifted_model(precision="int8"))
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in optimised.graph.initializer)
    assert {opset.domain for opset in optimised.opset_import} == {"", "com.microsoft"}
    assert {opset.domain for opset in optimise_for_ort(lifted_portable()).opset_import} == {""}


def lifted_portable() -> onnx.ModelProto:
    """A graph that the optimiser has no kernel of its own for."""
    x = gs.Variable("x", np.float32, ["batch", N])
    y = gs.Variable("y", np.float32, ["batch", N])
    return gs.export_onnx(gs.Graph([gs.Node("Relu", "relu", {}, [x], [y])], [x], [y], opset=20, ir_version=10))


def test_a_graph_that_onnx_runtime_refuses_is_a_compile_error() -> None:
    model = lifted_portable()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(CompileError, match=r"ONNX Runtime can.t load the compiled graph: .*NoSuchOperator"):
        optimise_for_ort(model)


def test_int8_kernels_add_one_dimensional_biases_themselves() -> None:
    model = optimise_for_ort(lifted_model(precision="int8"))
    expected = [run(model, b, c) for b, c in ((0.3, -0.4), (-2, 1))]
    assert add_biases_in_kernels(model) == 2
    onnx.checker.check_model(model)
    assert operators(model).count("Add") == 1
    for (b, c), each in zip(((0.3, -0.4), (-2, 1)), expected, strict=True):
        np.testing.assert_allclose(run(model, b, c), each, atol=1e-5)


def test_biases_with_a_batch_dimension_stay_adds() -> None:
    model = optimise_for_ort(lifted_model(["rows", 1, N], precision="int8"))
    before = operators(model)
    assert add_biases_in_kernels(model) == 0
    assert operators(model) == before
    assert run(model, shape=(2, 1, N)).shape == X.shape


@pytest.mark.parametrize("reader", ["a node", "the output"])
def test_a_product_that_is_read_elsewhere_keeps_its_add(reader: str) -> None:
    model = optimise_for_ort(lifted_model(precision="int8"))
    (product,) = (name for node in model.graph.node if node.output[0] == "first" for name in node.input if name != "b")
    if reader == "a node":
        model.graph.node.append(onnx.helper.make_node("Identity", [product], ["copy"]))
        product = "copy"
    model.graph.output.append(onnx.helper.make_tensor_value_info(product, onnx.TensorProto.FLOAT, SHAPE))
    assert add_biases_in_kernels(model) == 1
    onnx.checker.check_model(model)


def test_float_products_keep_their_adds() -> None:
    model = optimise_for_ort(lifted_model())
    assert add_biases_in_kernels(model) == 0
