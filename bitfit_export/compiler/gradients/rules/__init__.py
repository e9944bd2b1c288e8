"""The table of derivatives: one function per operator.

A rule gets the node, the gradient of the loss by the node's result, and the index of the input whose gradient is
wanted. It returns that gradient, or None where it does not know it for this form of the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import onnx_graphsurgeon as gs

from bitfit_export.compiler.gradients.rules import arrangements, elementwise, normalisations, products
from bitfit_export.compiler.gradients.tape import Tape

__all__ = ["RULES", "SPLIT", "Rule"]

Rule: TypeAlias = Callable[[Tape, gs.Node, gs.Tensor, int], gs.Tensor | None]

#: Operators with one result.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Add": elementwise.of_add,
        "Cast": elementwise.of_cast,
        "CastLike": elementwise.of_cast,
        "Concat": arrangements.of_concat,
        "Conv": products.of_conv,
        "Div": elementwise.of_div,
        "Erf": elementwise.of_erf,
        "Exp": elementwise.of_exp,
        "Expand": arrangements.of_expand,
        "Flatten": arrangements.of_reshape,
        "Gather": arrangements.of_gather,
        "GatherElements": arrangements.of_gather_elements,
        "Gelu": elementwise.of_gelu,
        "Gemm": products.of_gemm,
        "Identity": elementwise.of_identity,
        "LayerNormalization": normalisations.of_layer_normalization,
        "Log": elementwise.of_log,
        "LogSoftmax": normalisations.of_log_softmax,
        "MatMul": products.of_matmul,
        "Mul": elementwise.of_mul,
        "Neg": elementwise.of_neg,
        "Pow": elementwise.of_pow,
        "ReduceMean": normalisations.of_reduce_mean,
        "ReduceSum": normalisations.of_reduce_sum,
        "Relu": elementwise.of_relu,
        "Reshape": arrangements.of_reshape,
        "Sigmoid": elementwise.of_sigmoid,
        "Slice": arrangements.of_slice,
        "Softmax": normalisations.of_softmax,
        "Softplus": elementwise.of_softplus,
        "Sqrt": elementwise.of_sqrt,
        "Squeeze": arrangements.of_reshape,
        "Sub": elementwise.of_sub,
        "Tanh": elementwise.of_tanh,
        "Tile": arrangements.of_tile,
        "Transpose": arrangements.of_transpose,
        "Unsqueeze": arrangements.of_reshape,
        "Where": elementwise.of_where,
    }
)
#: The one operator with several results.
SPLIT = "Split"
