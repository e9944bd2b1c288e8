"""The values of weights have no part in a trace: put into a traced graph, they give the trace of those weights.

Tests share their traces by this, see `tests/traces.py`.
"""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.frontend.trace import trace_base_model
from tests.families import tiny_base
from tests.traces import traced

pytestmark = pytest.mark.slow

#: One for each thing by which weights could get into a graph otherwise: layers that share them, tables of positions,
#: matrices that are transposed, convolutions and a weight norm.
FAMILIES = ("albert", "deberta-v2", "gpt2", "wav2vec2")


@pytest.mark.parametrize("family", FAMILIES)
def test_other_weights_in_a_traced_graph_are_the_trace_of_those_weights(family: str) -> None:
    """Also where all biases are zero or equal, which an optimising export merges into one initializer."""
    base, other = tiny_base(family), with_equal_biases(tiny_base(family, seed=1))
    shared = traced(base)
    found, expected = traced(other), trace_base_model(other)
    assert [name for name, data in weights_of(expected).items() if weights_of(found).get(name) != data] == []
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert weights_of(found) != weights_of(shared)


def test_a_model_whose_layers_share_a_bias_has_a_trace_of_its_own() -> None:
    base, tied = tiny_base("bert"), tiny_base("bert")
    first, second = (layer.output.dense for layer in tied.module.encoder.layer)
    second.bias = first.bias
    own, shared = ({each.name for each in traced(each).graph.initializer} for each in (base, dataclasses.replace(tied)))
    assert own - shared == {"encoder.layer.1.output.dense.bias"}


def with_equal_biases(base: BaseModel) -> BaseModel:
    """Every other bias term all zero, the rest all of another value."""
    for number, name in enumerate(base.biases):
        base.module.get_parameter(name).fill_(0.5 * (number % 2))
    return dataclasses.replace(base)


def weights_of(model: onnx.ModelProto) -> dict[str, bytes]:
    return {each.name: each.raw_data for each in model.graph.initializer}
