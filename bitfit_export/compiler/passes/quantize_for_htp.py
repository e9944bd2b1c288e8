"""Quantise for Qualcomm's HTP: products in integers with a bias in int32, tables of rows in int8, all else in float16.

Requires: a lifted graph of fixed shapes, and what its products read.
Ensures: standard operators alone (opset 21). Each product with a weight becomes

    x -- Reshape [m, k] -- Q -- DQ -- Gemm(DQ(weight), DQ(bias)) -- Q -- DQ -- Reshape

    weight: int8, a scale for each output channel; x and the result: uint16, one range each
    bias:   int32, with the scale s_x s_w of its channel and zero point 0, where the bias is an input of its own

which the HTP computes as one FullyConnected. So the input of such a bias becomes int32, and the host converts what a
row has with `Compilation.bias_scales`. A bias is added in float16 where it is not an input of its own (the layout
packed cuts it out of one vector, and the HTP takes constants and inputs alone), or not that of one product: that of a
LayerNormalization, or one that two nodes read.

The ranges are wide: twice what was seen. 65,536 steps leave room for that, and a later task's row may need it.
Does not: touch products of two activations, norms, softmax and heads, which the HTP computes in float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.calibration.activation_ranges import ActivationRange
from bitfit_export.compiler.calibration.activation_stats import ActivationStats, together
from bitfit_export.compiler.calibration.rounding import quantize_columns
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import emit, only_reader, uses_of
from bitfit_export.compiler.graph.weights import products_of_weights
from bitfit_export.compiler.passes.quantize_weights import is_large_table, require_opset

__all__ = ["QuantizeForHtp"]

#: The first opset in which QuantizeLinear makes uint16.
_OPSET = 21
_LAST_STEP = 65535
#: By how much a range exceeds what was seen.
_ROOM = 2.0


class QuantizeForHtp(Pass):
    """Give products with weights integers, and those biases that the HTP adds in integers the type int32."""

    name = "quantize_for_htp"
    requires = frozenset({Fact.STATISTICS, Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool | Refusal:
        graph, statistics = compilation.graph, compilation.statistics
        products = products_of_weights(graph)
        if not products or not all(node.name in statistics for _, nodes in products for node in nodes):
            return Refusal("integers need the ranges of activations, and no text shows what each product reads")
        made = _Quantizer(graph, statistics, _largest_biases(compilation))
        for weight, nodes in products:
            made.quantize(weight.values, nodes)
        for node in [node for node in graph.nodes if node.op == "Gather" and is_large_table(node)]:
            _look_up_integers(graph, node)
        require_opset(graph, _OPSET)
        graph.cleanup().toposort()
        compilation.ranges, compilation.bias_scales = made.ranges, made.bias_scales
        return True


def _largest_biases(compilation: Compilation) -> Mapping[str, float]:
    """The largest magnitude of each bias term in the base model and in the tasks."""
    base = compilation.base.biases
    tasks = [base, *(delta.merge(base) for delta in compilation.deltas.values())]
    folded = [compilation.fold.apply(biases).biases for biases in tasks]
    return {name: max(float(np.abs(each[name]).max()) for each in folded) for name in folded[0]}


class _Quantizer:
    """Quantises one weight after the other.

    Attributes:
        ranges: of the activations that products read, by the names of their nodes.
        bias_scales: float32 [n] of each bias that is int32, by the name of its input.
    """

    def __init__(
        self, graph: gs.Graph, statistics: Mapping[str, ActivationStats], largest: Mapping[str, float]
    ) -> None:
        self._graph, self._statistics, self._largest = graph, statistics, largest
        self._rounded: dict[str, gs.Variable] = {}
        self.ranges: dict[str, ActivationRange] = {}
        self.bias_scales: dict[str, np.ndarray] = {}

    def quantize(self, weight: np.ndarray, nodes: Sequence[gs.Node]) -> None:
        """Quantise a weight [k, n] and the products that read it."""
        read = together([self._statistics[node.name] for node in nodes])
        integers, scale = quantize_columns(weight, gram=read.gram)
        for node in nodes:
            self._multiply(node, weight, integers, scale)

    def _multiply(self, node: gs.Node, weight: np.ndarray, integers: np.ndarray, scale: np.ndarray) -> None:
        graph, name, read = self._graph, node.name, self._statistics[node.name]
        out, shape = node.outputs[0], list(node.outputs[0].shape)
        of_x = _wide_range(float(read.lowest.min()), float(read.highest.max()))
        self.ranges[name] = of_x
        # QNN's provider computes something else where the zero point is left out.
        zero = constant(f"{name}/int8_zero", np.zeros(scale.shape, np.int8))
        weights = [constant(f"{name}/int8", integers), constant(f"{name}/int8_scale", scale), zero]
        operands = [
            self._rounded_input(node.inputs[0], len(weight), of_x),
            emit(graph, "DequantizeLinear", f"{name}/weight", weights, axis=1),
        ]
        bias, largest = self._own_bias(out), 0.0
        if bias is not None:
            (add,) = out.outputs
            operands.append(self._integer_bias(bias, np.float32(of_x.scale) * scale))
            largest = self._largest.get(bias.name, 0.0)
            out = add.outputs[0]
            add.inputs.clear()
            add.outputs.clear()
        result = read.examples @ weight
        of_result = _wide_range(float(result.min()) - largest, float(result.max()) + largest)
        node.inputs.clear()
        node.outputs.clear()
        y = emit(graph, "Gemm", f"{name}/gemm", operands, shape=[int(np.prod(shape[:-1])), shape[-1]])
        y = _round(graph, f"{name}/result", y, of_result)
        emit(graph, "Reshape", f"{name}/reshape", [y, shape], out=out)

    def _rounded_input(self, x: gs.Tensor, size: int, of_x: ActivationRange) -> gs.Variable:
        """x as [m, k], rounded; once for all the products that read it, which saw the same activations."""
        if x.name not in self._rounded:
            rows = int(np.prod(x.shape[:-1]))
            flat = emit(self._graph, "Reshape", f"{x.name}/flat", [x, [rows, size]], shape=[rows, size])
            self._rounded[x.name] = _round(self._graph, f"{x.name}/flat", flat, of_x)
        return self._rounded[x.name]

    def _own_bias(self, product: gs.Variable) -> gs.Variable | None:
        """The input that the only reader of a product adds, and that nothing else reads."""
        add = only_reader(self._graph, product)
        if add is None or add.op != "Add" or add.outputs[0].shape != product.shape:
            return None
        other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
        is_input = any(other is each for each in self._graph.inputs)
        return other if is_input and list(other.shape) == [product.shape[-1]] and len(uses_of(other)) == 1 else None

    def _integer_bias(self, bias: gs.Variable, scale: np.ndarray) -> gs.Variable:
        bias.dtype = np.dtype(np.int32)
        self.bias_scales[bias.name] = scale.astype(np.float32)
        parts = [
            bias,
            constant(f"{bias.name}/scale", scale),
            constant(f"{bias.name}/zero", np.zeros_like(scale, np.int32)),
        ]
        return emit(self._graph, "DequantizeLinear", f"{bias.name}/float", parts, axis=0)


def _wide_range(low: float, high: float) -> ActivationRange:
    """The range that has twice what was seen on either side, and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(_ROOM * (high - low) / _LAST_STEP)) or 1.0
    return ActivationRange(scale, int(np.clip(np.rint(-_ROOM * low / scale), 0, _LAST_STEP)), 1 / _ROOM)


