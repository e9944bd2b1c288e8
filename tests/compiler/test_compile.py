"""The compiled graph: weights are constants, biases and heads are inputs, and it computes what PyTorch computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import BiasRow, Layout, read_manifest, read_row
from bitfit_export.compiler import CompileOptions, compile_bundle
from bitfit_export.compiler.graph.model_files import write_model
from bitfit_export.compiler.passes.check_invariants import find_problems
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseMismatchError, OutputError, UsageError
from bitfit_export.reference.task_model import TaskModel, merged_model
from tests import traces

#: A bundle's logits and PyTorch's differ by rounding alone.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / "model.onnx")


@pytest.fixture(scope="module")
def layout(tiny_bundle: Path) -> Layout:
    return read_manifest(tiny_bundle).layout


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> ort.InferenceSession:
    return ort.InferenceSession(tiny_bundle / "model.onnx")


@pytest.fixture(scope="module")
def unfolded(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> CompiledModel:
    """The model with every bias term in its row."""
    return traces.compile_model(tiny_base, tiny_deltas, CompileOptions(fold=False))


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Three rows of 9 tokens, two of them padded, with both token types."""
    random = np.random.default_rng(5)
    mask = (np.arange(9) < np.array([[9], [4], [1]])).astype(np.int64)
    ids = random.integers(0, 30522, (3, 9))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": random.integers(0, 2, (3, 9))}


def feeds_of(bundle: Path, layout: Layout, task: str) -> dict[str, np.ndarray]:
    """What a host feeds for one task: its row as a table of one."""
    return feeds_of_row(read_row(bundle / "tasks" / f"{task}.bias", layout=layout), layout)


def feeds_of_row(row: BiasRow, layout: Layout) -> dict[str, np.ndarray]:
    feeds = {"task_ids": np.zeros(1, np.int64), "bias_table": row.biases[None]}
    return feeds | {entry.name: tensor[None] for entry, tensor in zip(layout.head, row.head, strict=True)}


def torch_logits(model: TaskModel, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(value) for name, value in batch.items()})["logits"].numpy()


def test_every_weight_is_a_constant_and_no_bias_is(
    model: onnx.ModelProto, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    """ONNX Runtime's optimiser transposes weights and renames them; a portable graph has the state dict's names."""
    portable = traces.compile_model(tiny_base, tiny_deltas, CompileOptions(target="portable")).model
    weights = {
        name: value.numel() for name, value in tiny_base.module.named_parameters() if name not in tiny_base.biases
    }
    assert weights.keys() <= {value.name for value in portable.graph.initializer}
    for each in (portable, model):
        inputs = {value.name for value in each.graph.input}
        constants = {value.name: int(np.prod(value.dims)) for value in each.graph.initializer}
        assert not inputs & constants.keys()
        assert not constants.keys() & tiny_base.biases.keys()
        # The table of two token types may be a part of another one by now.
        assert sum(constants.values()) >= sum(weights.values()) - weights["embeddings.token_type_embeddings.weight"]


def test_the_inputs_and_outputs_are_those_of_the_table_layout(model: onnx.ModelProto, layout: Layout) -> None:
    def signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]

    int64, float32 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    assert sorted(map(signature, model.graph.input)) == sorted(
        [
            ("input_ids", int64, ["batch", "sequence"]),
            ("attention_mask", int64, ["batch", "sequence"]),
            ("token_type_ids", int64, ["batch", "sequence"]),
            ("task_ids", int64, ["task_batch"]),
            ("bias_table", float32, ["tasks", layout.bias_count]),
            ("head.pooling", float32, ["tasks", 3]),
            ("head.classifier.weight", float32, ["tasks", "labels", 32]),
            ("head.classifier.bias", float32, ["tasks", "labels"]),
        ]
    )
    assert [signature(value) for value in model.graph.output] == [("logits", float32, ["batch", "labels"])]


def test_the_model_is_valid_onnx_and_names_its_base_and_layout(tiny_bundle: Path, layout: Layout) -> None:
    onnx.checker.check_model(str(tiny_bundle / "model.onnx"), full_check=True)
    properties = {each.key: each.value for each in onnx.load(tiny_bundle / "model.onnx").metadata_props}
    assert properties["bitfit_export.layout_digest"] == layout.digest
    assert properties["bitfit_export.base_digest"] == layout.base_digest


