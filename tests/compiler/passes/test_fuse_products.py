"""FusedMatMul reads its operands transposed and scales its result, where a graph does that in nodes of their own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from bitfit_export.compiler.graph.infer_shapes import infer_shapes
from bitfit_export.compiler.passes.fuse_products import fuse_products

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
WEIGHT = "float[3, 5] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3}"
#: A graph, the operators that it has afterwards, and the attributes of the product.
FUSED = {
    "an operand that is transposed": (
        """g (float[b, h, s, 3] x, float[b, h, t, 3] z) => (float[b, h, s, t] y) {
            turned = Transpose <perm = [0, 1, 3, 2]> (z)  y = MatMul(x, turned) }""",
        ["FusedMatMul"], {"transA": 0, "transB": 1, "alpha": 1.0},
    ),
    "an operand that is transposed twice": (
        """g (float[b, h, s, 3] x, float[b, h, t, 3] z) => (float[b, h, t, s] y) {
            one = Transpose <perm = [0, 1, 3, 2]> (x)  two = Transpose <perm = [0, 1, 3, 2]> (one)
            turned = Transpose <perm = [0, 1, 3, 2]> (two)  y = MatMul(z, turned) }""",
        ["FusedMatMul"], {"transA": 0, "transB": 1, "alpha": 1.0},
    ),
    "a result that is transposed": (
        """g (float[b, s, 3] x, float[b, 3, t] z) => (float[b, t, s] y) {
            product = MatMul(x, z)  y = Transpose <perm = [0, 2, 1]> (product) }""",
        ["FusedMatMul"], {"transA": 1, "transB": 1, "alpha": 1.0},
    ),
    "a transposed weight between reshapes, and a number": (
        f"""g (float[b, s, 5] x, float[b, s, 3] like) => (float[b, s, 3] y)
            <{WEIGHT}, int64[2] rows = {{-1, 5}}, float half = {{0.5}}> {{
            flat = Reshape(x, rows)  product = Gemm <transB = 1> (flat, w)  shape = Shape(like)
            back = Reshape(product, shape)  scaled = Mul(back, half)  y = Neg(scaled) }}""",
        ["FusedMatMul", "Neg"], {"transA": 0, "transB": 1, "alpha": 0.5},
    ),
    "a number behind a bias": (
        f"""g (float[b, s, 3] x, float[5] bias) => (float[b, s, 5] y) <{WEIGHT}, float half = {{0.5}}> {{
            product = MatMul(x, w)  sum = Add(product, bias)  scaled = Mul(half, sum)  y = Neg(scaled) }}""",
        ["FusedMatMul", "Mul", "Add", "Neg"], {"transA": 0, "transB": 0, "alpha": 0.5},
    ),
    "a number behind a bias of each row": (
        f"""g (float[b, s, 3] x, float[b, 1, 5] bias) => (float[b, s, 5] y) <{WEIGHT}, float half = {{0.5}}> {{
            product = MatMul(x, w)  sum = Add(bias, product)  scaled = Mul(sum, half)  y = Neg(scaled) }}""",
        ["FusedMatMul", "Mul", "Add", "Neg"], {"transA": 0, "transB": 0, "alpha": 0.5},
    ),
}  # fmt: skip
#: Graphs in which there is nothing to fuse.
KEPT = {
    "a transposition of other axes": """g (float[b, s, h, 3] x, float[b, h, 3, t] z) => (float[b, h, s, t] y) {
        turned = Transpose <perm = [0, 2, 1, 3]> (x)  y = MatMul(turned, z) }""",
    "a result that is read untransposed, too": """g (float[b, s, 3] x, float[b, 3, t] z)
        => (float[b, t, s] y, float[b, s, t] product) {
        product = MatMul(x, z)  y = Transpose <perm = [0, 2, 1]> (product) }""",
    "reshapes that change more": f"""g (float[b, s, 5] x, int64[3] shape) => (float[s, b, 3] y)
        <{WEIGHT}, int64[2] rows = {{-1, 5}}> {{
        flat = Reshape(x, rows)  product = Gemm <transB = 1> (flat, w)  y = Reshape(product, shape) }}""",
    "a sum that is read unscaled, too": f"""g (float[b, s, 3] x, float[5] bias) => (float[b, s, 5] y, float[b, s, 5] z)
        <{WEIGHT}, float half = {{0.5}}> {{
        product = MatMul(x, w)  sum = Add(product, bias)  scaled = Mul(sum, half)  y = Neg(scaled)  z = Exp(sum) }}""",
    "a sum with an activation": f"""g (float[b, s, 3] x, float[b, s, 5] more) => (float[b, s, 5] y)
        <{WEIGHT}, float half = {{0.5}}> {{
        product = MatMul(x, w)  sum = Add(product, more)  scaled = Mul(sum, half)  y = Neg(scaled) }}""",
    "a factor that is not a number": f"""g (float[b, s, 3] x, float[5] factor) => (float[b, s, 5] y) <{WEIGHT}> {{
        product = MatMul(x, w)  scaled = Mul(product, factor)  y = Neg(scaled) }}""",
}  # fmt: skip


def parsed(text: str) -> gs.Graph:
    graph = gs.import_onnx(onnx.parser.parse_model(HEADER + text))
    infer_shapes(graph)
    return graph


def results(graph: gs.Graph) -> list[np.ndarray]:
    sizes = {"b": 2, "h": 2, "s": 4, "t": 6}
    random = np.random.default_rng(0)
    model = gs.export_onnx(graph)
    feeds = {
        each.name: np.array([4, 2, 3])
        if each.dtype == np.int64
        else random.normal(size=[sizes.get(size, size) for size in each.shape]).astype(np.float32)
        for each in graph.inputs
    }
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds)
    return found


@pytest.mark.parametrize(("text", "operators", "attrs"), FUSED.values(), ids=FUSED)
def test_the_product_does_it(text: str, operators: list[str], attrs: dict[str, float]) -> None:
    graph = parsed(text)
    expected = results(graph)
    before = len(graph.nodes)
    assert fuse_products(graph) == before - len(operators)
    assert sorted(node.op for node in graph.nodes) == sorted(operators)
    (product,) = (node for node in graph.nodes if node.op == "FusedMatMul")
    assert (product.domain, product.attrs) == ("com.microsoft", attrs)
    for found, value in zip(results(graph), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_other_graphs_stay_as_they_are(text: str) -> None:
    graph = parsed(text)
    before = sorted(node.op for node in graph.nodes)
    assert fuse_products(graph) == 0
    assert sorted(node.op for node in graph.nodes) == before
