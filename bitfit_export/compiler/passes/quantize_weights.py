"""Pass 3, quantise: matrices become int8 or int4 constants, and the tables that ids look up become int8.

Requires: a graph whose matrices are constants; before or after lift.
Ensures: the same inputs, outputs and bias sites. Standard operators only: ONNX Runtime's optimiser makes its own
kernels of them (DynamicQuantizeMatMul, MatMulIntegerToFloat, MatMulNBits), other runtimes take them as they are.
Does not: touch biases, norms and heads, nor Gemm, which in an encoder is the pooler: one row of work for a text.

    int8:         x -- Mul(1 / d) -- DynamicQuantizeLinear -- MatMulInteger(d W) -- Cast -- Mul(scales) -- Sub(excess)
    int8-static:  x -- Mul(1 / d) -- QuantizeLinear -- DequantizeLinear -- MatMul(DequantizeLinear(d W)) -- Sub(excess)
    int4:         W -- DequantizeLinear (a scale and a zero point for each block of a column) -- MatMul(x)
    table:        ids -- Gather(rows) -- Cast -- Mul(Gather(scale of each row))

In int8 activations get their range in each run: that of the whole batch, so a text's logits depend a little on the
texts beside it. In int8-static the range is a constant, and they do not. In both there are products of which each token
is first divided by its size m, and the product is multiplied by it; their range is a constant:

    x -- Mul(1 / d) -- Mul(1 / m) -- QuantizeLinear -- ... -- MatMul -- Sub(excess) -- Mul(m)
          '--- Abs -- ReduceMax -- Max(least) = m

d divides the channels of x and multiplies the rows of W, which is exact algebra, so what the observed texts do not show
costs accuracy, not correctness. `integer_products.py` chooses it, and knows the excess. A few large channels f may stay
in float32: their 1 / d is 0, and the product gets what they make of it.

    x -- Gather(f) -- MatMul(W of f) -- Add

A product on which integers would cost too much stays in float32 as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from bitfit_export.compiler.calibration.activation_ranges import ActivationRange
from bitfit_export.compiler.calibration.activation_stats import ActivationStats, together
from bitfit_export.compiler.calibration.integer_products import IntegerProduct, TokenSize, plan_product, plan_range
from bitfit_export.compiler.calibration.rounding import quantize_blocks, quantize_columns
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import detach, emit, only_reader
from bitfit_export.compiler.graph.weights import products_of_weights
from bitfit_export.errors import CompileError

__all__ = [
    "INT4_BLOCK",
    "QuantizeReport",
    "QuantizeWeights",
    "is_large_table",
    "quantize_weights",
    "require_opset",
]

#: Weights that share a scale in int4; a smaller block is more exact, larger and slower.
INT4_BLOCK = 32
#: The first opset in which DequantizeLinear takes blocks and 4-bit integers.
_INT4_OPSET = 21
#: Smaller tables, such as those of positions, are no weight worth saving.
_TABLE_ROWS = 4096
#: The largest error of a product in integers, by the size of the product.
_MOST_ERROR = 0.05


class QuantizeWeights(Pass):
    """Quantise matrices and large tables to `int8`, `int8-static` or `int4`, by what the observed texts showed."""

    name = "quantize_weights"
    requires = frozenset({Fact.STATISTICS})

    def __init__(self, precision: str) -> None:
        self._precision = precision

    def run(self, compilation: Compilation) -> bool:
        report = quantize_weights(compilation.graph, self._precision, compilation.statistics)
        compilation.not_quantized, compilation.ranges = report.kept, report.ranges
        return True


@dataclass(frozen=True)
class QuantizeReport:
    """What was quantised.

    Attributes:
        matrices: the number of matrix products with a constant matrix.
        tables: the number of embedding tables.
        values: how many weights these had.
        kept: matrix products that stay float32, by the node's name -> why.
        ranges: of the activations whose range is a constant, by the node's name.
    """

    matrices: int
    tables: int
    values: int
    kept: dict[str, str]
    ranges: dict[str, ActivationRange]


def quantize_weights(
    graph: gs.Graph, precision: str, statistics: Mapping[str, ActivationStats] | None = None
) -> QuantizeReport:
    """Quantise the constant matrices and the large embedding tables of a graph, in place.

    Args:
        precision: `int8`, `int8-static` or `int4`.
        statistics: what the matrix products read, by the names of their nodes, where that is known.

    Raises:
        CompileError: a graph without a constant matrix, a weight that is not finite, or static ranges without
        statistics.
    """
    statistics = statistics or {}
    products = products_of_weights(graph)
    if not products:
        raise CompileError("the graph has no product with a constant matrix, expected some to quantise")
    if precision == "int8-static" and not statistics:
        raise CompileError(
            "int8-static needs the ranges of activations, and this model was not run on any text",
            hint="compile it with --precision int8",
        )
    made = _Quantizer(graph, precision, statistics)
    for weight, nodes in products:
        if not np.isfinite(weight.values).all():
            raise CompileError(f"the weight of {nodes[0].name} has a value that is not finite")
        made.quantize(weight.values, nodes)
    tables = [node for node in graph.nodes if node.op == "Gather" and is_large_table(node)]
    for node in tables:
        made.values += node.inputs[0].values.size
        _look_up_int8(graph, node)
    if precision == "int4":
        require_opset(graph, _INT4_OPSET)
    graph.cleanup().toposort()
    matrices = sum(len(nodes) for _, nodes in products) - len(made.kept)
    return QuantizeReport(matrices, len(tables), made.values, made.kept, made.ranges)


class _Quantizer:
    """Quantises one weight after the other."""

    def __init__(self, graph: gs.Graph, precision: str, statistics: Mapping[str, ActivationStats]) -> None:
        self._graph, self._precision, self._statistics = graph, precision, statistics
        self._inputs = _QuantizedInputs(graph)
        self.kept: dict[str, str] = {}
        self.ranges: dict[str, ActivationRange] = {}
        self.values = 0

    def quantize(self, weight: np.ndarray, nodes: list[gs.Node]) -> None:
        """Quantise a weight and the products that read it, or say why they stay as they are."""
        seen = [self._statistics[node.name] for node in nodes if node.name in self._statistics]
        # A matrix that layers share must serve all of them.
        read = together(seen) if seen else None
        reason = self._multiply_int4(weight, nodes, read) if self._precision == "int4" else None
        if self._precision != "int4":
            reason = self._multiply_int8(weight, nodes, read)
        if reason is None:
            self.values += weight.size
        else:
            self.kept |= {node.name: reason for node in nodes}

    def _multiply_int4(self, weight: np.ndarray, nodes: list[gs.Node], read: ActivationStats | None) -> str | None:
        if len(weight) % INT4_BLOCK:
            return f"{len(weight)} rows are not a multiple of the block, {INT4_BLOCK}"
        rounded = quantize_blocks(weight, INT4_BLOCK, None if read is None else read.gram)
        parts = _constants(nodes[0].name, ("int4", "int4_scale", "int4_zero"), rounded)
        for node in nodes:
            name = f"{node.name}/weight"
            node.inputs[1] = emit(self._graph, "DequantizeLinear", name, parts, axis=0, block_size=INT4_BLOCK)
        return None

    def _multiply_int8(self, weight: np.ndarray, nodes: list[gs.Node], read: ActivationStats | None) -> str | None:
        static = self._precision == "int8-static"
        if static and any(node.name not in self._statistics for node in nodes):
            return "no text shows what it reads"
        product = plan_product(weight, read, static=static)
        if product.error > _MOST_ERROR:
            return f"integers would change its results by more than {_MOST_ERROR:.0%}"
        parts = _constants(nodes[0].name, ("int8", "int8_scale"), (product.integers, product.scale))
        for node in nodes:
            self._multiply(node, weight, product, parts, static=static or product.token_size is not None)
        return None

    def _multiply(
        self, node: gs.Node, weight: np.ndarray, product: IntegerProduct, parts: list[gs.Constant], *, static: bool
    ) -> None:
        x, out = node.inputs[0], node.outputs[0]
        size = None
        if static:
            self.ranges[node.name] = plan_range(self._statistics[node.name], weight, product)
            size = self._multiply_static(node, product, parts)
        else:
            self._multiply_dynamic(node, product, parts)
        if product.excess is not None:
            _subtract(self._graph, node, product.excess)
        if size is not None:
            emit(self._graph, "Mul", f"{node.name}/sized", [detach(out, f"{node.name}/of_size_1"), size], out=out)
        if product.float_channels.size:
            _add_floats(self._graph, node.name, x, weight, product.float_channels, out)

    def _multiply_dynamic(self, node: gs.Node, product: IntegerProduct, parts: list[gs.Constant]) -> None:
        graph, name, (integers, scale) = self._graph, node.name, parts
        x, x_scale, x_zero = self._inputs.of(node.inputs[0], product.factors)
        sums = emit(graph, "MatMulInteger", f"{name}/integers", [x, integers, x_zero], np.int32)
        sums = emit(graph, "Cast", f"{name}/float", [sums], to=TensorProto.FLOAT)
        factor = emit(graph, "Mul", f"{name}/scale", [x_scale, scale])
        node.op, node.attrs, node.inputs = "Mul", {}, [sums, factor]

    def _multiply_static(self, node: gs.Node, product: IntegerProduct, parts: list[gs.Constant]) -> gs.Variable | None:
        """Let a node compute integers; returns what its product is still to be multiplied with."""
        graph, name, each = self._graph, node.name, self.ranges[node.name]
        scale = constant(f"{name}/range_scale", np.array(each.scale, np.float32))
        zero = constant(f"{name}/range_zero", np.array(each.zero_point, np.uint8))
        x = self._inputs.divided(node.inputs[0], product.factors)
        size = None
        if product.token_size is not None:
            size = _emit_token_size(graph, name, x, product.token_size)
            # One division for each token, and products for its channels.
            x = emit(
                graph, "Mul", f"{name}/tokens_of_size_1", [x, emit(graph, "Reciprocal", f"{name}/per_size", [size])]
            )
        x = emit(graph, "QuantizeLinear", f"{name}/quantize", [x, scale, zero], np.uint8)
        x = emit(graph, "DequantizeLinear", f"{name}/dequantize", [x, scale, zero])
        node.inputs = [x, emit(graph, "DequantizeLinear", f"{name}/weight", parts, axis=1)]
        return size


def _emit_token_size(graph: gs.Graph, name: str, x: gs.Tensor, size: TokenSize) -> gs.Variable:
    """The sizes [..., 1] of the tokens of x."""
    if size.signed:
        x = emit(graph, "Abs", f"{name}/magnitudes", [x])
    largest = emit(graph, "ReduceMax", f"{name}/largest", [x, [-1]], keepdims=1)
    return emit(graph, "Max", f"{name}/size", [largest, constant(f"{name}/least", np.array(size.least, np.float32))])


def _subtract(graph: gs.Graph, node: gs.Node, excess: np.ndarray) -> None:
    """Subtract a constant from a product. It is no Add: ONNX Runtime would make a Gemm in float32 of MatMul and Add."""
    out = node.outputs[0]
    product = detach(out, f"{node.name}/rounded")
    emit(graph, "Sub", f"{node.name}/corrected", [product, constant(f"{node.name}/excess", excess)], out=out)


def _add_floats(
    graph: gs.Graph, name: str, x: gs.Tensor, weight: np.ndarray, channels: np.ndarray, out: gs.Variable
) -> None:
    """Add to a product what some channels of x make of it, in float32: behind a bias, which a kernel may add itself."""
    add = only_reader(graph, out)
    if add is not None and add.op == "Add":
        out = add.outputs[0]
    few = emit(graph, "Gather", f"{name}/float_channels", [x, [int(each) for each in channels]], axis=-1)
    product = emit(graph, "MatMul", f"{name}/of_floats", [few, constant(f"{name}/float_rows", weight[channels])])
    emit(graph, "Add", f"{name}/with_floats", [detach(out, f"{name}/of_integers"), product], out=out)


def is_large_table(node: gs.Node) -> bool:
    """Returns whether a Gather looks up rows of a vocabulary."""
    table = node.inputs[0]
    is_matrix = isinstance(table, gs.Constant) and table.dtype == np.float32 and len(table.shape) == 2
    return is_matrix and node.attrs.get("axis", 0) == 0 and table.shape[0] >= _TABLE_ROWS


def _look_up_int8(graph: gs.Graph, node: gs.Node) -> None:
    """A scale for each row. The Gather comes first, so only the rows in use are dequantised."""
    integers, scale = quantize_columns(node.inputs[0].values.T)
    name, ids = node.name, node.inputs[1]
    table, scales = _constants(name, ("int8", "int8_scale"), (integers.T, scale[:, np.newaxis]))
    rows = emit(graph, "Gather", f"{name}/rows", [table, ids], np.int8, axis=0)
    rows = emit(graph, "Cast", f"{name}/float", [rows], to=TensorProto.FLOAT)
    factor = emit(graph, "Gather", f"{name}/scale", [scales, ids], axis=0)
    node.op, node.attrs, node.inputs = "Mul", {}, [rows, factor]


def _constants(name: str, parts: Sequence[str], values: Sequence[np.ndarray]) -> list[gs.Constant]:
    return [constant(f"{name}/{part}", each) for part, each in zip(parts, values, strict=True)]


def require_opset(graph: gs.Graph, version: int) -> None:
    """Raise the graph's opset to a version."""
    graph.opset = max(graph.opset, version)
    for domain in graph.import_domains or ():
        if domain.domain in ("", "ai.onnx"):
            domain.version = graph.opset


