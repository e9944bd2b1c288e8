"""`--target portable`: standard operators alone, so ONNX's reference evaluator, OpenVINO and IREE run what we emit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.graph.model_files import write_model
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.delta import TaskDelta
from bitfit_export.reference.task_model import merged_model
from tests.compiler.test_layouts import feeds_of
from tests.conftest import MakeDelta
from tests.families import quick_first
from tests.families import tiny_base as family_base
from tests.traces import compile_model

TOLERANCE = 1e-5
ROWS, LENGTH = 2, 9
FAMILIES = quick_first(["bert", "distilbert", "roberta", "albert", "electra", "mpnet"])


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest) -> BaseModel:
    return family_base(request.param)


@pytest.fixture(scope="module")
def delta(base: BaseModel, make_delta: MakeDelta) -> TaskDelta:
    return make_delta(base, "task", pooling="cls", activation="tanh")


@pytest.fixture(scope="module")
def batch(base: BaseModel) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    mask = (np.arange(LENGTH) < np.array([[9], [4]])).astype(np.int64)
    every = {
        "input_ids": random.integers(5, 1000, (ROWS, LENGTH)) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros((ROWS, LENGTH), np.int64),
    }
    return {name: value for name, value in every.items() if name in base.tokenizer.model_input_names}


@pytest.fixture(scope="module")
def expected(base: BaseModel, delta: TaskDelta, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
        return merged_model(base, delta)(**tensors)["logits"].numpy()


def compile_for(base: BaseModel, delta: TaskDelta, layout: str, **options: object) -> CompiledModel:
    settings = CompileOptions(layout=layout, target="portable", **options)  # type: ignore[arg-type]
    return compile_model(base, {"task": delta}, settings)


def feeds_for(compiled: CompiledModel, delta: TaskDelta, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return batch | feeds_of(compiled, compiled.packer.pack(delta, task="task"), labels=2)


@pytest.fixture(scope="module")
def table(base: BaseModel, delta: TaskDelta) -> CompiledModel:
    return compile_for(base, delta, "table")


@pytest.fixture(scope="module")
def packed(base: BaseModel, delta: TaskDelta) -> CompiledModel:
    return compile_for(base, delta, "packed", static_shape=(ROWS, LENGTH))


def test_the_graph_has_standard_operators_alone(table: CompiledModel, packed: CompiledModel) -> None:
    for compiled in (table, packed):
        onnx.checker.check_model(compiled.model, full_check=True)
        assert {node.domain for node in compiled.model.graph.node} <= {"", "ai.onnx"}
        assert [each.domain for each in compiled.model.opset_import] == [""]
        assert 18 <= compiled.model.opset_import[0].version <= 20


def test_the_reference_evaluator_computes_what_pytorch_computes(
    base: BaseModel, table: CompiledModel, delta: TaskDelta, batch: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    if base.module.config.model_type == "roberta":
        pytest.skip("ONNX's reference evaluator has no GatherElements from more than 64 elements")
    (found,) = ReferenceEvaluator(table.model).run(None, feeds_for(table, delta, batch))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_openvino_computes_what_pytorch_computes(
    table: CompiledModel,
    packed: CompiledModel,
    delta: TaskDelta,
    batch: dict[str, np.ndarray],
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino, which bitfit-export[dev] brings")
    core = openvino.Core()
    for compiled in (table, packed):
        folder = tmp_path / compiled.options.layout
        folder.mkdir()
        write_model(compiled.model, folder)
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        model = core.compile_model(core.read_model(folder / "model.onnx"), "CPU", exact)
        found = model(feeds_for(compiled, delta, batch))["logits"]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_iree_compiles_it_for_two_processors_and_runs_it_on_this_one(
    base: BaseModel,
    packed: CompiledModel,
    delta: TaskDelta,
    batch: dict[str, np.ndarray],
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    """Weights are inside the compiled module; biases are arguments of its function."""
    import platform

    compiler = pytest.importorskip("iree.compiler", reason="needs iree-base-compiler, which bitfit-export[dev] brings")
    runtime = pytest.importorskip("iree.runtime", reason="needs iree-base-runtime, which bitfit-export[dev] brings")
    if base.module.config.model_type not in ("bert", "roberta"):
        pytest.skip("compiled for two families; the others are made of the same operators")
    others = {"x86_64", "aarch64"} - {platform.machine()} if base.module.config.model_type == "bert" else ()
    modules = {
        processor: compile_with_iree(compiler, packed, processor, tmp_path)
        for processor in (platform.machine(), *others)
    }
    assert all(len(module) > 1_000_000 for module in modules.values())  # the embeddings alone have 4 MB
    module = runtime.load_vm_flatbuffer(modules[platform.machine()], driver="local-task")
    feeds = feeds_for(packed, delta, batch)
    found = module["main_graph"](*[feeds[name] for name in packed.inputs])
    np.testing.assert_allclose(found.to_host(), expected, atol=TOLERANCE, rtol=0)


def compile_with_iree(compiler: object, compiled: CompiledModel, processor: str, folder: Path) -> bytes:
    """A module of IREE's virtual machine, by IREE's own ONNX importer."""
    import subprocess
    import sys

    onnx.save(compiled.model, folder / "model.onnx")
    importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(folder / "model.onnx")]
    subprocess.run([*importer, "-o", str(folder / "model.mlir")], check=True, capture_output=True)
    module: bytes = compiler.compile_file(  # type: ignore[attr-defined]
        str(folder / "model.mlir"),
        target_backends=["llvm-cpu"],
        input_type="onnx",
        extra_args=[f"--iree-llvmcpu-target-triple={processor}-linux-gnu", "--iree-llvmcpu-target-cpu=generic"],
    )
    return module