def test_weights_lie_outside_the_model_file(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / "model.onnx", load_external_data=False)
    outside = {value.name for value in model.graph.initializer if value.data_location == onnx.TensorProto.EXTERNAL}
    assert "embeddings.word_embeddings.weight" in outside


def test_a_model_of_very_many_bias_terms_can_be_loaded(tmp_path: Path) -> None:
    """The sizes of 1,000 terms are 8 kB of integers; ONNX Runtime needs them in the model file."""
    terms = 1000
    sizes = onnx.helper.make_tensor("sizes", onnx.TensorProto.INT64, [terms], [1] * terms)
    outputs = [onnx.helper.make_tensor_value_info(f"y{n}", onnx.TensorProto.FLOAT, [1, 1]) for n in range(terms)]
    row = onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, [1, terms])
    split = onnx.helper.make_node("Split", ["row", "sizes"], [value.name for value in outputs], axis=1)
    graph = onnx.helper.make_graph([split], "split", [row], outputs, [sizes])
    opset = onnx.helper.make_opsetid("", 20)
    write_model(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path)
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert len(session.run(None, {"row": np.zeros((1, terms), np.float32)})) == terms


def test_an_unfolded_row_has_every_bias_term_in_the_models_order(unfolded: CompiledModel, tiny_base: BaseModel) -> None:
    assert [entry.name for entry in unfolded.layout.biases] == list(tiny_base.biases)
    assert unfolded.layout.bias_count == sum(value.size for value in tiny_base.biases.values())


def test_a_folded_row_has_what_does_work_of_its_own(layout: Layout, tiny_base: BaseModel) -> None:
    """Of a layer's eight bias terms four: the query's, and those of the three dense layers."""
    names = [entry.name for entry in layout.biases]
    assert names == [name for name in tiny_base.biases if name in names]
    ends = ("attention.self.query.bias", "attention.output.dense.bias", "intermediate.dense.bias", "output.dense.bias")
    assert names == [f"encoder.layer.{layer}.{end}" for layer in (0, 1) for end in ends] + ["pooler.dense.bias"]


@pytest.mark.parametrize("task", ["three_way", "two_way", "score"])
def test_each_task_computes_what_pytorch_computes(
    task: str,
    session: ort.InferenceSession,
    tiny_bundle: Path,
    layout: Layout,
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
    batch: dict[str, np.ndarray],
) -> None:
    (logits,) = session.run(["logits"], batch | feeds_of(tiny_bundle, layout, task))
    expected = torch_logits(merged_model(tiny_base, tiny_deltas[task]), batch)
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 2), (1, 64), (5, 3)])
def test_batch_and_sequence_are_dynamic(
    rows: int,
    length: int,
    session: ort.InferenceSession,
    tiny_bundle: Path,
    layout: Layout,
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
) -> None:
    ids = np.arange(rows * length).reshape(rows, length) + 1000
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (logits,) = session.run(["logits"], batch | feeds_of(tiny_bundle, layout, "two_way"))
    expected = torch_logits(merged_model(tiny_base, tiny_deltas["two_way"]), batch)
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("fold", [True, False])
def test_each_bias_term_is_alive_and_moves_the_output_as_pytorch_says(
    fold: bool,
    session: ort.InferenceSession,
    tiny_bundle: Path,
    layout: Layout,
    unfolded: CompiledModel,
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
    batch: dict[str, np.ndarray],
) -> None:
    """Perturb one term of the row at a time. Key biases shift all scores of a softmax row equally, so they move
    nothing; every other term moves the logits."""
    random = np.random.default_rng(7)
    reference = merged_model(tiny_base, tiny_deltas["three_way"])
    if fold:
        feeds = batch | feeds_of(tiny_bundle, layout, "three_way")
    else:
        session, layout = ort.InferenceSession(unfolded.model.SerializeToString()), unfolded.layout
        row = unfolded.packer.pack(tiny_deltas["three_way"], task="three_way")
        feeds = batch | feeds_of_row(row, layout)
    (before,) = session.run(["logits"], feeds)
    for entry in layout.biases:
        change = random.normal(0, 0.5, entry.size).astype(np.float32)
        table = feeds["bias_table"].copy()
        table[0, entry.offset : entry.offset + entry.size] += change
        (after,) = session.run(["logits"], feeds | {"bias_table": table})
        perturbed = copy.deepcopy(reference)
        perturbed.state_dict()[f"base.{entry.name}"].add_(torch.from_numpy(change))
        expected = torch_logits(perturbed, batch)
        np.testing.assert_allclose(after, expected, atol=TOLERANCE, rtol=0, err_msg=entry.name)
        moved = np.abs(after - before).max()
        if entry.name.endswith("self.key.bias"):
            assert moved < TOLERANCE
        else:
            assert moved > 100 * TOLERANCE, entry.name


