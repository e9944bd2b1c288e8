"""Quantise for Qualcomm's HTP: products in integers with a bias in int32, tables of rows in int8, all else in float16.

Requires: a lifted graph of fixed shapes, and what its products read.
Ensures: standard operators alone (opset 21). Each product with a weight becomes

    x -- Reshape [m, k] -- Q -- DQ -- Gemm(DQ(weight), DQ(bias)) -- Q -- DQ -- Reshape

    weight: int8 or int16, a scale for each output channel
    x and the result: both uint8 or both uint16, one range each
    bias:   int32, with the scale s_x s_w of its channel and zero point 0, where the bias is an input of its own

which the HTP computes as one FullyConnected. So the input of such a bias becomes int32, and the host converts what a
row has with `Compilation.bias_scales`. A bias is added in float16 where it is not an input of its own (the layout
packed cuts it out of one vector, and the HTP takes constants and inputs alone), or not that of one product: that of a
LayerNormalization, or one that two nodes read.

A product has the first of the pass's forms that is exact enough on the activations that were seen. Each channel of a
result counts alike, by how much it varies: the channels of a feed-forward's result differ a hundredfold in size, and a
LayerNormalization makes them alike again. What 8 bits cost there is most of what a model in int8 loses.

The ranges of uint16 are wide: twice what was seen. 65,536 steps leave room for that, and a later row may need it.
Does not: touch products of two activations, norms, softmax and heads, which the HTP computes in float16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

__all__ = ["Form", "QuantizeForHtp"]

#: The first opset in which QuantizeLinear makes uint16.
_OPSET = 21
#: By how much a range exceeds what was seen, in uint16, and in uint8 where sample texts stand for the user's.
_ROOM, _ROOM_BEYOND_SAMPLES = 2.0, 1.2
#: By how much a bias in int32 may exceed the largest of the tasks before it saturates, where weights are int16.
_BIAS_ROOM = 16.0


class Form(NamedTuple):
    """The integers in which a product is computed.

    Attributes:
        most_error: the largest error of a result by how much it varies, both as the root mean square of its channels.
            A product with a larger one takes the next form.
    """

    weights: type[np.signedinteger[Any]]
    activations: type[np.unsignedinteger[Any]]
    most_error: float = math.inf


class QuantizeForHtp(Pass):
    """Give products with weights integers, and those biases that the HTP adds in integers the type int32.

    Args:
        forms: what a product may be computed in, the smallest first. The last takes any product.
    """

    name = "quantize_for_htp"
    requires = frozenset({Fact.STATISTICS, Fact.LIFTED})

    def __init__(self, forms: Sequence[Form]) -> None:
        self._forms = forms

    def run(self, compilation: Compilation) -> bool | Refusal:
        graph, statistics = compilation.graph, compilation.statistics
        products = products_of_weights(graph)
        if not products or not all(node.name in statistics for _, nodes in products for node in nodes):
            return Refusal("integers need the ranges of activations, and no text shows what each product reads")
        made = _Quantizer(graph, self._forms, statistics, _bias_ends(compilation))
        for weight, nodes in products:
            made.quantize(weight.values, nodes)
        for node in [node for node in graph.nodes if node.op == "Gather" and is_large_table(node)]:
            _look_up_integers(graph, node)
        require_opset(graph, _OPSET)
        graph.cleanup().toposort()
        # A manifest's ranges are those of the precision's own integers.
        last = np.iinfo(self._forms[0].activations).max
        compilation.ranges = {name: each for name, each in made.ranges.items() if each.last_step == last}
        compilation.bias_scales = made.bias_scales
        return True


def _bias_ends(compilation: Compilation) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """The least and the greatest values of each bias term in the base model and in the tasks."""
    base = compilation.base.biases
    tasks = [base, *(delta.merge(base) for delta in compilation.deltas.values())]
    folded = [compilation.fold.apply(biases).biases for biases in tasks]
    stacked = {name: np.stack([each[name] for each in folded]) for name in folded[0]}
    return {name: (each.min(axis=0), each.max(axis=0)) for name, each in stacked.items()}


class _Plan(NamedTuple):
    """How a product is computed: weight ~ integers * scale, and the ranges of what it reads and of its result."""

    form: Form
    integers: np.ndarray
    scale: np.ndarray
    of_x: ActivationRange
    of_result: ActivationRange


class _Quantizer:
    """Quantises one weight after the other.

    Attributes:
        ranges: of the activations that products read, by the names of their nodes.
        bias_scales: float32 [n] of each bias that is int32, by the name of its input.
    """

    def __init__(
        self,
        graph: gs.Graph,
        forms: Sequence[Form],
        statistics: Mapping[str, ActivationStats],
        bias_ends: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self._graph, self._forms, self._statistics, self._bias_ends = graph, forms, statistics, bias_ends
        self._rounded: dict[tuple[str, int], gs.Variable] = {}
        self.ranges: dict[str, ActivationRange] = {}
        self.bias_scales: dict[str, np.ndarray] = {}

    def quantize(self, weight: np.ndarray, nodes: Sequence[gs.Node]) -> None:
        """Quantise a weight [k, n] and the products that read it, which may be those of several layers."""
        gram = together([self._statistics[node.name] for node in nodes]).gram
        rounded = {dtype: _round_weight(weight, dtype, gram) for dtype in {form.weights for form in self._forms}}
        for node in nodes:
            plans = (self._plan(node, weight, form, *rounded[form.weights]) for form in self._forms)
            self._multiply(node, next(plan for plan in plans if self._is_exact_enough(node, weight, plan)))

    def _plan(self, node: gs.Node, weight: np.ndarray, form: Form, integers: np.ndarray, scale: np.ndarray) -> _Plan:
        read = self._statistics[node.name]
        seen = _range(float(read.lowest.min()), float(read.highest.max()), form, typical=read.typical)
        result = read.examples @ weight
        bias = self._own_bias(node.outputs[0])
        lowest, highest = self._bias_ends.get(bias.name, (_ZERO, _ZERO)) if bias is not None else (_ZERO, _ZERO)
        if form.weights is np.int16:  # with so small a scale of weights a bias in int32 may saturate
            largest = float(max(-lowest.min(), highest.max(), 0.0))
            least = np.float32(_BIAS_ROOM * largest / (seen.scale * np.iinfo(np.int32).max))
            scale = np.maximum(scale, least)
            integers = np.rint(weight / scale).astype(np.int16)
        ends = float((result.min(axis=0) + lowest).min()), float((result.max(axis=0) + highest).max())
        return _Plan(form, integers, scale, seen, _range(*ends, form, typical=read.typical))

    def _is_exact_enough(self, node: gs.Node, weight: np.ndarray, plan: _Plan) -> bool:
        if math.isinf(plan.form.most_error):
            return True
        x = self._statistics[node.name].examples
        expected = x @ weight
        found = plan.of_result.round(plan.of_x.round(x) @ (plan.integers * plan.scale))
        varies = np.maximum(expected.var(axis=0), np.finfo(np.float32).tiny)
        error = np.sqrt((np.square(found - expected).mean(axis=0) / varies).mean())
        return float(error) <= plan.form.most_error

    def _multiply(self, node: gs.Node, plan: _Plan) -> None:
        graph, name = self._graph, node.name
        out, shape = node.outputs[0], list(node.outputs[0].shape)
        self.ranges[name] = plan.of_x
        # QNN's provider computes something else where the zero point is left out.
        zero = constant(f"{name}/weight_zero", np.zeros(plan.scale.shape, plan.integers.dtype))
        weights = [constant(f"{name}/integers", plan.integers), constant(f"{name}/weight_scale", plan.scale), zero]
        operands = [
            self._rounded_input(node.inputs[0], len(plan.integers), plan.of_x),
            emit(graph, "DequantizeLinear", f"{name}/weight", weights, axis=1),
        ]
        bias = self._own_bias(out)
        if bias is not None:
            (add,) = out.outputs
            operands.append(self._integer_bias(bias, np.float32(plan.of_x.scale) * plan.scale))
            out = add.outputs[0]
            add.inputs.clear()
            add.outputs.clear()
        node.inputs.clear()
        node.outputs.clear()
        y = emit(graph, "Gemm", f"{name}/gemm", operands, shape=[int(np.prod(shape[:-1])), shape[-1]])
        y = _round(graph, f"{name}/result", y, plan.of_result)
        emit(graph, "Reshape", f"{name}/reshape", [y, shape], out=out)

    def _rounded_input(self, x: gs.Tensor, size: int, of_x: ActivationRange) -> gs.Variable:
        """x as [m, k], rounded; once for all the products that read it, which saw the same activations."""
        key = (x.name, of_x.last_step)
        if key not in self._rounded:
            rows, name = int(np.prod(x.shape[:-1])), f"{x.name}/flat_{of_x.last_step}"
            flat = emit(self._graph, "Reshape", name, [x, [rows, size]], shape=[rows, size])
            self._rounded[key] = _round(self._graph, name, flat, of_x)
        return self._rounded[key]

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


_ZERO = np.zeros(1, np.float32)


def _round_weight(
    weight: np.ndarray, dtype: type[np.signedinteger[Any]], gram: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A weight [k, n] as integers, and the scale [n] of its channels."""
    if dtype is np.int8:
        return quantize_columns(weight, gram=gram)
    step = np.abs(weight).max(axis=0) / np.iinfo(dtype).max
    scale = np.where(step > 0, step, 1).astype(np.float32)
    return np.rint(weight / scale).astype(dtype), scale


def _range(low: float, high: float, form: Form, *, typical: bool) -> ActivationRange:
    """The range that has more than what was seen on either side, and 0."""
    last = int(np.iinfo(form.activations).max)
    room = _ROOM if form.activations is np.uint16 else 1.0 if typical else _ROOM_BEYOND_SAMPLES
    low, high = room * min(low, 0.0), room * max(high, 0.0)
    scale = float(np.float32((high - low) / last)) or 1.0
    return ActivationRange(scale, int(np.clip(np.rint(-low / scale), 0, last)), 1 / room, last)


def _round(graph: gs.Graph, name: str, x: gs.Variable, to: ActivationRange) -> gs.Variable:
    scale = constant(f"{name}/range_scale", np.array(to.scale, np.float32))
    dtype = np.uint8 if to.last_step == np.iinfo(np.uint8).max else np.uint16
    zero = constant(f"{name}/range_zero", np.array(to.zero_point, dtype))
    rounded = emit(graph, "QuantizeLinear", f"{name}/quantize", [x, scale, zero], dtype, shape=x.shape)
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
