"""Derive the program `train_step`: loss and gradients of the lifted graph, over the same weights.

Requires: a lifted graph with its heads; padding is not removed yet.
Ensures: the compilation has a second graph, with the inputs of `infer` and those of `training_inputs_of`, and with the
outputs loss, the loss of each item, the logits, and the gradient of each input that is learnt.
Does not: change the graph of `infer`; build the gradient of a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.bundle.interface import (
    GRADIENT_PREFIX,
    TASK_IDS,
    TOKEN_LOGITS,
    training_inputs_of,
    training_outputs_of,
)
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.compiler.gradients.dropout import draw_dropout
from bitfit_export.compiler.gradients.losses import add_losses
from bitfit_export.compiler.gradients.reverse import differentiate
from bitfit_export.compiler.gradients.sequences import split_sequences
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS, TASK_BATCH
from bitfit_export.compiler.graph.edit import emit, replace_uses
from bitfit_export.compiler.graph.infer_shapes import infer_shapes
from bitfit_export.compiler.passes.emit_model import record_digests

__all__ = ["DeriveTrainStep", "derive_train_step"]


class DeriveTrainStep(Pass):
    """Differentiate a copy of the graph.

    Args:
        fuse: passes that make of the differentiated graph what the target runs.
        trained: the inputs that get a gradient; by default the row's biases and the layers of the head.
        as_in_training: compute what PyTorch computes while it trains: with dropout where the graph has such, and the
            softmax of a span task over padding, too.
    """

    name = "derive_train_step"
    requires = frozenset({Fact.LIFTED, Fact.HEADS})

    def __init__(
        self, fuse: Sequence[Pass] = (), *, trained: Collection[str] | None = None, as_in_training: bool = False
    ) -> None:
        self._fuse, self._trained, self._as_in_training = fuse, trained, as_in_training

    def run(self, compilation: Compilation) -> bool | Refusal:
        program = copy.copy(compilation)
        program.graph = compilation.graph.copy()
        refusal = derive_train_step(program, self._trained, as_in_training=self._as_in_training)
        if refusal is not None:
            return refusal
        for each in self._fuse:
            each.run(program)
        model: onnx.ModelProto = gs.export_onnx(program.graph)
        record_digests(model, compilation.layout)
        compilation.train_step = model
        return False


def derive_train_step(
    compilation: Compilation, trained: Collection[str] | None = None, *, as_in_training: bool = False
) -> Refusal | None:
    """Add losses and gradients to the compilation's graph, in place.

    Args:
        trained, as_in_training: see `DeriveTrainStep`.

    Returns:
        A refusal that names an operator without a derivative; else None.
    """
    graph, layout, kind = compilation.graph, compilation.layout, compilation.options.layout
    outputs = list(graph.outputs)
    tokens = any(output.name == TOKEN_LOGITS for output in outputs)
    declared = training_inputs_of(tokens=tokens)
    inputs = {each.name: gs.Variable(each.name, np.dtype(each.dtype), [*each.shape]) for each in declared}
    graph.inputs += inputs.values()
    has_slots = _choose_by_item(graph)
    split_sequences(graph)
    loss = add_losses(graph, inputs, spans_in_padding=as_in_training)
    graph.cleanup().toposort()
    rows = BATCH if has_slots else None
    infer_shapes(graph, {TASK_BATCH: rows, ROWS: rows})
    if as_in_training:
        draw_dropout(graph)
    by_name = {each.name: each for each in graph.inputs}
    ports = {port.name.removeprefix(GRADIENT_PREFIX): port for port in training_outputs_of(layout, kind)}
    learnt = {
        name: port
        for name, port in ports.items()
        if port.role.endswith("_gradients") and (trained is None or name in trained)
    }
    wanted = [by_name[name] for name in learnt]
    gradients = differentiate(graph, loss, wanted)
    if isinstance(gradients, Refusal):
        return gradients
    for port, gradient in zip(learnt.values(), gradients, strict=True):
        graph.outputs.append(emit(graph, "Identity", port.name, [gradient], shape=port.shape))
    graph.cleanup().toposort()
    return None


def _choose_by_item(graph: gs.Graph) -> bool:
    """Give each item of the batch its own slot, so that gradients are summed by slot once, at the end.

    Returns:
        Whether the graph has slots: that of a single task has none.
    """
    slots = next((each for each in graph.inputs if each.name == TASK_IDS), None)
    if slots is None:
        return False
    (first, *_) = graph.inputs
    readers = gs.Variable("item_slots", np.int64, [BATCH])
    replace_uses(slots, readers)
    count = emit(graph, "Shape", "item_count", [first], np.int64, start=0, end=1)
    emit(graph, "Expand", "item_slots", [slots, count], np.int64, out=readers)
    return True
