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
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from bitfit_export.compiler.calibration.rounding import even_channels, quantize_blocks, quantize_columns
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.errors import CompileError

if TYPE_CHECKING:
    from bitfit_export.compiler.calibration.activation_stats import ActivationStats

__all__ = [
    "INT4_BLOCK",
    "QuantizeReport",
    "QuantizeWeights",
    "constant_matrix",
    "products_of_weights",
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
    emit = _Emitter(graph)
    products = products_of_weights(graph)
    if not products:
        raise CompileError("the graph has no product with a constant matrix, expected some to quantise")
    kept: dict[str, str] = {}
    values = 0
    for weight, nodes in products:
        if not np.isfinite(weight).all():
            raise CompileError(f"the weight of {nodes[0].name} has a value that is not finite")
        if precision == "int4" and weight.shape[0] % INT4_BLOCK:
            reason = f"{weight.shape[0]} rows are no multiple of the block, {INT4_BLOCK}"
            kept |= {node.name: reason for node in nodes}
            continue
        read = next((statistics[node.name] for node in nodes if node.name in statistics), None)
        (_multiply_int8 if precision == "int8" else _multiply_int4)(emit, nodes, weight, read)
        values += weight.size
    tables = [node for node in graph.nodes if node.op == "Gather" and _is_large_table(node)]
    for node in tables:
        values += node.inputs[0].values.size
        _look_up_int8(emit, node)
    if precision == "int4":
        _require_opset(graph, _INT4_OPSET)
    graph.cleanup().toposort()
    return QuantizeReport(sum(len(nodes) for _, nodes in products) - len(kept), len(tables), values, kept)


def products_of_weights(graph: gs.Graph) -> list[tuple[np.ndarray, list[gs.Node]]]:
    """The matrices [inputs, outputs] that are constants, each with its products: layers may share one."""
    products: dict[tuple[str, bool], tuple[np.ndarray, list[gs.Node]]] = {}
    for node in graph.nodes:
        weight = constant_matrix(node.inputs[1]) if node.op == "MatMul" else None
        if weight is not None:
            makers = node.inputs[1].inputs
            constant = makers[0].inputs[0] if makers else node.inputs[1]
            products.setdefault((constant.name, bool(makers)), (weight, []))[1].append(node)
    return list(products.values())


def constant_matrix(tensor: gs.Tensor) -> np.ndarray | None:
    """The float32 matrix [inputs, outputs] that a tensor always is, transposed by a node or not; else None."""
    transpose = tensor.inputs[0] if tensor.inputs and tensor.inputs[0].op == "Transpose" else None
    constant = transpose.inputs[0] if transpose is not None else tensor
    if not isinstance(constant, gs.Constant) or constant.dtype != np.float32 or len(constant.shape) != 2:
        return None
    values: np.ndarray = constant.values
    return values if transpose is None else values.transpose(transpose.attrs.get("perm", (1, 0)))


def _multiply_int8(emit: _Emitter, nodes: list[gs.Node], weight: np.ndarray, observed: ActivationStats | None) -> None:
    divisors = None if observed is None else even_channels(observed.largest)
    rounded = quantize_columns(weight if divisors is None else weight * divisors[:, np.newaxis], paired=True)
    integers, scale = emit.constants(nodes[0].name, ("int8", "int8_scale"), rounded)
    for node in nodes:
        name = node.name
        x, x_scale, x_zero = emit.quantized(node.inputs[0], divisors)
        (sums,) = emit("MatMulInteger", name, [x, integers, x_zero], np.int32)
        (sums,) = emit("Cast", f"{name}/float", [sums], np.float32, to=TensorProto.FLOAT)
        (factor,) = emit("Mul", f"{name}/scale", [x_scale, scale], np.float32)
        node.op, node.attrs, node.inputs = "Mul", {}, [sums, factor]


def _multiply_int4(emit: _Emitter, nodes: list[gs.Node], weight: np.ndarray, observed: ActivationStats | None) -> None:
    rounded = quantize_blocks(weight, INT4_BLOCK, None if observed is None else observed.gram)
    constants = emit.constants(nodes[0].name, ("int4", "int4_scale", "int4_zero"), rounded)
    for node in nodes:
        name = f"{node.name}/weight"
        dequantized = emit("DequantizeLinear", name, constants, np.float32, axis=0, block_size=INT4_BLOCK)
        node.inputs[1] = dequantized[0]


def _is_large_table(node: gs.Node) -> bool:
    """Whether a Gather looks up rows of a vocabulary."""
    table = node.inputs[0]
    is_matrix = isinstance(table, gs.Constant) and table.dtype == np.float32 and len(table.shape) == 2
    return is_matrix and node.attrs.get("axis", 0) == 0 and table.shape[0] >= _TABLE_ROWS


def _look_up_int8(emit: _Emitter, node: gs.Node) -> None:
    """A scale for each row. The Gather comes first, so only the rows in use are dequantised."""
    integers, scale = quantize_columns(node.inputs[0].values.T)
    name, ids = node.name, node.inputs[1]
    (rows,) = emit("Gather", f"{name}/rows", [emit.constant(f"{name}/int8", integers.T), ids], np.int8, axis=0)
    (rows,) = emit("Cast", f"{name}/float", [rows], np.float32, to=TensorProto.FLOAT)
    scales = emit.constant(f"{name}/int8_scale", scale[:, np.newaxis])
    (factor,) = emit("Gather", f"{name}/scale", [scales, ids], np.float32, axis=0)
    node.op, node.attrs, node.inputs = "Mul", {}, [rows, factor]


def _require_opset(graph: gs.Graph, version: int) -> None:
    graph.opset = max(graph.opset, version)
    for domain in graph.import_domains or ():
        if domain.domain in ("", "ai.onnx"):
            domain.version = graph.opset


class _Emitter:
    """Appends nodes, and quantises a tensor once for all the products that read it."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._quantized: dict[tuple[str, bytes | None], list[gs.Variable]] = {}

    def __call__(
        self, op: str, name: str, inputs: list[gs.Tensor], *dtypes: type[np.generic], **attrs: int
    ) -> list[gs.Variable]:
        outputs = [gs.Variable(f"{name}/{op}_{number}", dtype) for number, dtype in enumerate(dtypes)]
        self._graph.nodes.append(gs.Node(op, f"{name}/{op}", attrs, inputs=inputs, outputs=outputs))
        return outputs

    def constant(self, name: str, values: np.ndarray) -> gs.Constant:
        # As a tensor of onnx, which packs two 4-bit integers into a byte; onnx-graphsurgeon does not.
        return gs.Constant(name, LazyValues(numpy_helper.from_array(np.ascontiguousarray(values), name)))

    def constants(self, name: str, parts: Sequence[str], values: Sequence[np.ndarray]) -> list[gs.Constant]:
        return [self.constant(f"{name}/{part}", each) for part, each in zip(parts, values, strict=True)]

    def quantized(self, tensor: gs.Tensor, divisors: np.ndarray | None) -> list[gs.Variable]:
        """uint8 values, scale and zero point of a tensor, whose channels are first divided by these numbers [k]."""
        key = (tensor.name, None if divisors is None else divisors.tobytes())
        if key not in self._quantized:
            name = f"{tensor.name}/{len(self._quantized)}"
            if divisors is not None:
                factors = self.constant(f"{name}/even", (1 / divisors).astype(np.float32))
                (tensor,) = self("Mul", f"{name}/evened", [tensor, factors], np.float32)
            dtypes = (np.uint8, np.float32, np.uint8)
            self._quantized[key] = self("DynamicQuantizeLinear", f"{name}/uint8", [tensor], *dtypes)
        return self._quantized[key]
