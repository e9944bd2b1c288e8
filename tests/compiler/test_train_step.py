"""The program `train_step`: its losses and gradients are PyTorch's, for every family, head and loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import BiasRow, read_manifest, read_row
from bitfit_export.bundle.interface import TRAINED_HEAD, training_inputs_of, training_outputs_of
from bitfit_export.bundle.row_arrays import fill_shape, row_arrays
from bitfit_export.bundle.row_format import PROBLEM_CODES
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError, UsageError
from bitfit_export.reference.task_model import merged_model
from bitfit_export.training.trainable import task_loss
from tests.conftest import random_delta
from tests.families import TEXT_FAMILIES, tiny_base
from tests.traces import compile_model

#: Of the largest gradient of a tensor: float32 along another path.
TOLERANCE = 1e-5
QUICK = ("bert",)
#: Items of each task, and tokens of each item; the rest of the longest is padding.
ITEMS = 3
LENGTHS = (9, 4, 7)
TASKS: dict[str, dict[str, Any]] = {
    "single": {"labels": ("a", "b", "c"), "pooling": "cls", "activation": "tanh"},
    "multi": {"labels": ("a", "b"), "problem_type": "multi_label", "pooling": "mean"},
    "score": {"labels": (), "problem_type": "regression", "pooling": "cls"},
    "words": {"labels": ("x", "y", "z"), "problem_type": "token"},
    "answer": {"labels": ("start", "end"), "problem_type": "span"},
}


def deltas_of(base: BaseModel) -> dict[str, TaskDelta]:
    return {name: random_delta(base, name, seed=seed, **each) for seed, (name, each) in enumerate(TASKS.items())}


def texts_of(base: BaseModel, seed: int) -> dict[str, np.ndarray]:
    """Padded ids of `ITEMS` texts."""
    random = np.random.default_rng(seed)
    mask = np.array([[place < length for place in range(max(LENGTHS))] for length in LENGTHS], np.int64)
    ids = np.where(mask, random.integers(1000, 2000, mask.shape), 0)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: inputs[name] for name in base.input_names}


def labels_of(problem_type: str, labels: int, mask: np.ndarray, seed: int) -> np.ndarray:
    """Labels as `task_loss` takes them."""
    random = np.random.default_rng(seed)
    items = len(mask)
    if problem_type == "multi_label":
        return random.integers(0, 2, (items, labels))
    if problem_type == "regression":
        return random.normal(size=items).astype(np.float32)
    if problem_type == "span":
        return random.integers(0, min(LENGTHS), (items, 2))
    if problem_type == "token":
        found = np.where(mask, random.integers(0, labels, mask.shape), -100)
        found[:, 0] = -100  # as a special token's
        return found
    return random.integers(0, labels, items)


def targets_of(problem_type: str, labels: np.ndarray, count: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`targets` and `token_targets` of the same labels."""
    items, length = mask.shape
    targets, token_targets = np.zeros((items, count), np.float32), np.zeros((items, length, count), np.float32)
    if problem_type == "multi_label":
        targets[:, : labels.shape[1]] = labels
    elif problem_type == "regression":
        targets[:, 0] = labels
    elif problem_type == "single_label":
        targets[np.arange(items), labels] = 1
    elif problem_type == "token":
        item, place = np.nonzero(labels >= 0)
        token_targets[item, place, labels[item, place]] = 1
    else:
        for channel in range(2):
            token_targets[np.arange(items), labels[:, channel], channel] = 1
    return targets, token_targets


