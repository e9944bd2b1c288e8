"""Pass 1, trace: a PyTorch base model becomes an unoptimised ONNX graph with a dynamic batch and length.

Requires: a bare base model in eval mode.
Ensures: every bias parameter is one initializer under its state-dict name, used at least once.
Does not: optimise. An optimised export merges initializers that are equal, and equal biases (all zero, say) must
stay apart: they differ from task to task.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.quiet import quiet_exporters
from bitfit_export.compiler.frontend.dropouts import ENGINE_HINT, check_dropouts, in_training
from bitfit_export.compiler.frontend.lengths import check_lengths, text_inputs
from bitfit_export.compiler.graph.dimensions import BATCH, SAMPLES, SEQUENCE
from bitfit_export.errors import CompileError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["OPSET", "trace_base_model"]

OPSET = 20
_HINT = "docs/compiler.md says which models the compiler takes"
#: More than the first convolutions of a speech model need.
_EXAMPLE_SAMPLES = 4000
#: The name of each input's second dimension.
_LENGTHS = {"text": SEQUENCE, "audio": SAMPLES}


def trace_base_model(base: BaseModel, *, dropout: bool = False) -> onnx.ModelProto:
    """The base model's graph: what it reads in, `last_hidden_state` and any `pooler_output` out.

    Inputs: `input_ids`, `attention_mask`, `token_type_ids` int64 [batch, sequence], those that the model has; or
    `pixel_values` float32 [batch, channels, height, width]; or `input_values` float32 [batch, samples].

    Args:
        dropout: trace the model as it is in training: with a node Dropout wherever it drops something.

    Raises:
        CompileError: the exporter can't trace the model, a bias of its state dict is not in the graph, or not every
            dropout is.
    """
    try:
        with quiet_exporters(), _plain_attention(base.module), in_training(base.module, dropout):
            model = _export(base)
            if dropout:
                check_dropouts(base, model.graph)
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(f"{base.source.name} cannot be traced: {_reason(error)}", hint=_HINT) from error
    _name_dimensions(model.graph, base.modality)
    _check_outputs(base, model.graph)
    _name_biases(base, model.graph)
    traced: onnx.ModelProto = ir.to_proto(model)
    return traced


@contextmanager
def _plain_attention(module: PreTrainedModel) -> Iterator[None]:
    """Attention as the matrix products that it is.

    torch's fused one is traced with a guard against empty rows, the scale in two parts and the mask made anew in every
    layer, none of which a runtime removes.
    """
    before = module.config._attn_implementation
    module.set_attn_implementation("eager")
    try:
        yield
    finally:
        module.set_attn_implementation(before)


def _export(base: BaseModel) -> ir.Model:
    """The exporter's graph, whose dimensions have names of its own."""
    auto = torch.export.Dim.AUTO
    if base.modality == "image":
        return _export_sizes(base, {0: torch.export.Dim(BATCH)})
    if base.modality == "audio":
        # Convolutions take no sound shorter than their kernels: the exporter finds the bound.
        model = _export_sizes(base, {0: torch.export.Dim(BATCH), 1: auto})
        if not _is_dynamic(model):
            raise CompileError(f"{base.source.name} takes sounds of one length only", hint=_HINT)
        return model
    try:
        sequence = torch.export.Dim(SEQUENCE, max=base.max_positions)
        return _export_sizes(base, {0: torch.export.Dim(BATCH), 1: sequence})
    except Exception as error:
        if "Constraints violated" not in str(error):
            raise
        model = _export_sizes(base, {0: auto, 1: auto})
        if not _is_dynamic(model):
            raise
    if base.module.training:
        # What dropout makes of a text is another thing each time, so nothing can be compared.
        raise CompileError(
            f"{base.source.name} cannot be traced in training for texts of every length", hint=ENGINE_HINT
        )
    check_lengths(base, ir.to_proto(model))
    return model


def _is_dynamic(model: ir.Model) -> bool:
    """Returns whether no dimension of an input has become a constant."""
    return all(isinstance(size, str) for value in model.graph.inputs for size in _sizes(value) or ())


def _export_sizes(base: BaseModel, axes: dict[int, Any]) -> ir.Model:
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    inputs = _example_inputs(base)
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(inputs, axes), optimize=False, opset_version=OPSET)
    exported = OnnxExporter().export(base.module, inputs, config=config)
    # onnx-graphsurgeon can't write a Constant node whose value is an empty list.
    return LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(exported.program).model


def _sizes(value: ir.Value) -> tuple[int | str, ...] | None:
    """The sizes of a tensor, a name for each dynamic one; None where the rank is not known."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)


def _reason(error: Exception) -> str:
    """One line of what an exporter said: its first, and the first of its list where there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    points = [line.removeprefix("- ") for line in lines[1:] if line.startswith("- ")]
    return f"{lines[0].split('! For more')[0]}: {points[0]}" if points else lines[0]


def _example_inputs(base: BaseModel) -> dict[str, torch.Tensor]:
    """Two items of sizes that are not special and, for text, a mask that matters."""
    if base.modality == "text":
        return text_inputs(base, 7)
    if base.modality == "audio":
        return {"input_values": _ramp(2, _EXAMPLE_SAMPLES)}
    config: Any = base.module.config
    size = config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": _ramp(2, config.num_channels, height, width)}


def _ramp(*sizes: int) -> torch.Tensor:
    return torch.linspace(-1, 1, math.prod(sizes)).reshape(sizes)


def _name_dimensions(graph: ir.Graph, modality: str) -> None:
    """Call the dynamic dimensions by their names; the exporter numbers its symbols."""
    known = (BATCH, _LENGTHS[modality]) if modality in _LENGTHS else (BATCH,)
    names = dict(zip((str(size) for size in _sizes(graph.inputs[0]) or ()), known, strict=False))
    symbols = re.compile(rf"\b({'|'.join(names)})\b")
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        sizes = _sizes(value)
        if sizes is not None:
            renamed = [size if isinstance(size, int) else symbols.sub(lambda m: names[m[0]], size) for size in sizes]
            value.shape = ir.Shape(renamed)
    for value in graph.inputs:
        # Every input has the sizes of the first, even where the trace could not prove it.
        value.shape = ir.Shape([*known, *(_sizes(value) or ())[len(known) :]])


def _check_outputs(base: BaseModel, graph: ir.Graph) -> None:
    outputs = {output.name: _sizes(output) for output in graph.outputs}
    hidden = outputs.get("last_hidden_state")
    if hidden is None or len(hidden) != 3 or hidden[0] != BATCH or not isinstance(hidden[2], int):
        raise CompileError(
            f"{base.source.name} gives {', '.join(f'{name} {sizes}' for name, sizes in outputs.items())}, "
            "expected last_hidden_state of [batch, sequence, hidden]",
            hint=_HINT,
        )


def _name_biases(base: BaseModel, graph: ir.Graph) -> None:
    """Give a bias that has several names in the state dict its first one, and make sure that each has a use."""
    first_names: dict[int, str] = {}
    for name, parameter in base.module.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(parameter), name)
        if first in base.biases and name != first and name in graph.initializers and first not in graph.initializers:
            graph.initializers[name].name = first
    lost = [name for name in base.biases if name not in graph.initializers or not graph.initializers[name].uses()]
    if lost:
        raise CompileError(
            f"{len(lost)} of the {len(base.biases)} bias terms of {base.source.name} are not used by the traced graph, "
            f"the first is {lost[0]}",
            hint="a row must hold no value that changes nothing; save the model without its unused parts",
        )
