"""Check that the model keeps the promises that every bundle makes, whatever passes ran before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.bundle import Layout
from bitfit_export.bundle.interface import BIAS_TABLE, PACKED_BIAS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal

__all__ = ["CheckInvariants", "find_problems"]

# Values that many tensors share, such as zeros, prove nothing about where a constant came from.
_TELLING_VALUES = 3
_PROBLEMS_SHOWN = 3
_ARRANGES_ROW = ("Cast", "Gather", "Unsqueeze")


class CheckInvariants(Pass):
    """Refuse a model that does not keep the promises of a bundle."""

    name = "check_invariants"
    requires = frozenset({Fact.EMITTED, Fact.LAYOUT})

    def run(self, compilation: Compilation) -> bool | Refusal:
        options = compilation.options
        problems = find_problems(
            compilation.model,
            compilation.layout,
            options.layout,
            compilation.base.biases,
            overridable=options.overridable,
        )
        if problems:
            return Refusal(f"the compiled graph is wrong: {'; '.join(problems[:_PROBLEMS_SHOWN])}")
        return False


def find_problems(
    model: onnx.ModelProto, layout: Layout, kind: str, biases: Mapping[str, np.ndarray], *, overridable: bool = False
) -> list[str]:
    """Returns what is wrong: every weight is a constant, no bias is one, every input is used, and the row has a use for
    each of its values. A problem is a defect of the compiler.

    Args:
        kind: the layout's kind, `table`, `packed` or `named`.
        biases: the base model's; none of them may hide in a constant, be it whole or as a part.
        overridable: bias inputs have defaults, which are initializers of the same name.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    initializers = {value.name for value in graph.initializer}
    row_names = [entry.name for entry in layout.biases] + [entry.name for entry in layout.head]
    defaults = inputs.intersection(row_names) if overridable else set()
    used = {name for node in graph.node for name in node.input}
    problems = [f"the weight {name} is a graph input" for name in sorted((inputs & initializers) - defaults)]
    problems += [f"the input {name} has no default" for name in sorted(defaults - initializers)]
    problems += [f"the bias {name} is an initializer" for name in sorted(initializers - defaults) if is_bias_term(name)]
    problems += [f"the input {name} has no use" for name in sorted(inputs - used)]
    problems += _lost_biases(graph, layout, kind, used)
    problems += _hidden_biases(graph, biases, defaults)
    return problems


def _lost_biases(graph: onnx.GraphProto, layout: Layout, kind: str, used: set[str]) -> list[str]:
    """Parts of a row that nothing reads."""
    if kind == "named":
        inputs = {value.name for value in graph.input}
        return [f"the bias {entry.name} is not an input" for entry in layout.biases if entry.name not in inputs]
    # One for the items of the batch, one for its tokens, or both.
    splits = [node.output for node in graph.node if node.op_type == "Split" and _cuts_row(graph, node)]
    if not splits or any(len(outputs) != len(layout.biases) for outputs in splits):
        return [f"the row is not split into the {len(layout.biases)} bias terms of the layout"]
    slices = zip(layout.biases, *splits, strict=True)
    return [f"the bias {entry.name} has no use" for entry, *names in slices if used.isdisjoint(names)]


def _cuts_row(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Returns whether what a node reads first is the row, chosen and arranged by other nodes."""
    made_by = {name: each for each in graph.node for name in each.output}
    source = node.input[0]
    while source in made_by and made_by[source].op_type in _ARRANGES_ROW:
        source = made_by[source].input[0]
    return source in (BIAS_TABLE, PACKED_BIAS)


def _hidden_biases(graph: onnx.GraphProto, biases: Mapping[str, np.ndarray], defaults: set[str]) -> list[str]:
    """Constants that hold a bias's values, as a fusion makes them that concatenates query, key and value."""
    telling = {
        name: value.astype(np.float32).reshape(-1)
        for name, value in biases.items()
        if np.unique(value).size >= _TELLING_VALUES
    }
    return [
        f"the values of the bias {name} are in the constant {constant}"
        for constant, values in _vectors(graph)
        if constant not in defaults
        for name, bias in telling.items()
        if _contains(values, bias)
    ]


def _vectors(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """Float constants with one dimension larger than 1, flat."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(size > 1 for size in tensor.dims) == 1:
            yield tensor.name, numpy_helper.to_array(tensor).reshape(-1)


def _contains(values: np.ndarray, part: np.ndarray) -> bool:
    starts = np.flatnonzero(values[: max(values.size - part.size + 1, 0)] == part[0])
    return any(np.array_equal(values[start : start + part.size], part) for start in starts)