def batch_of(
    base: BaseModel, delta: TaskDelta, slot: int, most_labels: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a task's items are fed, and their labels."""
    text = texts_of(base, slot)
    mask, problem_type, count = text["attention_mask"], delta.config.problem_type, delta.config.output_size
    labels = labels_of(problem_type, count, mask, slot)
    targets, token_targets = targets_of(problem_type, labels, most_labels, mask)
    # The mean over the items; of a token task, over all tokens that have a label.
    share = 1 / ((labels >= 0).sum() if problem_type == "token" else ITEMS)
    return {
        **text,
        "task_ids": np.full(ITEMS, slot),
        "targets": targets,
        "token_targets": token_targets,
        "problem_types": np.full(ITEMS, PROBLEM_CODES[problem_type]),
        "label_counts": np.full(ITEMS, count),
        "item_weights": np.full(ITEMS, share, np.float32),
    }, labels


def in_pytorch(
    base: BaseModel, delta: TaskDelta, text: Mapping[str, np.ndarray], labels: np.ndarray, compiled: CompiledModel
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and its gradients by every bias term and head tensor, by their names in a layout.

    Where the last bias c of the base is folded, the head reads h where PyTorch's reads h + c, and its bias has W c in
    it: the gradient by W is PyTorch's, less that by the bias times c.
    """
    model = merged_model(base, delta)
    terms = {name: model.base.get_parameter(name) for name in base.biases}
    head = {f"head.{name}": value for name, value in model.named_parameters() if not name.startswith("base.")}
    wanted = terms | head
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    logits = model(**{name: torch.from_numpy(value) for name, value in text.items()})["logits"]
    if delta.config.problem_type == "span":
        kept = torch.from_numpy(text["attention_mask"]).bool()
        logits = logits.masked_fill(~kept[:, :, None], -1e9)
    loss = task_loss(delta.config.problem_type, logits, torch.from_numpy(labels))
    loss.backward()
    gradients = {name: value.grad.numpy() for name, value in wanted.items() if value.grad is not None}
    shift = compiled.packer.fold.apply(delta.merge(base.biases)).output_shift
    if shift is not None and delta.config.pooling != "pooler":
        first = "classifier" if delta.config.activation is None else "dense"
        gradients[f"head.{first}.weight"] -= np.outer(gradients[f"head.{first}.bias"], shift).astype(np.float32)
    return float(loss.detach()), gradients


class TrainStep:
    """The program of a compiled model."""

    def __init__(self, compiled: CompiledModel) -> None:
        assert compiled.train_step is not None
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(compiled.train_step.SerializeToString(), options)
        self.names = [each.name for each in self._session.get_outputs()]
        self.inputs = [each.name for each in self._session.get_inputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        fed = {name: feeds[name] for name in self.inputs}
        return dict(zip(self.names, self._session.run(self.names, fed), strict=True))


def table_of(compiled: CompiledModel, rows: Sequence[BiasRow]) -> dict[str, np.ndarray]:
    layout, labels = compiled.layout, max(row.labels for row in rows)
    heads = {
        entry.name: np.stack([fill_shape(entry.resolve(labels), row.head[number]) for row in rows])
        for number, entry in enumerate(layout.head)
    }
    return {"bias_table": np.stack([row.biases for row in rows]), **heads}


def assert_gradients(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], compiled: CompiledModel
) -> None:
    """The gradients of one row are those that PyTorch has for the same tensors."""
    largest = max(np.abs(value).max() for value in expected.values())
    for entry in compiled.layout.biases:
        part = found["biases"][entry.offset : entry.offset + entry.size]
        wanted = expected.get(entry.name, np.zeros(entry.shape)).reshape(-1)
        np.testing.assert_allclose(part, wanted, rtol=0, atol=TOLERANCE * largest, err_msg=entry.name)
    for name in TRAINED_HEAD:
        if name in expected:
            part = found[name][tuple(slice(size) for size in expected[name].shape)]
            np.testing.assert_allclose(part, expected[name], rtol=0, atol=TOLERANCE * largest, err_msg=name)


def gradients_of(outputs: Mapping[str, np.ndarray], slot: int) -> dict[str, np.ndarray]:
    found = {name: outputs[f"gradient.{name}"][slot] for name in TRAINED_HEAD if f"gradient.{name}" in outputs}
    return {"biases": outputs["gradient.bias_table"][slot], **found}


def joined(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in TEXT_FAMILIES]
)
def test_a_mixed_batch_gives_each_task_its_gradient_in_pytorch(family: str) -> None:
    base = tiny_base(family)
    deltas = deltas_of(base)
    compiled = compile_model(base, deltas, CompileOptions(trainable=True))
    rows = [compiled.packer.pack(delta, task=name) for name, delta in deltas.items()]
    most = max(row.labels for row in rows)
    batches = [batch_of(base, delta, slot, most) for slot, delta in enumerate(deltas.values())]
    outputs = TrainStep(compiled).run(joined([feeds for feeds, _ in batches]) | table_of(compiled, rows))

    for slot, (delta, (feeds, labels)) in enumerate(zip(deltas.values(), batches, strict=True)):
        text = {name: feeds[name] for name in base.input_names}
        loss, expected = in_pytorch(base, delta, text, labels, compiled)
        part = slice(slot * ITEMS, (slot + 1) * ITEMS)
        assert outputs["item_losses"][part] @ feeds["item_weights"] == pytest.approx(loss, rel=1e-5)
        assert_gradients(gradients_of(outputs, slot), expected, compiled)


@pytest.fixture(scope="module")
def bert() -> BaseModel:
    return tiny_base("bert")


@pytest.fixture(scope="module")
def compiled(bert: BaseModel) -> CompiledModel:
    return compile_model(bert, deltas_of(bert), CompileOptions(trainable=True))


def test_a_task_has_the_same_gradient_in_a_mixed_batch_as_alone(bert: BaseModel, compiled: CompiledModel) -> None:
    deltas = deltas_of(bert)
    rows = [compiled.packer.pack(delta, task=name) for name, delta in deltas.items()]
    batches = [batch_of(bert, delta, slot, 3)[0] for slot, delta in enumerate(deltas.values())]
    step = TrainStep(compiled)
    together = step.run(joined(batches) | table_of(compiled, rows))
    for slot, batch in enumerate(batches):
        # One slot for the whole batch, as a session feeds it.
        alone = step.run(batch | table_of(compiled, rows) | {"task_ids": np.array([slot])})
        for name, value in gradients_of(alone, slot).items():
            np.testing.assert_allclose(gradients_of(together, slot)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["ort", "portable"])
def test_packed_program_has_the_gradients_of_its_task(bert: BaseModel, target: str) -> None:
    deltas = deltas_of(bert)
    compiled = compile_model(bert, deltas, CompileOptions(trainable=True, layout="packed", target=target))
    step = TrainStep(compiled)
    for name in ("single", "score"):
        delta = deltas[name]
        row = compiled.packer.pack(delta, task=name)
        feeds, labels = batch_of(bert, delta, 0, row.labels)
        outputs = step.run(feeds | row_arrays(row, compiled.layout, "packed"))
        _, expected = in_pytorch(bert, delta, {each: feeds[each] for each in bert.input_names}, labels, compiled)
        found = {each: outputs[f"gradient.{each}"] for each in TRAINED_HEAD if f"gradient.{each}" in outputs}
        assert_gradients({"biases": outputs["gradient.bias"], **found}, expected, compiled)


def test_an_item_of_weight_zero_counts_for_nothing(bert: BaseModel, compiled: CompiledModel) -> None:
    deltas = deltas_of(bert)
    row = compiled.packer.pack(deltas["single"], task="single")
    feeds, _ = batch_of(bert, deltas["single"], 0, 3)
    table = table_of(compiled, [row])
    feeds["item_weights"] = np.array([0.5, 0.5, 0], np.float32)
    step = TrainStep(compiled)
    whole, two = step.run(feeds | table), step.run({name: value[:2] for name, value in feeds.items()} | table)
    np.testing.assert_allclose(whole["gradient.bias_table"], two["gradient.bias_table"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole["loss"], two["loss"], rtol=1e-6)


def test_targets_carry_class_weights(bert: BaseModel, compiled: CompiledModel) -> None:
    deltas = deltas_of(bert)
    row = compiled.packer.pack(deltas["single"], task="single")
    feeds, labels = batch_of(bert, deltas["single"], 0, 3)
    weights = np.array([0.2, 1.0, 3.0], np.float32)
    feeds["targets"] *= weights
    feeds["item_weights"] = np.full(ITEMS, 1 / weights[labels].sum(), np.float32)
    outputs = TrainStep(compiled).run(feeds | table_of(compiled, [row]))
    logits, classes = torch.from_numpy(outputs["logits"]), torch.from_numpy(labels)
    expected = torch.nn.functional.cross_entropy(logits, classes, weight=torch.from_numpy(weights))
    assert outputs["loss"].item() == pytest.approx(float(expected), rel=1e-5)


def test_program_has_the_declared_interface(compiled: CompiledModel) -> None:
    assert compiled.train_step is not None
    inputs = [value.name for value in compiled.train_step.graph.input]
    outputs = [value.name for value in compiled.train_step.graph.output]
    assert inputs == [*compiled.inputs, *(port.name for port in training_inputs_of())]
    assert set(outputs) == {*compiled.outputs, *(port.name for port in training_outputs_of(compiled.layout, "table"))}


def test_no_weight_is_there_twice_and_none_has_a_gradient(compiled: CompiledModel) -> None:
    assert compiled.train_step is not None

    def weights(model: Any) -> list[bytes]:
        return sorted(each.raw_data for each in model.graph.initializer if len(each.raw_data) > 1024)

    assert weights(compiled.train_step) == weights(compiled.model)


def test_a_tied_bias_has_one_gradient() -> None:
    base = tiny_base("albert")  # its layers share their parameters
    delta = random_delta(base, "single", pooling="cls")
    compiled = compile_model(base, {"single": delta}, CompileOptions(trainable=True, layout="packed", fold=False))
    feeds, labels = batch_of(base, delta, 0, 2)
    row = compiled.packer.pack(delta, task="single")
    outputs = TrainStep(compiled).run(feeds | row_arrays(row, compiled.layout, "packed"))
    _, expected = in_pytorch(base, delta, {each: feeds[each] for each in base.input_names}, labels, compiled)
    found = {each: outputs[f"gradient.{each}"] for each in TRAINED_HEAD if f"gradient.{each}" in outputs}
    assert_gradients({"biases": outputs["gradient.bias"], **found}, expected, compiled)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"layout": "named"}, "--trainable goes with --layout table or packed, not with named"),
        ({"precision": "int8"}, "--trainable goes with --precision fp32, not with int8"),
        ({"layout": "packed", "static_shape": (1, 8)}, "not with --static-shape"),
        ({"prepack": True}, "not with --prepack"),
    ],
)
def test_options_that_exclude_a_program_to_learn_with(others: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompileOptions(trainable=True, **others)


def test_an_operator_without_a_derivative_is_refused_by_name(bert: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitfit_export.compiler.gradients import reverse

    monkeypatch.setattr(reverse, "RULES", {name: rule for name, rule in reverse.RULES.items() if name != "Softmax"})
    with pytest.raises(CompileError, match=r"the operator Softmax .* has no derivative here"):
        compile_model(bert, deltas_of(bert), CompileOptions(trainable=True))


def test_a_bundle_has_the_weights_of_both_programs_once(tiny_bundle: Path, trainable_bundle: Path) -> None:
    name = "model.onnx.data"
    assert (trainable_bundle / name).read_bytes() == (tiny_bundle / name).read_bytes()
    manifest = read_manifest(trainable_bundle)
    assert set(manifest.programs) == {"infer", "train_step"}
    roles = {port.name: port.role for port in manifest.programs["train_step"].outputs}
    assert roles["gradient.bias_table"] == "bias_gradients"
    assert roles["gradient.head.classifier.weight"] == "head_gradients"


def test_a_bundle_has_a_row_of_the_base_models_own_biases(tiny_base: BaseModel, trainable_bundle: Path) -> None:
    layout = read_manifest(trainable_bundle).layout
    row = read_row(trainable_bundle / "base.bias", layout=layout)
    assert (row.problem_type, row.labels) == ("regression", 1)
    unchanged = random_delta(tiny_base, "base", labels=(), problem_type="regression")
    zeros = {name: np.zeros_like(value) for name, value in unchanged.biases.items()}
    packer = compile_model(tiny_base, {"base": unchanged}, CompileOptions()).packer
    expected = packer.pack(dataclasses.replace(unchanged, biases=zeros), task="base")
    np.testing.assert_array_equal(row.biases, expected.biases)