def test_zero_and_equal_biases_stay_apart(tiny_base: BaseModel, tmp_path: Path) -> None:
    """Fresh models have biases that are all zero; an optimising export merges those into one initializer."""
    import dataclasses

    module = copy.deepcopy(tiny_base.module)
    for name, parameter in module.named_parameters():
        if name in tiny_base.biases:
            parameter.data.zero_()
    zeros = dataclasses.replace(tiny_base, module=module, digest="1" * 64)
    compiled = traces.compile_model(zeros, {}, CompileOptions(fold=False))
    assert len(compiled.layout.biases) == len(tiny_base.biases)
    split = next(node for node in compiled.model.graph.node if node.name == "bias_split")
    assert len(split.output) == len(tiny_base.biases)


def test_the_same_input_gives_the_same_bytes(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    # A tokenizer remembers how it was called last.
    tiny_base.tokenizer("A text.", padding="max_length", max_length=16, truncation=True)
    traces.compile_bundle(tiny_base, tiny_deltas, tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(tiny_bundle)) for path in tiny_bundle.rglob("*") if path.is_file())
    assert [name for name in names if (tmp_path / name).read_bytes() != (tiny_bundle / name).read_bytes()] == []


def test_a_delta_of_another_base_is_refused_before_anything_is_compiled(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    import dataclasses

    other = dataclasses.replace(tiny_base, digest="2" * 64)
    with pytest.raises(BaseMismatchError):
        compile_bundle(other, tiny_deltas, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_task_is_an_error(tiny_base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task"):
        compile_bundle(tiny_base, {}, tmp_path)


def test_a_folder_with_other_files_is_not_written_into(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text("the base model's own")
    with pytest.raises(OutputError, match="is not empty"):
        compile_bundle(tiny_base, tiny_deltas, tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "the base model's own"


def broken(model: onnx.ModelProto, biases: Mapping[str, np.ndarray], defect: str) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if defect == "weight as input":
        copied.graph.input.add(name="embeddings.word_embeddings.weight")
    elif defect == "bias as constant":
        copied.graph.initializer.add(name="pooler.dense.bias")
    elif defect == "unused input":
        copied.graph.input.add(name="stray")
    elif defect == "bias among other values":
        # As a fusion leaves it that makes one constant of the query's, the key's and the value's.
        values = np.concatenate([np.ones(32), biases["encoder.layer.0.attention.self.key.bias"], np.ones(32)])
        copied.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), "qkv"))
    else:
        split = next(node for node in copied.graph.node if node.name == "bias_split")
        user = next(node for node in copied.graph.node if split.output[0] in node.input)
        user.input[list(user.input).index(split.output[0])] = split.output[1]
    return copied


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("weight as input", "is a graph input"),
        ("bias as constant", "bias pooler.dense.bias is an initializer"),
        ("unused input", "input stray has no use"),
        ("unused bias", "bias encoder.layer.0.attention.self.query.bias has no use"),
        (
            "bias among other values",
            "values of the bias encoder.layer.0.attention.self.key.bias are in the constant qkv",
        ),
    ],
)
def test_the_check_finds_a_graph_that_breaks_a_promise(
    model: onnx.ModelProto, layout: Layout, tiny_base: BaseModel, defect: str, message: str
) -> None:
    biases = tiny_base.biases
    assert find_problems(model, layout, "table", biases) == []
    assert any(message in each for each in find_problems(broken(model, biases, defect), layout, "table", biases))
