"""Pass 5, fuse: the graph that ONNX Runtime's CPU kernels run fastest (`--target ort`), made once, not at each load.

Requires: a lifted model; its biases are inputs, so no fusion can bake one in.
Ensures: the same inputs, outputs, metadata and results up to rounding; weights stay constants.
Does not: use what depends on the machine, such as a blocked memory layout, or kernels that lose time:

- SkipLayerNormalization takes longer than the Add and the LayerNormalization that it replaces: 8 % of a run of MiniLM,
  4 % of BERT-base. By default ONNX Runtime puts it back when it loads the model, so load with no optimisation.
- BiasGelu takes a 1-D bias only, and is no faster than Add and Gelu.
- Attention and MultiHeadAttention, or one matrix for query, key and value, gain 1 % or less.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

from bitfit_export.compiler.graph.model_files import save_model
from bitfit_export.errors import CompileError, first_line

__all__ = ["add_biases_in_kernels", "optimise_for_ort", "prepack", "share_equal_weights"]

_SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
#: The kernels that add a bias [n] to their product on the way, and the input that takes it.
_BIAS_INPUT = {"DynamicQuantizeMatMul": 4, "MatMulIntegerToFloat": 6}
_EXTERNAL_FROM_BYTES = 1024
_ERRORS_ONLY = 3


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
    # ONNX Runtime keeps the metadata, and changes its order.
    del optimised.metadata_props[:]
    optimised.metadata_props.extend(model.metadata_props)
    _drop_unused_domains(optimised)
    return optimised


def add_biases_in_kernels(model: onnx.ModelProto) -> int:
    """Let int8 kernels add a bias [n], in place, where that bias is 1-D at run time; give the number of Adds saved.

    ONNX Runtime's optimiser does so for constant biases only, though the kernels take any [n]. The table layout's
    biases have a batch dimension and stay Adds.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    vectors = {value.name for value in (*graph.value_info, *graph.input) if len(value.type.tensor_type.shape.dim) == 1}
    outputs = {value.name for value in graph.output}
    moved: dict[str, onnx.NodeProto] = {}
    for add in graph.node:
        for product, bias in (add.input, reversed(add.input)) if add.op_type == "Add" else ():
            kernel = makers.get(product)
            if bias not in vectors or kernel is None or uses[product] != 1 or product in outputs:
                continue
            if kernel.op_type in _BIAS_INPUT and _take_bias(kernel, bias, add.output[0]):
                moved[add.output[0]] = kernel
                break
    _rebuild(graph, moved)
    return len(moved)


def share_equal_weights(model: onnx.ModelProto) -> int:
    """Store weights that are equal once; give the number of those saved.

    ONNX Runtime's optimiser packs the int4 matrix of each product anew, also of one that layers share.
    """
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    replaced: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _EXTERNAL_FROM_BYTES:
            name = first.setdefault((tensor.data_type, tuple(tensor.dims), tensor.raw_data), tensor.name)
            if name != tensor.name:
                replaced[tensor.name] = name
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = replaced.get(name, name)
    return len(replaced)


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


def _take_bias(kernel: onnx.NodeProto, bias: str, output: str) -> bool:
    position = _BIAS_INPUT[kernel.op_type]
    inputs = [*kernel.input, *[""] * (position + 1)][: position + 1]
    if inputs[position]:
        return False
    inputs[position] = bias
    del kernel.input[:]
    kernel.input.extend(inputs)
    kernel.output[0] = output
    return True


def _rebuild(graph: onnx.GraphProto, moved: dict[str, onnx.NodeProto]) -> None:
    """Put each kernel where its Add was: there its bias is known."""
    kernels = {id(kernel) for kernel in moved.values()}
    nodes = []
    for node in graph.node:
        if id(node) not in kernels:
            nodes.append(moved.get(node.output[0], node))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


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
