"""Pass 1, trace: a PyTorch base model becomes an unoptimised ONNX graph with dynamic batch and sequence.

Requires: a bare base model in eval mode.
Ensures: every bias parameter is one initializer under its state-dict name, used at least once.
Does not: optimise. An optimised export merges initializers that are equal, and equal biases (all zero, say) must
stay apart: they differ from task to task.
"""

from __future__ import annotations

import onnx
import torch

from bitfit_export.base_models import BaseModel
from bitfit_export.errors import CompileError
from bitfit_export.quiet import quiet_exporters

__all__ = ["OPSET", "trace_base_model"]

OPSET = 20
BATCH, SEQUENCE = "batch", "sequence"


def trace_base_model(base: BaseModel) -> onnx.ModelProto:
    """The base model's graph: ids and mask [batch, sequence] in, `last_hidden_state` and any `pooler_output` out.

    Raises:
        CompileError: the exporter can't trace the model, or a bias of its state dict is not in the graph.
    """
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    inputs = _example_inputs(base)
    axes = {0: torch.export.Dim(BATCH), 1: torch.export.Dim(SEQUENCE, max=base.module.config.max_position_embeddings)}
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(inputs, axes), optimize=False, opset_version=OPSET)
    try:
        with quiet_exporters():
            exported = OnnxExporter().export(base.module, inputs, config=config)
            # onnx-graphsurgeon can't write a Constant node whose value is an empty list.
            lift_constants = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
            model: onnx.ModelProto = onnx_ir.to_proto(lift_constants(exported.program).model)
    except Exception as error:
        first_line = str(error).strip().split("\n")[0]
        raise CompileError(
            f"{base.source.name} can't be traced: {first_line}",
            hint="the compiler takes encoders of the BERT family; see docs/compiler.md",
        ) from error
    _check_biases(base, model)
    _name_dimensions(model.graph)
    return model


def _example_inputs(base: BaseModel) -> dict[str, torch.Tensor]:
    """Two rows of seven tokens, one of them padded: sizes that are not special, and a mask that matters."""
    names = base.tokenizer.model_input_names
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    example = {
        "input_ids": torch.arange(14).reshape(2, 7) + 5,
        "attention_mask": mask,
        "token_type_ids": torch.zeros(2, 7, dtype=torch.int64),
    }
    return {name: value for name, value in example.items() if name in names}


def _check_biases(base: BaseModel, model: onnx.ModelProto) -> None:
    initializers = {each.name for each in model.graph.initializer}
    lost = [name for name in base.biases if name not in initializers]
    if lost:
        raise CompileError(
            f"{len(lost)} of {len(base.biases)} bias terms have no initializer in the traced graph, first {lost[0]}"
        )


def _name_dimensions(graph: onnx.GraphProto) -> None:
    """Call the two dynamic dimensions by their names; the exporter numbers its symbols."""
    shape = next(value for value in graph.input if value.name == "input_ids").type.tensor_type.shape
    names = {shape.dim[0].dim_param: BATCH, shape.dim[1].dim_param: SEQUENCE}
    for value in [*graph.output, *graph.value_info]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
    for value in graph.input:
        # Every text input has the shape of the ids, even where the trace could not prove it.
        for dimension, name in zip(value.type.tensor_type.shape.dim, (BATCH, SEQUENCE), strict=True):
            dimension.dim_param = name
