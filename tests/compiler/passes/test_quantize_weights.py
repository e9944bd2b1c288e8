"""Matrices and tables become integers; everything else stays as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
ort = pytest.importorskip("onnxruntime")

from bitfit_export.compiler.calibration.rounding import quantize_blocks  # noqa: E402
from bitfit_export.compiler.passes.quantize_weights import INT4_BLOCK, quantize_weights  # noqa: E402
from bitfit_export.errors import CompileError  # noqa: E402
from tests.compiler.rounded import K, N, random_matrix, rounded_blocks, stats_of  # noqa: E402


def linear_graph(weight: np.ndarray, *, transposed: bool = False, products: int = 1) -> gs.Graph:
    """y = x @ weight + bias, some times over from one x."""
    x = gs.Variable("x", np.float32, ["batch", "sequence", weight.shape[0]])
    graph = gs.Graph(inputs=[x], opset=20, ir_version=10)
    for number in range(products):
        matrix = gs.Constant(f"weight_{number}", np.ascontiguousarray(weight.T if transposed else weight))
        if transposed:
            turned = gs.Variable(f"turned_{number}", np.float32)
            graph.nodes.append(gs.Node("Transpose", f"turn_{number}", {"perm": [1, 0]}, [matrix], [turned]))
            matrix = turned
        product = gs.Variable(f"product_{number}", np.float32)
        y = gs.Variable(f"y_{number}", np.float32, ["batch", "sequence", weight.shape[1]])
        bias = gs.Constant(f"bias_{number}", np.linspace(-1, 1, weight.shape[1], dtype=np.float32))
        graph.nodes.append(gs.Node("MatMul", f"multiply_{number}", {}, [x, matrix], [product]))
        graph.nodes.append(gs.Node("Add", f"add_{number}", {}, [product, bias], [y]))
        graph.outputs.append(y)
    return graph


def run(graph: gs.Graph, **feeds: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime computes, without and with its optimiser; both must agree."""
    model = gs.export_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    results = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, feeds))
    for plain, optimised in zip(*results, strict=True):
        np.testing.assert_allclose(optimised, plain, rtol=1e-5, atol=1e-5)
    return results[0]


