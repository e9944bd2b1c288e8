"""A lift that is made for tests: each bias term becomes an input with values for each row of the batch.

It knows of the compiler only what `find_bias_sites` says, so it shows that the sites mean what they promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from bitfit_export.compiler.compilation import Refusal
from bitfit_export.compiler.passes.find_bias_sites import BiasSite, find_bias_sites

__all__ = ["Biases", "ByRow", "run_model"]

#: Name -> values.
Biases = Mapping[str, np.ndarray]


class ByRow:
    """A graph whose named biases are fed, other ones for each row. The graph itself is changed."""

    def __init__(self, graph: gs.Graph, names: Iterable[str]) -> None:
        self.names = tuple(names)
        sites = find_bias_sites(graph, self.names)
        assert not isinstance(sites, Refusal), sites
        self.sites = sites
        inputs = {name: gs.Variable(f"{name} by row", np.float32, ["rows", None]) for name in self.names}
        graph.inputs += inputs.values()
        for number, site in enumerate(self.sites):
            _lift(graph, site, inputs[site.name], number)
        lifted = gs.export_onnx(graph.cleanup().toposort())
        onnx.checker.check_model(lifted)
        self.constants = {initializer.name for initializer in lifted.graph.initializer}
        self._session = _session(lifted)

    def run(self, feeds: Mapping[str, np.ndarray], rows: list[Biases]) -> dict[str, np.ndarray]:
        """The outputs for these inputs and the biases of each row; one set of biases serves all rows."""
        biases = {f"{name} by row": np.stack([row[name].reshape(-1) for row in rows]) for name in self.names}
        return _run(self._session, {**feeds, **biases})


def run_model(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], biases: Biases) -> dict[str, np.ndarray]:
    """The outputs of a model whose constants have been replaced by these biases."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for initializer in changed.graph.initializer:
        if initializer.name in biases:
            initializer.CopyFrom(onnx.numpy_helper.from_array(biases[initializer.name], initializer.name))
    return _run(_session(changed), feeds)


def _lift(graph: gs.Graph, site: BiasSite, rows: gs.Variable, number: int) -> None:
    value = rows
    if site.rank == 3:
        value = gs.Variable(f"lifted_{number}", np.float32)
        axis = gs.Constant(f"lifted_axis_{number}", np.array([1]))
        graph.nodes.append(gs.Node("Unsqueeze", f"lift_{number}", inputs=[rows, axis], outputs=[value]))
    if site.node.op != "LayerNormalization":
        site.node.inputs[site.index] = value
        return
    del site.node.inputs[site.index]
    out = site.node.outputs[0]
    site.node.outputs[0] = gs.Variable(f"normalised_{number}", np.float32)
    graph.nodes.append(gs.Node("Add", f"shift_{number}", inputs=[site.node.outputs[0], value], outputs=[out]))


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options)


def _run(session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
