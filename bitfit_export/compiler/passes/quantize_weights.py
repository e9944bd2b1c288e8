"""Pass 3, quantise: matrices become int8 or int4 constants, and the tables that ids look up become int8.

Requires: a graph whose matrices are constants; before or after lift.
Ensures: the same inputs, outputs and bias sites. Standard operators only: ONNX Runtime's optimiser makes its own
kernels of them (DynamicQuantizeMatMul, MatMulIntegerToFloat, MatMulNBits), other runtimes take them as they are.
Does not: touch biases, norms and heads, nor Gemm, which in an encoder is the pooler: one row of work for a text. int8
activations get their range in each run.

    int8:   x -- Mul(1 / s) -- DynamicQuantizeLinear -- MatMulInteger(s W) -- Cast -- Mul(scale of x * scale of columns)
    int4:   W -- DequantizeLinear (a scale and a zero point for each block of a column) -- MatMul(x)
    table:  ids -- Gather(rows) -- Cast -- Mul(Gather(scale of each row))

The range of x is that of the whole batch, so in int8 a text's logits depend a little on the texts beside it.

s is 1 but for channels that are much larger than others, and where none is, that Mul is not there. Encoders have some:
a channel or two of a layer in which the first token is five times larger than anything else. Unscaled, they alone would
set the range, and all others would share what is left of the 256 steps. x W = (x / s) (s W) for any s, so what the
observed texts do not show costs accuracy, not correctness ("SmoothQuant", Xiao et al. 2023, for those channels alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from bitfit_export.compiler.calibration.rounding import even_channels, quantize_blocks, quantize_columns
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.graph.weights import products_of_weights
from bitfit_export.errors import CompileError

if TYPE_CHECKING:
    from bitfit_export.compiler.calibration.activation_stats import ActivationStats

__all__ = [
    "INT4_BLOCK",
    "QuantizeReport",
    "QuantizeWeights",
    "quantize_weights",
]

#: Weights that share a scale in int4; a smaller block is more exact, larger and slower.
INT4_BLOCK = 32
#: The first opset in which DequantizeLinear takes blocks and 4-bit integers.
_INT4_OPSET = 21
#: Smaller tables, such as those of positions, are no weight worth saving.
_TABLE_ROWS = 4096


class QuantizeWeights(Pass):
    """Quantise matrices and large tables to `int8` or `int4`, by what the sample texts showed."""

    name = "quantize_weights"
    requires = frozenset({Fact.STATISTICS})

    def __init__(self, precision: str) -> None:
        self._precision = precision

    def run(self, compilation: Compilation) -> bool:
        report = quantize_weights(compilation.graph, self._precision, compilation.statistics)
        compilation.not_quantized = report.kept
        return True


@dataclass(frozen=True)
class QuantizeReport:
    """What was quantised.

    Attributes:
        matrices: the number of matrix products with a constant matrix.
        tables: the number of embedding tables.
        values: how many weights these had.
        kept: matrix products that stay float32, by the node's name -> why.
    """

    matrices: int
    tables: int
    values: int
    kept: dict[str, str]


def quantize_weights(
    graph: gs.Graph, precision: str, statistics: Mapping[str, ActivationStats] | None = None
) -> QuantizeReport:
    """Quantise the constant matrices and the large embedding tables of a graph, in place.

    Args:
        precision: `int8` or `int4`.
        statistics: what the matrix products read, by the names of their nodes, where that is known; the same for
            products that share a matrix.

    Raises:
        CompileError: a graph without a constant matrix, or a weight that is not finite.
    """
    statistics = statistics or {}
    quantized = _QuantizedInputs(graph)
    products = products_of_weights(graph)
    if not products:
        raise CompileError("the graph has no product with a constant matrix, expected some to quantise")
    kept: dict[str, str] = {}
    values = 0
    for weight, nodes in products:
        matrix = weight.values
        if not np.isfinite(matrix).all():
            raise CompileError(f"the weight of {nodes[0].name} has a value that is not finite")
        if precision == "int4" and len(matrix) % INT4_BLOCK:
            reason = f"{len(matrix)} rows are not a multiple of the block, {INT4_BLOCK}"
            kept |= {node.name: reason for node in nodes}
            continue
        read = next((statistics[node.name] for node in nodes if node.name in statistics), None)
        if precision == "int8":
            _multiply_int8(graph, nodes, matrix, read, quantized)
        else:
            _multiply_int4(graph, nodes, matrix, read)
        values += matrix.size
    tables = [node for node in graph.nodes if node.op == "Gather" and _is_large_table(node)]
    for node in tables:
        values += node.inputs[0].values.size
        _look_up_int8(graph, node)
    if precision == "int4":
        _require_opset(graph, _INT4_OPSET)
    graph.cleanup().toposort()
    return QuantizeReport(sum(len(nodes) for _, nodes in products) - len(kept), len(tables), values, kept)


def _multiply_int8(
    graph: gs.Graph,
    nodes: list[gs.Node],
    weight: np.ndarray,
    observed: ActivationStats | None,
    quantized: _QuantizedInputs,
) -> None:
    divisors = None if observed is None else even_channels(observed.largest)
    rounded = quantize_columns(weight if divisors is None else weight * divisors[:, np.newaxis], paired=True)
    integers, scale = _constants(nodes[0].name, ("int8", "int8_scale"), rounded)
    for node in nodes:
        name = node.name
        x, x_scale, x_zero = quantized.of(node.inputs[0], divisors)
        sums = emit(graph, "MatMulInteger", f"{name}/integers", [x, integers, x_zero], np.int32)
        sums = emit(graph, "Cast", f"{name}/float", [sums], to=TensorProto.FLOAT)
        factor = emit(graph, "Mul", f"{name}/scale", [x_scale, scale])
        node.op, node.attrs, node.inputs = "Mul", {}, [sums, factor]


def _multiply_int4(graph: gs.Graph, nodes: list[gs.Node], weight: np.ndarray, observed: ActivationStats | None) -> None:
    rounded = quantize_blocks(weight, INT4_BLOCK, None if observed is None else observed.gram)
    parts = _constants(nodes[0].name, ("int4", "int4_scale", "int4_zero"), rounded)
    for node in nodes:
        name = f"{node.name}/weight"
        node.inputs[1] = emit(graph, "DequantizeLinear", name, parts, axis=0, block_size=INT4_BLOCK)


def _is_large_table(node: gs.Node) -> bool:
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


def _require_opset(graph: gs.Graph, version: int) -> None:
    graph.opset = max(graph.opset, version)
    for domain in graph.import_domains or ():
        if domain.domain in ("", "ai.onnx"):
            domain.version = graph.opset


class _QuantizedInputs:
    """Quantises a tensor once for all the products that read it."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._quantized: dict[tuple[str, bytes | None], list[gs.Variable]] = {}

    def of(self, tensor: gs.Tensor, divisors: np.ndarray | None) -> list[gs.Variable]:
        """uint8 values, scale and zero point of a tensor, whose channels are first divided by these numbers [k]."""
        key = (tensor.name, None if divisors is None else divisors.tobytes())
        if key not in self._quantized:
            name = f"{tensor.name}/{len(self._quantized)}"
            if divisors is not None:
                factors = constant(f"{name}/even", (1 / divisors).astype(np.float32))
                tensor = emit(self._graph, "Mul", f"{name}/evened", [tensor, factors])
            parts = {"uint8": np.uint8, "scale": np.float32, "zero": np.uint8}
            made = [gs.Variable(f"{name}/{part}", dtype) for part, dtype in parts.items()]
            self._graph.nodes.append(gs.Node("DynamicQuantizeLinear", f"{name}/quantize", {}, [tensor], made))
            self._quantized[key] = made
        return self._quantized[key]
