"""Pass 3, quantise: matrices become int8 or int4 constants, and the tables that ids look up become int8.

Requires: a graph whose matrices are constants; before or after lift.
Ensures: the same inputs, outputs and bias sites. Standard operators only: ONNX Runtime's optimiser makes its own
kernels of them (DynamicQuantizeMatMul, MatMulIntegerToFloat, MatMulNBits), other runtimes take them as they are.
Does not: touch biases, norms and heads, nor Gemm, which in an encoder is the pooler: one row of work for a text. It
needs no calibration data: int8 activations get their range in each run.

    int8:   x -- DynamicQuantizeLinear -- MatMulInteger(W) -- Cast -- Mul(scale of x * scale of each column of W)
    int4:   W -- DequantizeLinear (a scale and a zero point for each block of a column) -- MatMul(x)
    table:  ids -- Gather(rows) -- Cast -- Mul(Gather(scale of each row))

The range of x is that of the whole batch, so in int8 a text's logits depend a little on the texts beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from bitfit_export.errors import CompileError

__all__ = ["INT4_BLOCK", "QuantizeReport", "quantize_blocks", "quantize_columns", "quantize_weights"]

#: Weights that share a scale in int4; a smaller block is more exact, larger and slower.
INT4_BLOCK = 32
# A block of 4-bit integers is most exact when its largest weights are cut a little.
_RANGE_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
#: The first opset in which DequantizeLinear takes blocks and 4-bit integers.
_INT4_OPSET = 21
# Symmetric, so no zero point. On x86 a product of uint8 activations and int8 weights runs on VNNI; with uint8 weights,
# which a zero point would need, ONNX Runtime takes twice the time.
_INT8_MAX = 127
_UINT4_MAX = 15
#: Smaller tables, such as those of positions, are no weight worth saving.
_TABLE_ROWS = 4096


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


def quantize_weights(graph: gs.Graph, precision: str) -> QuantizeReport:
    """Quantise the constant matrices and the large embedding tables of a graph, in place.

    Args:
        precision: `int8` or `int4`.

    Raises:
        CompileError: a graph without a constant matrix, or a weight that is not finite.
    """
    emit = _Emitter(graph)
    matrices = {
        node.name: (node, weight)
        for node in graph.nodes
        if node.op == "MatMul" and (weight := constant_matrix(node.inputs[1])) is not None
    }
    if not matrices:
        raise CompileError("the graph has no product with a constant matrix, expected some to quantise")
    kept: dict[str, str] = {}
    values = 0
    for node, weight in matrices.values():
        if not np.isfinite(weight).all():
            raise CompileError(f"the weight of {node.name} has a value that is not finite")
        if precision == "int4" and weight.shape[0] % INT4_BLOCK:
            kept[node.name] = f"{weight.shape[0]} rows are no multiple of the block, {INT4_BLOCK}"
            continue
        (_multiply_int8 if precision == "int8" else _multiply_int4)(emit, node, weight)
        values += weight.size
    tables = [node for node in graph.nodes if node.op == "Gather" and _is_large_table(node)]
    for node in tables:
        values += node.inputs[0].values.size
        _look_up_int8(emit, node)
    if precision == "int4":
        _require_opset(graph, _INT4_OPSET)
    graph.cleanup().toposort()
    return QuantizeReport(len(matrices) - len(kept), len(tables), values, kept)


def constant_matrix(tensor: gs.Tensor) -> np.ndarray | None:
    """The float32 matrix [inputs, outputs] that a tensor always is, transposed by a node or not; else None."""
    transpose = tensor.inputs[0] if tensor.inputs and tensor.inputs[0].op == "Transpose" else None
    constant = transpose.inputs[0] if transpose is not None else tensor
    if not isinstance(constant, gs.Constant) or constant.dtype != np.float32 or len(constant.shape) != 2:
        return None
    values: np.ndarray = constant.values
    return values if transpose is None else values.transpose(transpose.attrs.get("perm", (1, 0)))


def quantize_columns(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest int8 [k, n] and the scale float32 [n] of each column: weight ~ int8 * scale, no zero point."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / _INT8_MAX, 1).astype(np.float32)
    return np.rint(weight / scale).clip(-_INT8_MAX, _INT8_MAX).astype(np.int8), scale


def quantize_blocks(weight: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """4-bit integers, a scale and a zero point for each `block` rows of a column, with the least squared error.

    Returns:
        uint4 [k, n], float32 [k / block, n] and uint4 [k / block, n]: weight ~ (integer - zero point) * scale.
    """
    blocks = weight.reshape(-1, block, weight.shape[1])
    integers, scale, zero = _round_blocks(blocks, 1.0)
    least = _squared_error(blocks, integers, scale, zero)
    for share in _RANGE_SHARES:
        others = _round_blocks(blocks, share)
        error = _squared_error(blocks, *others)
        better = error < least
        least = np.where(better, error, least)
        integers = np.where(better[:, np.newaxis], others[0], integers)
        scale, zero = (np.where(better, new, old) for new, old in zip(others[1:], (scale, zero), strict=True))
    return integers.reshape(weight.shape).astype(ml_dtypes.uint4), scale, zero.astype(ml_dtypes.uint4)


def _round_blocks(blocks: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks [m, block, n] in 16 steps over a share of each block's range; what lies outside goes to the ends.

    Returns:
        float32 integers [m, block, n], scale [m, n] and zero point [m, n]. 0 is always exact.
    """
    low, high = share * np.minimum(blocks.min(axis=1), 0), share * np.maximum(blocks.max(axis=1), 0)
    scale = np.where(high > low, (high - low) / _UINT4_MAX, 1).astype(np.float32)
    zero = np.rint(-low / scale).astype(np.float32)
    integers = (np.rint(blocks / scale[:, np.newaxis]) + zero[:, np.newaxis]).clip(0, _UINT4_MAX)
    return integers, scale, zero


