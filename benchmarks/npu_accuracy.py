"""What bundles of `--target qnn --keep-onnx` answer on whole dev sets, by their graphs in ONNX Runtime's CPU kernels.

    python benchmarks/npu_accuracy.py BUNDLE... --data glue/ [--tasks rte,cola] [--on-engine 2]

The engine may be an emulator that takes seconds per run, so it runs a sample of each task alone, and the largest
difference of a logit says whether both compute the same. A graph of fp16 has its weights, and what its nodes return,
rounded to float16; the HTP's own functions round more than that. Texts run at their own length, for a graph that masks
padding answers the same. "lost" is against the metric that the delta's own training measured in float32. Metrics are
percentages. Writes results/benchmarks/npu_accuracy-<precision>.json for each bundle, with the code that measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import Results, make_parser, say
from onnx import TensorProto, helper, numpy_helper

from bitfit_export.bundle import read_row
from bitfit_export.bundle.row_arrays import integer_biases, row_arrays
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import load_task_data

#: The input that takes the place of the constant positions of a graph of one shape.
_POSITIONS = "positions"
_ERRORS_ONLY = 3


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of data for each task")
    parser.add_argument("--tasks", help="by default all of the bundle's")
    parser.add_argument("--on-engine", type=int, default=2, help="texts of each task to run on the engine too")
    options = parser.parse_args(words)
    settings = {"texts of each task on the engine": options.on_engine}
    for bundle in options.bundles:
        session = BiasSession(bundle)
        record, precision = session.manifest.accelerator, session.manifest.precision
        if record is None or record.source is None:
            parser.error(f"{bundle} was not exported with --target qnn --keep-onnx")
        source = open_source(bundle / record.source, session)
        say(f"{precision}, engine: {session.device}")
        results = Results(options.results, f"npu_accuracy-{precision}", settings)
        for task in options.tasks.split(",") if options.tasks else session.tasks:
            results.measured[task] = compare(session, source, bundle, task, options.data, options.on_engine)
            results.save()
            say(f"{task}: {results.measured[task]}")
        print(results.save())


def open_source(path: Path, session: BiasSession) -> ort.InferenceSession:
    """The graph of a bundle, for texts of any length."""
    shape = session.manifest.static_shape
    assert shape is not None
    model = onnx.load(str(path))
    free_length(model.graph, shape[1])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, _ERRORS_ONLY
    # Float arithmetic between the roundings: kernels of integers saturate on some processors, the HTP does not.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if session.manifest.precision == "fp16":
        round_to_half(model)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # would drop the roundings
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def free_length(graph: onnx.GraphProto, length: int) -> None:
    """Make a graph of one text and one length take any: its Reshapes find out, and its positions become an input."""
    for each in list(graph.initializer):
        if each.data_type != TensorProto.INT64:
            continue
        values = numpy_helper.to_array(each)
        if values.shape == (1, length):
            each.name, before = _POSITIONS, each.name
            for node in graph.node:
                node.input[:] = [_POSITIONS if name == before else name for name in node.input]
            graph.initializer.remove(each)
            graph.input.append(helper.make_tensor_value_info(_POSITIONS, TensorProto.INT64, [1, length]))
        elif values.ndim == 1 and values.size > 1 and values[:-1].prod() == length:
            shape = np.where(values == length, -1, values)
            each.CopyFrom(numpy_helper.from_array(shape, each.name))
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if [each.dim_value for each in dims] == [1, length]:
            dims[1].dim_param = "length"
    del graph.value_info[:]


def round_to_half(model: onnx.ModelProto) -> None:
    """Round weights, float inputs, and what each node returns, to float16."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        each.name
        for each in (*graph.value_info, *graph.output, *graph.input)
        if each.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    most = float(np.finfo(np.float16).max)
    for each in model.graph.initializer:
        if each.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(each).clip(-most, most).astype(np.float16).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(values, each.name))
    nodes = [node for each in graph.input if each.name in floats for node in _rounding(each.name)]
    for node in model.graph.node:
        node.input[:] = [f"{name}/rounded" if name in floats else name for name in node.input]
        nodes += [node, *(each for name in node.output if name in floats for each in _rounding(name))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _rounding(name: str) -> list[onnx.NodeProto]:
    half = f"{name}/half"
    return [
        helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [f"{name}/rounded"], to=TensorProto.FLOAT),
    ]


def compare(
    session: BiasSession, source: ort.InferenceSession, bundle: Path, task: str, folder: Path, on_engine: int
) -> dict[str, Any]:
    """The task's metric on its dev set, what it lost, and the difference to the engine on the first texts."""
    record, data = session.manifest.tasks[task], load_task_data(task, data=folder)
    feeds, logits, difference = feeds_of(session, bundle, task), [], 0.0
    for number, text in enumerate(data.validation.texts):
        encoded = session.encode([text[0] if len(text) == 1 else (text[0], text[1])], truncate=True)
        positions = np.arange(encoded["input_ids"].shape[1])[np.newaxis]
        given = feeds | encoded | {_POSITIONS: positions}
        (found,) = source.run(["logits"], {each.name: given[each.name] for each in source.get_inputs()})
        logits.append(found[0, : record.label_count])
        if number < on_engine:
            difference = max(difference, float(np.abs(session.run(task, **encoded)[0] - logits[-1]).max()))
    values, name = np.array(logits), data.spec.metrics[0]
    predictions = values[:, 0] if record.problem_type == "regression" else values.argmax(-1)
    found = 100 * metrics.compute([name], record.problem_type, predictions, data.validation.labels)[name]
    return {
        "metric": name,
        "value": found,
        "lost": 100 * record.metrics[name] - found,
        "examples": len(values),
        "largest difference of a logit to the engine": difference if on_engine else None,
    }


def feeds_of(session: BiasSession, bundle: Path, task: str) -> dict[str, np.ndarray]:
    """What a task's row is to the graph."""
    manifest = session.manifest
    row = read_row(bundle / manifest.tasks[task].file, layout=manifest.layout)
    labels = max(each.label_count for each in manifest.tasks.values())
    arrays = row_arrays(row, manifest.layout, manifest.layout_kind, labels=labels)
    integer_biases(arrays, manifest.quantization.bias_scales)
    return dict(arrays)


if __name__ == "__main__":
    main()
