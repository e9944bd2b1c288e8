"""Baseline models: one task's fine-tuned model, its biases constant, by the ways that a user has to export it.

A bundle is compared with the fastest of them. In lower precisions these are the same exports through the tools that
ONNX Runtime and transformers bring. Needs the `[export]` extra.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.quiet import quiet_exporters
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError, UsageError, first_line
from bitfit_export.files import new_folder

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["BASELINE_WAYS", "BaselineModels", "export_baselines", "random_ids"]

_MODEL = "model.onnx"
#: A way that is in int8 alone.
_OWN_QUANTIZER = "transformers, own quantizer"
#: Of the older exporter: the last opset that it was made for.
_TORCHSCRIPT_OPSET = 17
#: Weights that share a scale in int4, as in the bundles.
_INT4_BLOCK = 32
#: How exactly MatMulNBits multiplies: 4 is int8 activations, the fastest on a CPU.
_INT4_ACCURACY = 4


@dataclass(frozen=True)
class BaselineModels:
    """The exports that worked, and those that did not.

    Attributes:
        paths: the ONNX file of each way.
        refused: way -> the first line of its error.
    """

    paths: Mapping[str, Path]
    refused: Mapping[str, str]


def random_ids(base: BaseModel, batch: int, sequence: int) -> dict[str, np.ndarray]:
    """The text inputs, int64 [batch, sequence]: random ids without padding, so everything has the same work to do.

    Raises:
        UsageError: the model reads no text.
    """
    if base.modality != "text":
        raise UsageError(f"{base.source.name} reads {base.modality}, expected a model that reads text")
    ids = np.random.default_rng(0).integers(0, base.module.config.vocab_size, (batch, sequence))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: feeds[name] for name in base.input_names}


def export_baselines(
    base: BaseModel, delta: TaskDelta, folder: Path, precision: str = "fp32", *, ways: Collection[str] | None = None
) -> BaselineModels:
    """Export the task's model in every way; a model that is in `folder` already is kept.

    transformers' exporter takes the bare encoder alone. The head that its models lack makes them a little faster than
    they would be, never slower.

    Args:
        precision: `fp32`, `fp16`, `int8` or `int4`. A lower one is made from each export in fp32.
        ways: the names of those to try; by default all.

    Raises:
        CompileError: no way works.
    """
    wanted = (*BASELINE_WAYS, _OWN_QUANTIZER) if ways is None else ways
    exports = {way: functools.partial(export, base, delta) for way, export in BASELINE_WAYS.items() if way in wanted}
    found = _make_models(exports, folder, "fp32")
    if precision != "fp32":
        conversions = {way: functools.partial(_CONVERTERS[precision], path) for way, path in found.paths.items()}
        if precision == "int8" and _OWN_QUANTIZER in wanted:
            conversions[_OWN_QUANTIZER] = functools.partial(_own_quantizer, base, delta)
        lowered = _make_models(conversions, folder, precision)
        found = BaselineModels(lowered.paths, {**found.refused, **lowered.refused})
    if not found.paths:
        reasons = "; ".join(f"{way}: {reason}" for way, reason in found.refused.items())
        raise CompileError(
            f"{base.source.name} has no baseline model in {precision}, expected a way that works: {reasons}"
        )
    return found


def _make_models(makers: Mapping[str, Callable[[Path], None]], folder: Path, precision: str) -> BaselineModels:
    """Make a model in each way, whole or not at all."""
    paths: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for way, make in makers.items():
        target = folder / f"{_slug(way)}-{precision}"
        try:
            if not target.exists():
                with quiet_exporters(), new_folder(target) as temporary:
                    make(temporary / _MODEL)
        except Exception as error:  # whatever an exporter or a quantizer raises: the others may still work
            refused[way] = first_line(error)
        else:
            paths[way] = target / _MODEL
    return BaselineModels(paths, refused)


def _slug(way: str) -> str:
    return way.replace(", ", "_").replace(" ", "_").replace("'", "")


# --- fp32

_Export: TypeAlias = Callable[[BaseModel, TaskDelta, Path], None]


def _torch_inputs(base: BaseModel) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(value) for name, value in random_ids(base, 2, 7).items()}


def _dynamic_axes(base: BaseModel) -> dict[str, dict[int, Any]]:
    import torch

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=base.max_positions)}
    return dict.fromkeys(base.input_names, axes)


def _transformers(
    base: BaseModel, delta: TaskDelta, path: Path, *, fusions: str | None = None, quantizer: Any = None
) -> None:
    import onnx_ir
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    from bitfit_export.reference.task_model import merged_model

    options = {} if quantizer is None else {"quantizer": quantizer}
    config = OnnxConfig(dynamic=True, dynamic_shapes=_dynamic_axes(base), ort_fusions=fusions, **options)
    program = OnnxExporter().export(merged_model(base, delta).base, _torch_inputs(base), config=config).program
    onnx_ir.save(program, path, external_data=f"{path.name}.data")


def _transformers_fused(base: BaseModel, delta: TaskDelta, path: Path) -> None:
    _transformers(base, delta, path, fusions="cpu")


def _own_quantizer(base: BaseModel, delta: TaskDelta, path: Path) -> None:
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
    _transformers(base, delta, path, fusions="cpu", quantizer=quantizer)


def _logits_alone(base: BaseModel, delta: TaskDelta) -> Any:
    """The task's model with inputs by position and one output, as torch's exporters want it."""
    import torch

    from bitfit_export.reference.task_model import merged_model

    names = base.input_names

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = merged_model(base, delta)

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True)))["logits"]
            return logits

    return Logits().eval()


def _torch(base: BaseModel, delta: TaskDelta, path: Path) -> None:
    import torch

    torch.onnx.export(
        _logits_alone(base, delta),
        tuple(_torch_inputs(base).values()),
        str(path),
        input_names=list(base.input_names),
        output_names=["logits"],
        dynamic_shapes=(tuple(_dynamic_axes(base).values()),),
        dynamo=True,
        verbose=False,
    )


def _torchscript(base: BaseModel, delta: TaskDelta, path: Path) -> None:
    import torch

    model = _logits_alone(base, delta)
    # The attention that this exporter makes the faster graph of.
    model.model.base.set_attn_implementation("eager")
    torch.onnx.export(
        model,
        tuple(_torch_inputs(base).values()),
        str(path),
        input_names=list(base.input_names),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in base.input_names},
        opset_version=_TORCHSCRIPT_OPSET,
        dynamo=False,
    )


def _optimized(base: BaseModel, delta: TaskDelta, path: Path) -> None:
    """torch's older exporter, then ONNX Runtime's optimizer for transformers, as Olive runs them for BERT."""
    from onnxruntime.transformers.optimizer import optimize_model

    plain = path.with_name("plain.onnx")
    _torchscript(base, delta, plain)
    config: Any = base.module.config
    model = optimize_model(
        str(plain), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    model.save_model_to_file(str(path))
    plain.unlink()


#: How a user exports a model, by the name that results have.
BASELINE_WAYS: Mapping[str, _Export] = {
    "transformers": _transformers,
    "transformers, fused": _transformers_fused,
    "torch": _torch,
    "torch, older exporter": _torchscript,
    "Olive's passes": _optimized,
}


# --- lower precisions


def _without_stale_shapes(source: Path) -> onnx.ModelProto:
    """The model, its weights left in their file, without the shapes that it repeats for constants: quantizers transpose
    some of these, infer shapes anew, and refuse a model that says otherwise."""
    import onnx

    model = onnx.load(source, load_external_data=False)
    constants = {initializer.name for initializer in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return model


def _to_int8(source: Path, path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Beside the source, where its weights are found.
    cleaned = source.with_name("cleaned.onnx")
    onnx.save(_without_stale_shapes(source), cleaned)
    try:
        quantize_dynamic(
            cleaned,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            # It can't infer types behind ONNX Runtime's own operators, which some exports have.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        cleaned.unlink()


def _to_int4(source: Path, path: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = _without_stale_shapes(source)
    onnx.load_external_data_for_model(model, str(source.parent))
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=_INT4_BLOCK, accuracy_level=_INT4_ACCURACY)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), use_external_data_format=True)


def _to_fp16(source: Path, path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = _without_stale_shapes(source)
    onnx.load_external_data_for_model(model, str(source.parent))
    halved = convert_float_to_float16(model, keep_io_types=True)
    onnx.save(halved, path, save_as_external_data=True, location=f"{path.name}.data")


_CONVERTERS: Mapping[str, Callable[[Path, Path], None]] = {"int8": _to_int8, "int4": _to_int4, "fp16": _to_fp16}
