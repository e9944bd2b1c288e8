"""Every layout, with heads of every kind, computes what PyTorch computes; fixed shapes and defaults included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import BiasRow
from bitfit_export.bundle.row_format import HEADER_SIZE
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.pipeline import CompiledModel, plan_passes
from bitfit_export.delta import TOKEN_PROBLEMS, TaskDelta
from bitfit_export.errors import CompileError, DeltaError, UsageError
from bitfit_export.reference.task_model import merged_model
from tests.conftest import MakeDelta
from tests.traces import compile_model

#: A bundle's logits and PyTorch's differ by rounding alone.
TOLERANCE = 1e-5
ROWS, LENGTH = 3, 9


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel, make_delta: MakeDelta) -> dict[str, TaskDelta]:
    """One task for each way in which a head can differ from another in the same bundle."""
    return {
        "pooler": make_delta(tiny_base, "pooler", seed=1),
        "mean": make_delta(tiny_base, "mean", pooling="mean", labels=("a", "b", "c"), seed=2),
        "last": make_delta(tiny_base, "last", pooling="last", seed=3),
        "dense": make_delta(tiny_base, "dense", pooling="cls", activation="gelu", seed=4),
        "score": make_delta(tiny_base, "score", labels=(), problem_type="regression", pooling="cls", seed=5),
        "tokens": make_delta(tiny_base, "tokens", problem_type="token", labels=tuple("ABCDE"), seed=6),
        "span": make_delta(tiny_base, "span", problem_type="span", labels=("start", "end"), seed=7),
    }


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Rows of 9, 4 and 1 tokens, with both token types."""
    random = np.random.default_rng(5)
    mask = (np.arange(LENGTH) < np.array([[9], [4], [1]])).astype(np.int64)
    ids = random.integers(0, 30522, (ROWS, LENGTH))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": random.integers(0, 2, (ROWS, LENGTH))}


