"""The pass quantize_for_htp: which integers a product is given, and what they lose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from bitfit_export.compiler.calibration.activation_stats import ActivationStats
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.passes.quantize_for_htp import Form, QuantizeForHtp
from bitfit_export.compiler.targets.qnn import TARGET

TOKENS, WIDTH, OUT = 4, 16, 8
MOST_ERROR = 0.01
FORMS = (Form(np.int8, np.uint16, MOST_ERROR), Form(np.int16, np.uint16))
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(256, WIDTH)).astype(np.float32)
EVEN = RANDOM.normal(size=(WIDTH, OUT)).astype(np.float32)
#: A row that no activation uses takes the steps of all others.
UNEVEN = EVEN * np.where(np.arange(WIDTH) == 0, 50, 1).astype(np.float32)[:, None]
BIAS = RANDOM.normal(size=OUT).astype(np.float32)


def product(weight: np.ndarray) -> gs.Graph:
    """x @ weight + bias, with the bias an input."""
    x, bias = gs.Variable("x", np.float32, (1, TOKENS, WIDTH)), gs.Variable("bias", np.float32, (OUT,))
    y, out = (gs.Variable(name, np.float32, (1, TOKENS, OUT)) for name in ("y", "out"))
    nodes = [
        gs.Node("MatMul", "product", {}, [x, gs.Constant("weight", weight)], [y]),
        gs.Node("Add", "add", {}, [y, bias], [out]),
    ]
    return gs.Graph(nodes, [x, bias], [out], opset=20)


def quantized(weight: np.ndarray, forms: tuple[Form, ...] = FORMS) -> Any:
    """What the pass makes of `product`, whose x is `X`, without its first channel."""
    x = np.where(np.arange(WIDTH) == 0, 0, X)
    read = ActivationStats(x.min(axis=0), x.max(axis=0), x.T @ x, x)
    compilation: Any = SimpleNamespace(
        graph=product(weight),
        statistics={"product": read},
        base=SimpleNamespace(biases={"bias": BIAS}),
        deltas={},
        fold=SimpleNamespace(apply=lambda biases: SimpleNamespace(biases=biases)),
    )
    assert QuantizeForHtp(forms).run(compilation) is True
    return compilation


def dtypes(compilation: Any) -> tuple[str, str]:
    """The dtypes of the weight and of the activations."""
    (gemm,) = [node for node in compilation.graph.nodes if node.op == "Gemm"]
    x, weight = gemm.inputs[0].inputs[0], gemm.inputs[1].inputs[0]
    return weight.inputs[0].dtype.name, x.inputs[2].dtype.name


def test_a_product_that_8_bits_change_too_much_has_weights_of_16() -> None:
    assert dtypes(quantized(EVEN)) == ("int8", "uint16")
    assert dtypes(quantized(UNEVEN)) == ("int16", "uint16")


def test_activations_of_8_bits_are_left_to_products_that_bear_them() -> None:
    wide = Form(np.int8, np.uint16)
    assert dtypes(quantized(EVEN, (Form(np.int8, np.uint8, 0.1), wide))) == ("int8", "uint8")
    narrow = quantized(EVEN, (Form(np.int8, np.uint8, 0.0001), wide))
    assert dtypes(narrow) == ("int8", "uint16")
    assert not narrow.ranges, "the manifest of int8-static has ranges of uint8 alone"


@pytest.mark.parametrize("weight", [EVEN, UNEVEN], ids=["int8", "int16"])
def test_the_result_is_the_products_and_the_bias_is_an_integer(weight: np.ndarray) -> None:
    compilation = quantized(weight)
    scale = compilation.bias_scales["bias"]
    x = np.where(np.arange(WIDTH) == 0, 0, X)[:TOKENS]
    model = gs.export_onnx(compilation.graph)
    model.ir_version = 10
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": x[None], "bias": np.rint(BIAS / scale).astype(np.int32)}
    (found,) = session.run(None, feeds)
    expected = x @ weight + BIAS
    assert np.sqrt(np.square(found[0] - expected).mean() / expected.var()) < MOST_ERROR


def test_a_bias_may_exceed_those_of_the_tasks_sixteen_times_before_it_saturates() -> None:
    scale = quantized(EVEN / 1e4, (Form(np.int16, np.uint16),)).bias_scales["bias"]
    assert scale.min() * (2**31 - 1) >= 16 * np.abs(BIAS).max() * (1 - 1e-6)


@pytest.mark.parametrize(("arch", "weights"), [(69, {np.int8}), (73, {np.int8, np.int16})])
def test_an_htp_without_weights_of_16_bits_has_none(arch: int, weights: set[Any]) -> None:
    options = CompileOptions(target="qnn", precision="w8a16", layout="named", static_shape=(1, 8), htp_arch=arch)
    (found,) = [each for each in TARGET.lower(options) if isinstance(each, QuantizeForHtp)]
    assert {form.weights for form in found._forms} == weights