def _round(graph: gs.Graph, name: str, x: gs.Variable, to: ActivationRange) -> gs.Variable:
    scale = constant(f"{name}/range_scale", np.array(to.scale, np.float32))
    zero = constant(f"{name}/range_zero", np.array(to.zero_point, np.uint16))
    rounded = emit(graph, "QuantizeLinear", f"{name}/quantize", [x, scale, zero], np.uint16, shape=x.shape)
    return emit(graph, "DequantizeLinear", f"{name}/dequantize", [rounded, scale, zero], shape=x.shape)


def _look_up_integers(graph: gs.Graph, node: gs.Node) -> None:
    """Rows in int8, a scale for each. The integers stand for themselves (scale 1), so that the HTP gathers int8."""
    integers, scale = quantize_columns(node.inputs[0].values.T)
    name, ids, shape = node.name, node.inputs[1], node.outputs[0].shape
    one, zero = constant(f"{name}/one", np.array(1, np.float32)), constant(f"{name}/zero", np.array(0, np.int8))
    table = emit(graph, "DequantizeLinear", f"{name}/table", [constant(f"{name}/int8", integers.T), one, zero])
    rows = emit(graph, "Gather", f"{name}/rows", [table, ids], shape=shape, axis=0)
    rows = emit(graph, "QuantizeLinear", f"{name}/rows_int8", [rows, one, zero], np.int8, shape=shape)
    rows = emit(graph, "DequantizeLinear", f"{name}/rows_float", [rows, one, zero], shape=shape)
    scales = constant(f"{name}/scales", scale[:, np.newaxis])
    factor = emit(graph, "Gather", f"{name}/scale", [scales, ids], shape=[*shape[:-1], 1], axis=0)
    node.op, node.attrs, node.inputs = "Mul", {}, [rows, factor]