@pytest.fixture(scope="module")
def expected(tiny_base: BaseModel, deltas: dict[str, TaskDelta], batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's logits of every task."""
    tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
    with torch.inference_mode():
        return {name: merged_model(tiny_base, delta)(**tensors)["logits"].numpy() for name, delta in deltas.items()}


def head_of(compiled: CompiledModel, row: BiasRow, labels: int) -> dict[str, np.ndarray]:
    """A row's head as a host feeds it: tensors that the task lacks, and labels that it has not, are zero."""
    head = {}
    for entry, tensor in zip(compiled.layout.head, row.head, strict=True):
        head[entry.name] = np.zeros(entry.resolve(labels), np.float32)
        head[entry.name][tuple(slice(size) for size in tensor.shape)] = tensor
    return head


def feeds_of(compiled: CompiledModel, row: BiasRow, labels: int) -> dict[str, np.ndarray]:
    """What a host feeds for one task, besides text."""
    head = head_of(compiled, row, labels)
    if compiled.options.layout == "table":
        table = {"task_ids": np.zeros(1, np.int64), "bias_table": row.biases[None]}
        return table | {name: value[None] for name, value in head.items()}
    if compiled.options.layout == "packed":
        return {"bias": row.biases} | head
    named = {e.name: row.biases[e.offset : e.offset + e.size].reshape(e.shape) for e in compiled.layout.biases}
    return named | head


def logits_of(
    session: ort.InferenceSession, compiled: CompiledModel, delta: TaskDelta, batch: dict[str, np.ndarray], labels: int
) -> np.ndarray:
    name = "token_logits" if delta.config.problem_type in TOKEN_PROBLEMS else "logits"
    row = compiled.packer.pack(delta, task=delta.config.task)
    (found,) = session.run([name], batch | feeds_of(compiled, row, labels))
    return found[..., : delta.config.output_size]


@pytest.fixture(scope="module", params=["table", "packed", "named"])
def layout_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("fold", [True, False])
def test_every_kind_of_head_computes_what_pytorch_computes(
    layout_kind: str,
    fold: bool,
    tiny_base: BaseModel,
    deltas: dict[str, TaskDelta],
    batch: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    compiled = compile_model(tiny_base, deltas, CompileOptions(layout=layout_kind, fold=fold))
    onnx.checker.check_model(compiled.model, full_check=True)
    session = ort.InferenceSession(compiled.model.SerializeToString())
    for name, delta in deltas.items():
        found = logits_of(session, compiled, delta, batch, delta.config.output_size)
        # What a classifier says of padding is arbitrary.
        kept = batch["attention_mask"].astype(bool) if found.ndim == 3 else slice(None)
        np.testing.assert_allclose(found[kept], expected[name][kept], atol=TOLERANCE, rtol=0, err_msg=name)


def test_a_mixed_batch_of_sentences_and_tokens(
    tiny_base: BaseModel,
    deltas: dict[str, TaskDelta],
    batch: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    """Three rows, three kinds of task, one run."""
    compiled = compile_model(tiny_base, deltas)
    names = ("mean", "tokens", "dense")
    rows = [compiled.packer.pack(deltas[name], task=name) for name in names]
    heads = [head_of(compiled, row, labels=5) for row in rows]
    feeds = {"task_ids": np.arange(ROWS), "bias_table": np.stack([row.biases for row in rows])}
    feeds |= {name: np.stack([head[name] for head in heads]) for name in heads[0]}
    session = ort.InferenceSession(compiled.model.SerializeToString())
    logits, token_logits = session.run(["logits", "token_logits"], batch | feeds)
    np.testing.assert_allclose(logits[0, :3], expected["mean"][0], atol=TOLERANCE, rtol=0)
    kept = batch["attention_mask"][1].astype(bool)
    np.testing.assert_allclose(token_logits[1][kept], expected["tokens"][1][kept], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits[2, :2], expected["dense"][2], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("kind", "overridable"), [("packed", False), ("named", False), ("named", True)])
def test_a_fixed_shape_leaves_no_dynamic_dimension(
    kind: str,
    overridable: bool,
    tiny_base: BaseModel,
    deltas: dict[str, TaskDelta],
    batch: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    compiled = compile_model(
        tiny_base, deltas, CompileOptions(layout=kind, static_shape=(ROWS, LENGTH), overridable=overridable)
    )
    graph = compiled.model.graph
    values = [*graph.input, *graph.output]
    assert all(each.dim_value > 0 for value in values for each in value.type.tensor_type.shape.dim)
    assert not {"Shape", "ConstantOfShape", "Range"} & {node.op_type for node in graph.node}
    session = ort.InferenceSession(compiled.model.SerializeToString())
    for name, delta in deltas.items():
        found = logits_of(session, compiled, delta, batch, labels=5)
        np.testing.assert_allclose(found, expected[name], atol=TOLERANCE, rtol=0, err_msg=name)


def test_an_overridable_model_without_a_task_is_the_base_model(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], batch: dict[str, np.ndarray]
) -> None:
    """Only text is fed: the biases are the base's own, and the head gives zero. With a head: the base's output."""
    options = CompileOptions(layout="named", overridable=True)
    compiled = compile_model(tiny_base, {"mean": deltas["mean"]}, options)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(compiled.model.SerializeToString(), settings)
    assert {value.name for value in session.get_inputs()} == set(batch)
    (nothing,) = session.run(None, batch)
    assert not nothing.any()

    unchanged = {name: np.zeros_like(value) for name, value in tiny_base.biases.items()}
    delta = TaskDelta(deltas["mean"].config, unchanged, deltas["mean"].head)
    row = compiled.packer.pack(delta, task="mean")
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
        reference = merged_model(tiny_base, delta)(**tensors)["logits"].numpy()
    (found,) = session.run(None, batch | head_of(compiled, row, labels=3))
    np.testing.assert_allclose(found, reference, atol=TOLERANCE, rtol=0)


def test_a_row_in_half_precision_is_half_as_long(tiny_base: BaseModel, deltas: dict[str, TaskDelta]) -> None:
    from bitfit_export.bundle import encode_row

    sizes = {}
    for dtype in ("fp32", "fp16"):
        compiled = compile_model(tiny_base, deltas, CompileOptions(row_dtype=dtype))
        sizes[dtype] = len(encode_row(compiled.packer.pack(deltas["mean"], task="mean"))) - HEADER_SIZE
    assert sizes["fp16"] * 2 == sizes["fp32"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "stacked"}, "--layout is 'stacked', expected one of table, packed, named"),
        ({"target": "gpu"}, "--target is 'gpu'"),
        ({"precision": "fp8"}, "--precision is 'fp8'"),
        ({"row_dtype": "int8"}, "--row-dtype is 'int8'"),
        ({"static_shape": (1, 8)}, "--static-shape goes with one task at a time"),
        ({"layout": "packed", "static_shape": (0, 8)}, "expected a batch and a sequence of 1 or more"),
        ({"overridable": True}, "--overridable gives each bias input a default"),
        ({"overridable": True, "layout": "packed"}, "--overridable"),
        ({"prepack": True, "target": "portable"}, "--prepack goes with --target ort"),
        ({"prepack": True, "precision": "int8"}, "--prepack goes with --precision fp32, not with int8"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_passes(CompileOptions(**options))  # type: ignore[arg-type]


def test_two_kinds_of_dense_layer_need_two_bundles(tiny_base: BaseModel, make_delta: MakeDelta) -> None:
    deltas = {name: make_delta(tiny_base, name, pooling="cls", activation=name) for name in ("tanh", "relu")}
    with pytest.raises(CompileError, match="dense layers with relu of 32 and tanh of 32, expected one kind"):
        compile_model(tiny_base, deltas)


def test_a_narrow_dense_layer_and_a_linear_head_need_two_bundles(tiny_base: BaseModel, make_delta: MakeDelta) -> None:
    narrow = make_delta(tiny_base, "narrow", pooling="mean", activation="identity", inner=8)
    with pytest.raises(CompileError, match="linear head, others have a dense layer of 8, expected 32"):
        compile_model(tiny_base, {"narrow": narrow, "linear": make_delta(tiny_base, "linear")})
    assert compile_model(tiny_base, {"narrow": narrow}).layout.head[-2].shape == ("labels", 8)


@pytest.mark.parametrize(
    ("late", "message"),
    [
        ({"pooling": "last"}, "reads the base's last, the frozen model has pooler, cls"),
        ({"problem_type": "token"}, "has no token_logits"),
        ({"pooling": "cls", "activation": "tanh"}, "has activation tanh, the frozen model has None"),
    ],
)
def test_a_task_that_the_frozen_model_can_not_run_gets_no_row(
    late: dict[str, str], message: str, tiny_base: BaseModel, make_delta: MakeDelta
) -> None:
    compiled = compile_model(tiny_base, {"first": make_delta(tiny_base, "first")})
    with pytest.raises(DeltaError, match=message):
        compiled.packer.pack(make_delta(tiny_base, "late", **late), task="late")


def test_weights_lie_outside_in_every_layout(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    from bitfit_export.compiler.graph.model_files import write_model

    compiled = compile_model(tiny_base, deltas, CompileOptions(layout="packed", static_shape=(1, 8)))
    write_model(compiled.model, tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    outside = {value.name for value in model.graph.initializer if value.data_location == onnx.TensorProto.EXTERNAL}
    assert "embeddings.word_embeddings.weight" in outside