class _QuantizedInputs:
    """Quantises a tensor once for all the products that read it."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._quantized: dict[tuple[str, bytes | None], list[gs.Variable]] = {}
        self._divided: dict[tuple[str, bytes], gs.Variable] = {}

    def of(self, tensor: gs.Tensor, factors: np.ndarray | None) -> list[gs.Variable]:
        """uint8 values, scale and zero point of a tensor, its channels first multiplied with these numbers [k]."""
        key = (tensor.name, None if factors is None else factors.tobytes())
        if key not in self._quantized:
            name = f"{tensor.name}/{len(self._quantized)}"
            parts = {"uint8": np.uint8, "scale": np.float32, "zero": np.uint8}
            made = [gs.Variable(f"{name}/{part}", dtype) for part, dtype in parts.items()]
            divided = self.divided(tensor, factors)
            self._graph.nodes.append(gs.Node("DynamicQuantizeLinear", f"{name}/quantize", {}, [divided], made))
            self._quantized[key] = made
        return self._quantized[key]

    def divided(self, tensor: gs.Tensor, factors: np.ndarray | None) -> gs.Tensor:
        """A tensor whose channels are multiplied with these numbers [k]."""
        if factors is None:
            return tensor
        key = (tensor.name, factors.tobytes())
        if key not in self._divided:
            name = f"{tensor.name}/divided_{len(self._divided)}"
            self._divided[key] = emit(self._graph, "Mul", name, [tensor, constant(f"{name}/factors", factors)])
        return self._divided[key]
