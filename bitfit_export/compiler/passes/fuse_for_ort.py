"""Fuse: the graph that ONNX Runtime's CPU kernels run fastest (`--target ort`), made once, not at each load.

Requires: a lifted model; its biases are inputs, so no fusion can bake one in.
Ensures: the same inputs, outputs, metadata and results up to rounding; weights stay constants.
Does not: use what depends on the machine, such as a blocked memory layout, or kernels that lose time:

- SkipLayerNormalization takes longer than the Add and the LayerNormalization that it replaces: 8 % of a run of MiniLM,
  4 % of BERT-base. By default ONNX Runtime puts it back when it loads the model, so load with no optimisation.
- BiasGelu takes a 1-D bias only, and is no faster than Add and Gelu.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.model_files import save_model
from bitfit_export.errors import CompileError, first_line

__all__ = ["FuseForOrt", "optimise_for_ort", "prepack"]

_SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
_EXTERNAL_FROM_BYTES = 1024
_ERRORS_ONLY = 3


class FuseForOrt(Pass):
    """Let ONNX Runtime's optimiser rewrite the graph."""

    name = "fuse_for_ort"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        compilation.graph = gs.import_onnx(optimise_for_ort(gs.export_onnx(compilation.graph)))
        return True


def optimise_for_ort(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as ONNX Runtime's optimiser rewrites it, without the fusions that are slower than what they replace.

    Raises:
        CompileError: ONNX Runtime can't load the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "optimised.onnx")
        save_model(model, source)
        _open(source, _save_to(target), disabled_optimizers=list(_SLOW_FUSIONS))
        optimised = onnx.load(str(target))
    _drop_unused_domains(optimised)
    return optimised


def prepack(path: Path, weights: Path) -> None:
    """Rewrite an optimised model and its weights, in place, so that its kernels find the weights as they want them.

    What a session does to the weights when it starts is then in the file, to be mapped: a faster start, and pages that
    processes share. The file is larger, for the plain weights stay in it, and is for this kind of processor: another
    kind's kernels take the plain ones.

    Raises:
        CompileError: ONNX Runtime can't load the model.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder, path.name)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = str(target)
        options.log_severity_level = _ERRORS_ONLY
        for key, value in (
            ("session.optimized_model_external_initializers_file_name", weights.name),
            ("session.optimized_model_external_initializers_min_size_in_bytes", str(_EXTERNAL_FROM_BYTES)),
            ("session.save_external_prepacked_constant_initializers", "1"),
        ):
            options.add_session_config_entry(key, value)
        _open(path, options)
        target.replace(path)
        Path(folder, weights.name).replace(weights)


def _open(path: Path, options: ort.SessionOptions, **more: object) -> None:
    """Start a session, which writes the model that the options ask for."""
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], **more)
    except Exception as error:
        raise CompileError(f"ONNX Runtime can't load the compiled graph: {first_line(error)}") from error


def _save_to(path: Path) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", f"{path.name}.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(_EXTERNAL_FROM_BYTES)),
        # Nothing will run in this session.
        ("session.disable_prepacking", "1"),
        # int4 weights meet activations in int8, in blocks of the weights' own size.
        ("session.qdq_matmulnbits_accuracy_level", "4"),
    ):
        options.add_session_config_entry(key, value)
    return options


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """ONNX Runtime lists every domain that it knows; a reader that lacks one would refuse the model."""
    used = {node.domain for node in model.graph.node} | {""}
    needed = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(needed)