def _squared_error(blocks: np.ndarray, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """[m, n], of each block."""
    rounded = (integers - zero[:, np.newaxis]) * scale[:, np.newaxis]
    error: np.ndarray = np.square(rounded - blocks).sum(axis=1)
    return error


def _multiply_int8(emit: _Emitter, node: gs.Node, weight: np.ndarray) -> None:
    integers, scale = quantize_columns(weight)
    name = node.name
    x, x_scale, x_zero = emit.quantized(node.inputs[0])
    (sums,) = emit("MatMulInteger", name, [x, emit.constant(f"{name}/int8", integers), x_zero], np.int32)
    (sums,) = emit("Cast", f"{name}/float", [sums], np.float32, to=TensorProto.FLOAT)
    (factor,) = emit("Mul", f"{name}/scale", [x_scale, emit.constant(f"{name}/int8_scale", scale)], np.float32)
    node.op, node.attrs, node.inputs = "Mul", {}, [sums, factor]


def _multiply_int4(emit: _Emitter, node: gs.Node, weight: np.ndarray) -> None:
    parts = zip(("int4", "int4_scale", "int4_zero"), quantize_blocks(weight, INT4_BLOCK), strict=True)
    constants = [emit.constant(f"{node.name}/{part}", values) for part, values in parts]
    dequantized = emit("DequantizeLinear", f"{node.name}/weight", constants, np.float32, axis=0, block_size=INT4_BLOCK)
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
        self._quantized: dict[str, list[gs.Variable]] = {}

    def __call__(
        self, op: str, name: str, inputs: list[gs.Tensor], *dtypes: type[np.generic], **attrs: int
    ) -> list[gs.Variable]:
        outputs = [gs.Variable(f"{name}/{op}_{number}", dtype) for number, dtype in enumerate(dtypes)]
        self._graph.nodes.append(gs.Node(op, f"{name}/{op}", attrs, inputs=inputs, outputs=outputs))
        return outputs

    def constant(self, name: str, values: np.ndarray) -> gs.Constant:
        # As a tensor of onnx, which packs two 4-bit integers into a byte; onnx-graphsurgeon does not.
        return gs.Constant(name, LazyValues(numpy_helper.from_array(np.ascontiguousarray(values), name)))

    def quantized(self, tensor: gs.Tensor) -> list[gs.Variable]:
        """uint8 values, scale and zero point."""
        if tensor.name not in self._quantized:
            dtypes = (np.uint8, np.float32, np.uint8)
            self._quantized[tensor.name] = self("DynamicQuantizeLinear", f"{tensor.name}/uint8", [tensor], *dtypes)
        return self._quantized[tensor.name]