def operators(graph: gs.Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("transposed", [False, True])
def test_an_int8_product_is_what_onnx_says_it_is(transposed: bool) -> None:
    weight, x = random_matrix(), np.random.default_rng(1).normal(0.3, 1, (2, 5, K)).astype(np.float32)
    graph = linear_graph(weight, transposed=transposed)
    quantize_weights(graph, "int8")

    # DynamicQuantizeLinear and MatMulInteger by their definitions, in float64.
    x_scale = (x.max() - x.min()) / 255
    x_zero = np.clip(np.rint(-x.min() / x_scale), 0, 255)
    x_rounded = (np.clip(np.rint(x / x_scale) + x_zero, 0, 255) - x_zero) * x_scale
    pairs = [np.clip(sign * weight, 0, None).reshape(-1, 2, N).sum(axis=1).max(axis=0) for sign in (1, -1)]
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, np.maximum(*pairs) / 128)
    expected = x_rounded.astype(np.float64) @ (np.rint(weight / scale) * scale) + np.linspace(-1, 1, N)
    (found,) = run(graph, x=x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_int4_product_is_that_of_the_rounded_weights() -> None:
    weight, x = random_matrix(), np.random.default_rng(1).normal(0.3, 1, (2, 5, K)).astype(np.float32)
    graph = linear_graph(weight)
    quantize_weights(graph, "int4")
    rounded = rounded_blocks(*quantize_blocks(weight, INT4_BLOCK), INT4_BLOCK)
    (found,) = run(graph, x=x)
    np.testing.assert_allclose(found, x @ rounded + np.linspace(-1, 1, N), rtol=1e-4, atol=1e-4)


def test_int4_raises_the_opset_to_the_first_with_blocks() -> None:
    graph = gs.import_onnx(gs.export_onnx(linear_graph(random_matrix())))
    quantize_weights(graph, "int4")
    assert gs.export_onnx(graph).opset_import[0].version == 21


def test_products_of_one_tensor_share_its_quantisation() -> None:
    graph = linear_graph(random_matrix(), products=3)
    report = quantize_weights(graph, "int8")
    products = [node for node in graph.nodes if node.op == "MatMulInteger"]
    assert len(products) == report.matrices == 3
    assert len({id(tensor) for node in products for tensor in (node.inputs[0], node.inputs[2])}) == 2


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_matrix_that_layers_share_is_quantised_once(precision: str) -> None:
    """As ALBERT's are. Whoever else reads one of the inputs may want other channels evened."""
    graph = linear_graph(random_matrix(), products=3)
    first, second, _ = (node for node in graph.nodes if node.op == "MatMul")
    second.inputs[1] = first.inputs[1]
    x = np.random.default_rng(1).normal(0, 1, (10, K)).astype(np.float32)
    large, plain = stats_of(np.where(np.arange(K) == 3, 100 * x, x)), stats_of(x)
    read = {"multiply_0": large, "multiply_1": large, "multiply_2": plain}
    assert quantize_weights(graph, precision, read).matrices == 3
    stored = [each for each in graph.tensors().values() if each.name.endswith(f"/{precision}")]
    assert len(stored) == 2
    x = x.reshape(2, 5, K)
    for found, observed in zip(run(graph, x=x), (large, large, plain), strict=True):
        alone = linear_graph(random_matrix())
        quantize_weights(alone, precision, {"multiply_0": observed})
        np.testing.assert_allclose(found, run(alone, x=x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_biases_stay_as_they_are_where_they_are(precision: str) -> None:
    graph = linear_graph(random_matrix())
    (add,) = (node for node in graph.nodes if node.op == "Add")
    bias = add.inputs[1]
    quantize_weights(graph, precision)
    assert any(node is add for node in graph.nodes)
    assert add.inputs[1] is bias
    np.testing.assert_array_equal(bias.values, np.linspace(-1, 1, N, dtype=np.float32))


def table_graph(rows: int) -> gs.Graph:
    """Rows of a table by their ids, times a matrix."""
    graph = linear_graph(random_matrix())
    ids = gs.Variable("ids", np.int64, ["batch", "sequence"])
    table = gs.Constant("table", random_matrix(K, rows, seed=2).T.copy())
    found = gs.Variable("found", np.float32, ["batch", "sequence", K])
    graph.nodes.append(gs.Node("Gather", "look_up", {"axis": 0}, [table, ids], [found]))
    graph.inputs, graph.outputs = [ids], [found, *graph.outputs]
    for node in graph.nodes:
        node.inputs = [found if each.name == "x" else each for each in node.inputs]
    return graph.toposort()


def test_a_vocabulary_becomes_int8_with_a_scale_for_each_row() -> None:
    graph = table_graph(5000)
    table, ids = graph.tensors()["table"].values, np.array([[0, 4999, 17], [17, 1, 2]])
    assert quantize_weights(graph, "int8").tables == 1
    found, _ = run(graph, ids=ids)
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table[ids]) <= step[ids] * 0.5001).all()


def test_rows_are_looked_up_before_they_become_floats() -> None:
    """So no runtime can dequantise the whole table when it loads the model."""
    graph = table_graph(5000)
    quantize_weights(graph, "int8")
    readers = {node.op for node in graph.nodes for each in node.inputs if each.name == "look_up/int8"}
    assert readers == {"Gather"}
    assert "table" not in graph.tensors()


def test_a_table_of_positions_stays_float32() -> None:
    graph = table_graph(512)
    assert quantize_weights(graph, "int8").tables == 0
    assert graph.tensors()["table"].values.dtype == np.float32


def test_int4_leaves_a_matrix_that_its_blocks_do_not_divide_and_says_so() -> None:
    graph = linear_graph(random_matrix(K + 8))
    report = quantize_weights(graph, "int4")
    assert report.matrices == 0
    assert report.kept == {"multiply_0": f"{K + 8} rows are not a multiple of the block, {INT4_BLOCK}"}
    assert "DequantizeLinear" not in operators(graph)


def test_a_product_of_two_inputs_is_no_weight() -> None:
    x = gs.Variable("x", np.float32, ["batch", 4, 4])
    y = gs.Variable("y", np.float32, ["batch", 4, 4])
    graph = gs.Graph([gs.Node("MatMul", "scores", {}, [x, x], [y])], [x], [y], opset=20)
    with pytest.raises(CompileError, match="no product with a constant matrix"):
        quantize_weights(graph, "int8")


def test_a_weight_that_is_not_finite_is_refused() -> None:
    weight = random_matrix()
    weight[1, 2] = np.inf
    with pytest.raises(CompileError, match="multiply_0 has a value that is not finite"):
        quantize_weights(linear_graph(weight), "int8")


def test_a_channel_that_is_much_larger_does_not_take_all_the_steps() -> None:
    channels = 400
    weight = random_matrix(channels)
    x = np.random.default_rng(1).normal(0, 1, (2, 5, channels)).astype(np.float32)
    x[..., 5] *= 10
    expected = x.astype(np.float64) @ weight + np.linspace(-1, 1, N)
    errors = []
    for observed in ({}, {"multiply_0": stats_of(x.reshape(-1, channels))}):
        graph = linear_graph(weight)
        quantize_weights(graph, "int8", observed)
        errors.append(float(np.abs(run(graph, x=x)[0] - expected).mean()))
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_a_channel_that_stays_float_is_exact_whatever_the_others_are(precision: str) -> None:
    """Here it alone is not zero: its integers are, and what it makes is added."""
    weight, x = random_matrix(), np.random.default_rng(1).uniform(-1, 1, (200, K)).astype(np.float32)
    x[:, [5, 40]] *= 30
    graph = linear_graph(weight)
    quantize_weights(graph, precision, {"multiply_0": stats_of(x)})
    tensors = graph.tensors()
    np.testing.assert_array_equal(tensors["multiply_0/float_rows"].values, weight[[5, 40]])
    alone = np.where(np.arange(K) == 40, np.float32(1 / 3), 0)[np.newaxis, np.newaxis].astype(np.float32)
    expected = alone @ weight - tensors["multiply_0/excess"].values + np.linspace(-1, 1, N)
    np.testing.assert_allclose(run(graph, x=alone)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_can_still_add_a_bias_that_comes_before_what_channels_in_float_make() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (200, K)).astype(np.float32)
    x[:, [5, 40]] *= 30
    graph = linear_graph(random_matrix())
    (add,) = (node for node in graph.nodes if node.op == "Add")
    quantize_weights(graph, "int8", {"multiply_0": stats_of(x)})
    assert add.inputs[0].inputs[0].name == "multiply_0/corrected"
    assert add.o().name == "multiply_0/with_floats"


@pytest.mark.parametrize(("precision", "products"), [("int8", 2), ("int8-static", 0)])
def test_channels_of_about_one_size_are_not_multiplied(precision: str, products: int) -> None:
    graph = linear_graph(random_matrix())
    x = np.random.default_rng(1).uniform(-1, 1, (200, K)).astype(np.float32)
    quantize_weights(graph, precision, {"multiply_0": stats_of(x)})
    assert operators(graph).count("Mul") == products


def test_a_static_product_rounds_to_the_range_that_the_report_has() -> None:
    weight, x = random_matrix(), np.random.default_rng(1).uniform(-1, 2, (2, 5, K)).astype(np.float32)
    graph = linear_graph(weight)
    report = quantize_weights(graph, "int8-static", {"multiply_0": stats_of(x.reshape(-1, K))})
    (each,) = report.ranges.values()
    tensors = graph.tensors()
    integers, scale = (tensors[f"multiply_0/{part}"].values for part in ("int8", "int8_scale"))
    rounded = (np.clip(np.rint(x / each.scale) + each.zero_point, 0, 255) - each.zero_point) * each.scale
    expected = rounded.astype(np.float64) @ (integers * scale) - tensors["multiply_0/excess"].values
    (found,) = run(graph, x=x)
    np.testing.assert_allclose(found, expected + np.linspace(-1, 1, N), rtol=1e-4, atol=1e-4)
    exact = x @ weight + np.linspace(-1, 1, N)
    assert np.abs(found - exact).mean() < 0.02 * np.abs(exact).mean()


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
@pytest.mark.parametrize("signed", [True, False])
def test_tokens_of_very_different_sizes_are_divided_by_them(precision: str, signed: bool) -> None:
    random = np.random.default_rng(1)
    x = random.normal(0, 1, (50, K)) * np.where(np.arange(50) % 10 == 0, 50, 1)[:, np.newaxis]
    x = (x if signed else np.abs(x)).astype(np.float32)
    weight = random_matrix()
    graph = linear_graph(weight)
    report = quantize_weights(graph, precision, {"multiply_0": stats_of(x)})
    assert operators(graph).count("Reciprocal") == 1
    assert operators(graph).count("Abs") == signed
    assert report.ranges.keys() == {"multiply_0"}
    (found,) = run(graph, x=x[np.newaxis])
    error = np.abs(found[0] - x @ weight - np.linspace(-1, 1, N)).mean(axis=1)
    assert (error < 0.03 * np.abs(x @ weight).mean(axis=1)).all()


def test_a_token_of_zeros_stays_zero() -> None:
    random = np.random.default_rng(1)
    x = (random.normal(0, 1, (50, K)) * np.where(np.arange(50) % 10 == 0, 50, 1)[:, np.newaxis]).astype(np.float32)
    graph = linear_graph(random_matrix())
    quantize_weights(graph, "int8-static", {"multiply_0": stats_of(x)})
    (found,) = run(graph, x=np.zeros((1, 1, K), np.float32))
    np.testing.assert_allclose(found[0, 0], np.linspace(-1, 1, N), atol=1e-5)


def test_static_ranges_need_texts() -> None:
    with pytest.raises(CompileError, match="int8-static needs the ranges of activations"):
        quantize_weights(linear_graph(random_matrix()), "int8-static")


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_a_product_that_integers_cannot_compute_stays_in_float(precision: str) -> None:
    """Its channels cancel out: every token's product is far smaller than what is added up."""
    random = np.random.default_rng(1)
    half, base = random.normal(0, 1, (40, K // 2)), random.normal(0, 1, (K // 2, N))
    x = np.concatenate([half, half + 0.001 * random.normal(0, 1, half.shape)], axis=1).astype(np.float32)
    weight = np.concatenate([base, -base]).astype(np.float32)
    graph = linear_graph(weight)
    report = quantize_weights(graph, precision, {"multiply_0": stats_of(x)})
    assert report.kept == {"multiply_0": "integers would change its results by more than 5%"}
    assert report.matrices == 0
    assert not report.ranges
    assert "MatMul" in operators(graph)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_an_int8_product_is_exact_on_every_processor(rows: int) -> None:
    """On x86 without VNNI the products of two neighbouring rows are added in 16 bits, and saturate there."""
    weight = np.full((K, N), 0.5, np.float32)
    weight[:, ::2] *= -1
    x = np.full((1, rows, K), 3, np.float32)
    graph = linear_graph(weight)
    quantize_weights(graph, "int8")
    np.testing.assert_allclose(run(graph, x=x)[0], x @ weight + np.linspace(-1, 1, N), rtol=1e-2)


def test_int4_weights_that_know_what_they_multiply_give_the_better_product() -> None:
    random = np.random.default_rng(3)
    weight = random_matrix()
    # Activations of few dimensions, as they are in a model: that leaves errors a direction to go to.
    x = (random.normal(0, 1, (2, 100, 16)) @ random.normal(0, 1, (16, K))).astype(np.float32)
    rows = x.reshape(-1, K).astype(np.float64)
    errors = []
    for gram in (None, rows.T @ rows):
        graph = linear_graph(weight)
        observed = dataclasses.replace(stats_of(x.reshape(-1, K)), gram=gram)
        quantize_weights(graph, "int4", {} if gram is None else {"multiply_0": observed})
        errors.append(float(np.square(run(graph, x=x)[0] - x @ weight - np.linspace(-1, 1, N)).mean()))
    assert errors[1] < 0.75 * errors[0]
