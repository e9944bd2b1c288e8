"""`--precision int8-static`: ranges that are constants, and one answer in every runtime, whatever is beside a text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import read_manifest
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.delta import TaskDelta
from bitfit_export.runtime import BiasSession
from bitfit_export.verification.bundle import verify_bundle
from tests.compiler.test_layouts import feeds_of
from tests.conftest import MakeDelta
from tests.traces import compile_bundle, compile_model

#: A logit's largest difference between runtimes: an activation on the edge of two steps goes to one or the other.
ROUNDING = 0.02
LAYOUTS = ("table", "packed", "named")
TEXTS = ["One text.", "A longer text, of which there is more to say than of the first.", "Three."]


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel, make_delta: MakeDelta) -> dict[str, TaskDelta]:
    return {
        "two_way": make_delta(tiny_base, "two_way", pooling="cls", seed=1),
        "mean": make_delta(tiny_base, "mean", pooling="mean", labels=("a", "b", "c"), seed=2),
    }


@dataclass(frozen=True)
class Bundle:
    folder: Path
    compiled: CompiledModel


@pytest.fixture(scope="module")
def bundle_for(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Bundle]:
    """The bundle for a target, in a layout and with fixed shapes or not; each is compiled once, and read alone."""

    @functools.cache
    def make(target: str, layout: str, *, static: bool = False) -> Bundle:
        folder = tmp_path_factory.mktemp("bundle")
        shape = (3, 24) if static else None
        options = CompileOptions(precision="int8-static", target=target, layout=layout, static_shape=shape)
        return Bundle(folder, compile_bundle(tiny_base, deltas, folder, options))

    return make


def kinds_of(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_onnx_runtime_gets_its_integer_kernels(bundle_for: Callable[..., Bundle], layout: str) -> None:
    compiled = bundle_for("ort", layout).compiled
    kernels = [node for node in compiled.model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(kernels) == len(compiled.ranges)
    assert not kinds_of(compiled.model) & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DequantizeLinear"}
    # Of every product the excess, and in one task's layouts a bias too, is added by the kernel.
    assert all(len(node.input) == 7 and node.input[6] for node in kernels)
    weights = {each.name: each.data_type for each in compiled.model.graph.initializer}
    inputs = [node.input[0] for node in kernels]
    rounded = {node.output[0]: node for node in compiled.model.graph.node if node.op_type == "QuantizeLinear"}
    assert all(weights[node.input[1]] == onnx.TensorProto.INT8 for node in kernels)
    assert all(weights[rounded[name].input[2]] == onnx.TensorProto.UINT8 for name in inputs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_portable_form_has_standard_operators_alone(bundle_for: Callable[..., Bundle], layout: str) -> None:
    compiled = bundle_for("portable", layout).compiled
    onnx.checker.check_model(compiled.model, full_check=True)
    assert [each.domain for each in compiled.model.opset_import] == [""]
    kinds = [node.op_type for node in compiled.model.graph.node]
    assert kinds.count("QuantizeLinear") == len(compiled.ranges) > 0
    assert "MatMulInteger" not in kinds


@pytest.mark.parametrize(("layout", "static"), [("table", False), ("packed", False), ("packed", True), ("named", True)])
def test_every_runtime_gives_the_same_answers(
    tiny_base: BaseModel,
    deltas: dict[str, TaskDelta],
    bundle_for: Callable[..., Bundle],
    tmp_path: Path,
    layout: str,
    static: bool,
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs bitfit-export[openvino]")
    encoded = tiny_base.tokenizer(TEXTS, padding="max_length", max_length=24, return_tensors="np")
    batch = {name: np.asarray(encoded[name], np.int64) for name in tiny_base.input_names}
    compiled = bundle_for("portable", layout, static=static).compiled
    feeds = batch | feeds_of(compiled, compiled.packer.pack(deltas["mean"], task="mean"), labels=3)
    feeds = {name: value for name, value in feeds.items() if name in compiled.inputs}
    session = ort.InferenceSession(compiled.model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = {"onnxruntime": session.run(["logits"], feeds)[0]}
    (answers["reference"],) = ReferenceEvaluator(compiled.model).run(["logits"], feeds)
    onnx.save(compiled.model, tmp_path / "model.onnx")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(tmp_path / "model.onnx"), "CPU", exact)
    answers["openvino"] = model(feeds)["logits"]
    for found in answers.values():
        np.testing.assert_allclose(found, answers["onnxruntime"], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("target", ["ort", "portable"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stands_beside_a_text_changes_nothing(bundle_for: Callable[..., Bundle], target: str, layout: str) -> None:
    """As in int8 it does, where a range is that of the batch."""
    session = BiasSession(bundle_for(target, layout).folder, threads=1)
    together = session.run("mean", **session.encode(TEXTS))
    alone = np.concatenate([session.run("mean", **session.encode([text])) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=0, atol=ROUNDING)


def test_a_bundle_verifies_and_its_manifest_has_the_ranges(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], bundle_for: Callable[..., Bundle]
) -> None:
    bundle = bundle_for("ort", "table")
    compiled = bundle.compiled
    report = verify_bundle(bundle.folder, tiny_base, deltas, packer=compiled.packer)
    assert all(each.passed for each in report.comparisons)
    record = read_manifest(bundle.folder).quantization
    assert record.not_quantized == compiled.not_quantized
    assert record.ranges.keys() == compiled.ranges.keys()
    initializers = {each.name: onnx.numpy_helper.to_array(each) for each in compiled.model.graph.initializer}
    rounding = {
        node.name.rpartition("/")[0]: node for node in compiled.model.graph.node if node.op_type == "QuantizeLinear"
    }
    for name, each in record.ranges.items():
        assert initializers[rounding[name].input[1]] == np.float32(each.scale)
        assert initializers[rounding[name].input[2]] == each.zero_point
        assert 0 < each.used < 1.5


def test_the_texts_that_a_user_gives_set_the_ranges(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], bundle_for: Callable[..., Bundle]
) -> None:
    options = CompileOptions(precision="int8-static")
    samples = bundle_for("ort", "table").compiled
    own = compile_model(tiny_base, deltas, options, texts=[("One text.",), ("Two texts,", "as a pair.")])
    assert own.ranges != samples.ranges
    again = compile_model(tiny_base, deltas, options)
    assert again.ranges == samples.ranges
