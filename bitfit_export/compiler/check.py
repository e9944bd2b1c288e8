"""Pass 5, check: the graph keeps the promises that every bundle makes, whatever passes ran before."""

from __future__ import annotations

import onnx

from bitfit_export.bias_terms import is_bias_term
from bitfit_export.bundle import Layout
from bitfit_export.errors import CompileError

__all__ = ["check_frozen_model"]


def check_frozen_model(model: onnx.ModelProto, layout: Layout) -> None:
    """Every weight is a constant, no bias is one, every input is used, and the row has a use for each of its values.

    Raises:
        CompileError: a promise that does not hold. It is a defect of the compiler, so nothing is written.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    initializers = {value.name for value in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    problems = [f"the weight {name} is a graph input" for name in sorted(inputs & initializers)]
    problems += [f"the bias {name} is an initializer" for name in sorted(initializers) if is_bias_term(name)]
    problems += [f"the input {name} has no use" for name in sorted(inputs - used)]
    problems += _unused_slices(graph, layout, used)
    if problems:
        raise CompileError(f"the compiled graph is wrong: {'; '.join(problems[:3])}")


def _unused_slices(graph: onnx.GraphProto, layout: Layout, used: set[str]) -> list[str]:
    splits = [node for node in graph.node if node.name == "bias_split"]
    if len(splits) != 1 or len(splits[0].output) != len(layout.biases):
        return [f"the row is not split into the {len(layout.biases)} bias terms of the layout"]
    slices = zip(layout.biases, splits[0].output, strict=True)
    return [f"the bias {entry.name} has no use" for entry, name in slices if name not in used]
