"""Equal weights are stored once, whatever their type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.passes.share_equal_weights import share_equal_weights

WEIGHT = np.random.default_rng(0).integers(0, 16, (64, 64))


def readers_of(*weights: np.ndarray) -> gs.Graph:
    """A graph in which each of these weights is cast to an output of its own."""
    graph = gs.Graph(opset=21, ir_version=10)
    for number, weight in enumerate(weights):
        tensor = constant(f"weight_{number}", weight)
        graph.outputs.append(
            emit(graph, "Cast", f"y_{number}", [tensor], shape=weight.shape, to=onnx.TensorProto.FLOAT)
        )
    return graph


def constants_of(graph: gs.Graph) -> list[str]:
    return [each.name for each in gs.export_onnx(graph.cleanup()).graph.initializer]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, ml_dtypes.uint4])
def test_equal_weights_become_one_and_can_still_be_written(dtype: type) -> None:
    other = WEIGHT.copy()
    other[0, 0] ^= 1
    graph = readers_of(*(each.astype(dtype) for each in (WEIGHT, WEIGHT.copy(), other)))
    assert share_equal_weights(graph) == 1
    assert constants_of(graph) == ["weight_0", "weight_2"]
    onnx.checker.check_model(gs.export_onnx(graph), full_check=True)


@pytest.mark.parametrize("other", [WEIGHT.astype(np.float32), WEIGHT.astype(np.uint8).reshape(32, 128)])
def test_weights_of_another_type_or_shape_stay(other: np.ndarray) -> None:
    graph = readers_of(WEIGHT.astype(np.uint8), other)
    assert share_equal_weights(graph) == 0
    assert len(constants_of(graph)) == 2
