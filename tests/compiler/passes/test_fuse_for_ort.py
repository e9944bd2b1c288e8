"""ONNX Runtime's optimiser, run once at compile time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")

from bitfit_export.compiler.passes.fuse_for_ort import optimise_for_ort  # noqa: E402
from bitfit_export.errors import CompileError  # noqa: E402
from tests.compiler.feed_forward import N, lifted_model, operators, run  # noqa: E402


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


def test_inputs_and_outputs_stay() -> None:
    model = lifted_model()
    optimised = optimise_for_ort(model)
    assert list(optimised.graph.input) == list(model.graph.input)
    assert list(optimised.graph.output) == list(model.graph.output)


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
