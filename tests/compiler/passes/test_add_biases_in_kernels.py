"""ONNX Runtime's int8 kernels add the bias to their product themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from bitfit_export.compiler.passes.add_biases_in_kernels import add_biases_in_kernels
from bitfit_export.compiler.passes.fuse_for_ort import optimise_for_ort
from tests.compiler.feed_forward import SHAPE, N, X, lifted_model, operators, run


def with_biases_in_kernels(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The model after the pass, and the number of Adds saved."""
    graph = gs.import_onnx(model)
    saved = add_biases_in_kernels(graph)
    return gs.export_onnx(graph), saved


def test_int8_kernels_add_one_dimensional_biases_themselves() -> None:
    model = optimise_for_ort(lifted_model(precision="int8"))
    expected = [run(model, b, c) for b, c in ((0.3, -0.4), (-2, 1))]
    model, saved = with_biases_in_kernels(model)
    assert saved == 2
    onnx.checker.check_model(model)
    assert operators(model).count("Add") == 1
    for (b, c), each in zip(((0.3, -0.4), (-2, 1)), expected, strict=True):
        np.testing.assert_allclose(run(model, b, c), each, atol=1e-5)


def test_biases_with_a_batch_dimension_stay_adds() -> None:
    model = optimise_for_ort(lifted_model(["rows", 1, N], precision="int8"))
    before = operators(model)
    model, saved = with_biases_in_kernels(model)
    assert saved == 0
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
    model, saved = with_biases_in_kernels(model)
    assert saved == 1
    onnx.checker.check_model(model)


def test_float_products_keep_their_adds() -> None:
    model = optimise_for_ort(lifted_model())
    assert with_biases_in_kernels(model)[1] == 0


def test_a_constant_that_is_subtracted_and_a_bias_are_added_together() -> None:
    model = lifted_model(precision="int8")
    graph = gs.import_onnx(model)
    excess = np.linspace(-1, 2, N, dtype=np.float32)
    for add in [node for node in graph.nodes if node.name in ("first/node", "second/node")]:
        less = gs.Variable(f"{add.name}/less", np.float32, SHAPE)
        subtracted = gs.Constant(f"{add.name}/excess", excess)
        graph.nodes.append(gs.Node("Sub", f"{add.name}/sub", {}, [add.inputs[0], subtracted], [less]))
        add.inputs[0] = less
    model = optimise_for_ort(gs.export_onnx(graph.toposort()))
    expected = [run(model, b, c) for b, c in ((0.3, -0.4), (-2, 1))]
    model, saved = with_biases_in_kernels(model)
    assert saved == 4
    onnx.checker.check_model(model)
    assert operators(model).count("Sub") == 0
    for (b, c), each in zip(((0.3, -0.4), (-2, 1)), expected, strict=True):
        np.testing.assert_allclose(run(model, b, c), each, atol=1e-5)


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_number_that_is_subtracted_stays(shape: tuple[int, ...]) -> None:
    graph = gs.import_onnx(lifted_model(precision="int8"))
    (add,) = (node for node in graph.nodes if node.name == "first/node")
    less = gs.Variable("less", np.float32, SHAPE)
    graph.nodes.append(
        gs.Node("Sub", "sub", {}, [add.inputs[0], gs.Constant("n", np.full(shape, 2, np.float32))], [less])
    )
    add.inputs[0] = less
    model = optimise_for_ort(gs.export_onnx(graph.toposort()))
    expected = run(model)
    model, _ = with_biases_in_kernels(model)
    assert operators(model).count("Sub") == 1
    np.testing.assert_allclose(run(model), expected, atol=1e-5)
