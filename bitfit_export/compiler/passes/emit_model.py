"""Write the finished graph as an ONNX model, with its defaults and its digests.

Requires: a lifted graph, as its target runs it.
Ensures: a model whose metadata names the base and the layout; with `--overridable`, a default for each bias and head
input.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from bitfit_export.bundle import Layout
from bitfit_export.bundle.interface import LAYOUT_DIGEST_KEY, METADATA_PREFIX
from bitfit_export.compiler.compilation import Compilation, Fact, Pass

__all__ = ["EmitModel", "add_defaults", "record_digests"]


class EmitModel(Pass):
    """Make the model that is written to the bundle."""

    name = "emit_model"
    requires = frozenset({Fact.LIFTED})
    ensures = frozenset({Fact.EMITTED})

    def run(self, compilation: Compilation) -> bool:
        model: onnx.ModelProto = gs.export_onnx(compilation.graph)
        options, layout = compilation.options, compilation.layout
        if options.overridable:
            labels = compilation.most_labels if options.static_shape is not None else 1
            add_defaults(model, layout, compilation.fold.apply(compilation.base.biases).biases, labels=labels)
        record_digests(model, layout)
        compilation.model = model
        return False


def add_defaults(model: onnx.ModelProto, layout: Layout, biases: Mapping[str, np.ndarray], *, labels: int = 1) -> None:
    """Give each input of the named layout a default: the biases' values [n], and a head that is all zero.

    ONNX Runtime's Python `LoraAdapter` feeds inputs that have one, and no others.
    """
    values = {entry.name: biases[entry.name] for entry in layout.biases}
    values |= {entry.name: np.zeros(entry.resolve(labels)) for entry in layout.head}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))


def record_digests(model: onnx.ModelProto, layout: Layout) -> None:
    """Writes the digests of base and layout into the metadata of a model."""
    del model.metadata_props[:]
    model.metadata_props.add(key=f"{METADATA_PREFIX}base_digest", value=layout.base_digest)
    model.metadata_props.add(key=f"{METADATA_PREFIX}format_version", value="1")
    model.metadata_props.add(key=LAYOUT_DIGEST_KEY, value=layout.digest)
