"""`--engine onnxruntime`: the steps are PyTorch's, and a training with dropout repeats itself exactly."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import CompileError, UsageError
from bitfit_export.training import TrainingSettings, train_task
from bitfit_export.training.data import TaskData
from bitfit_export.training.engines import use_onnxruntime
from bitfit_export.training.methods import create_method
from bitfit_export.training.trainable import IGNORED, TrainableModel
from tests.traces import traced
from tests.training.test_trainer import StopAfter, delta_of, make_data, same

STEPS = TrainingSettings(pooling="mean", learning_rate=5e-3, epochs=4, max_length=16)
TRACE = "bitfit_export.training.engines.trace_base_model"
#: Of the largest gradient of a tensor, and of a loss: float32 along another path.
TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _shared_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACE, lambda base, dropout=False: traced(base, dropout=dropout))


@pytest.fixture
def calm_base(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """The tiny model without any dropout."""
    monkeypatch.setattr(TRACE, lambda base, dropout=False: traced(tiny_base))
    module = copy.deepcopy(tiny_base.module)
    module.config.hidden_dropout_prob = 0.0
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    return dataclasses.replace(tiny_base, module=module)


def losses_of(
    base: BaseModel, data: TaskData, settings: TrainingSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """The loss of each step of a training."""
    found: list[float] = []
    step = transformers.Trainer.training_step

    def recorded(self: Any, *args: Any, **others: Any) -> torch.Tensor:
        loss = step(self, *args, **others)
        found.append(float(loss))
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(transformers.Trainer, "training_step", recorded)
        train_task(base, data, settings, folder)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("bias_terms", [(), ("b_q", "intermediate")])
def test_steps_without_dropout_are_pytorchs(
    calm_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bias_terms: tuple[str, ...]
) -> None:
    data, settings = make_data(), dataclasses.replace(STEPS, bias_terms=bias_terms)
    expected = losses_of(calm_base, data, settings, tmp_path / "torch", monkeypatch)
    engine = dataclasses.replace(settings, engine="onnxruntime")
    found = losses_of(calm_base, data, engine, tmp_path / "onnxruntime", monkeypatch)
    assert len(expected) == 24
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=LOSS_TOLERANCE)


#: The head's problem type, pooling, activation and outputs, and labels for two texts of eight tokens.
HEADS: dict[str, tuple[str, str | None, int, Any]] = {
    "single_label": ("mean", "tanh", 3, [2, 0]),
    "multi_label": ("pooler", None, 3, [[1, 0, 1], [0, 0, 1]]),
    "regression": ("cls", None, 1, [0.3, -1.5]),
    "token": ("tokens", None, 4, [[IGNORED, 3, 1, 0, 0, 2, 1, IGNORED], [IGNORED, 2, 2, IGNORED, *[IGNORED] * 4]]),
    "span": ("tokens", None, 2, [[1, 4], [2, 2]]),
}


@pytest.mark.parametrize("problem_type", HEADS)
def test_each_head_has_pytorchs_loss_and_gradients(calm_base: BaseModel, problem_type: str) -> None:
    pooling, activation, outputs, labels = HEADS[problem_type]
    torch.manual_seed(0)
    model = TrainableModel(calm_base.module, pooling, outputs, problem_type=problem_type, activation=activation)
    create_method(STEPS).prepare(model)
    mask = torch.tensor([[1] * 8, [1] * 4 + [0] * 4])
    inputs = {"input_ids": torch.arange(1000, 1016).view(2, 8) * mask, "attention_mask": mask}
    inputs["token_type_ids"] = torch.zeros_like(mask)
    losses, gradients = [], []
    for prepare in (lambda: None, lambda: use_onnxruntime(model, calm_base)):
        prepare()
        loss = model.train()(**inputs, labels=torch.tensor(labels))["loss"]
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
        model.zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    largest = max(float(value.abs().max()) for value in gradients[0].values())
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=0, atol=TOLERANCE * largest, msg=name)


@pytest.mark.slow
def test_a_killed_training_with_dropout_goes_on_to_the_same_delta(tiny_base: BaseModel, tmp_path: Path) -> None:
    data, settings = make_data(), dataclasses.replace(STEPS, epochs=2, engine="onnxruntime")
    whole = delta_of(tiny_base, data, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_task(tiny_base, data, settings, tmp_path / "killed", callbacks=[StopAfter(8)])
    assert same(whole, delta_of(tiny_base, data, settings, tmp_path / "killed"))
    assert not same(whole, delta_of(tiny_base, data, dataclasses.replace(settings, seed=1), tmp_path / "other"))
    assert set(whole.biases) == set(tiny_base.biases) - {"pooler.dense.bias"}
    assert all(np.abs(value).max() > 0 for value in whole.biases.values())


@pytest.mark.slow
def test_a_head_on_a_frozen_body_learns_what_it_learns_in_pytorch(tiny_base: BaseModel, tmp_path: Path) -> None:
    data, settings = make_data(), dataclasses.replace(STEPS, epochs=1, method="frozen")
    expected = delta_of(tiny_base, data, settings, tmp_path / "torch")
    found = delta_of(tiny_base, data, dataclasses.replace(settings, engine="onnxruntime"), tmp_path / "onnxruntime")
    for name, value in expected.head.items():
        np.testing.assert_allclose(found.head[name], value, rtol=0, atol=LOSS_TOLERANCE)


@pytest.mark.parametrize("method", ["full", "rand-uniform", "adapters", "diff-pruning"])
def test_a_method_that_trains_weights_is_refused(method: str) -> None:
    with pytest.raises(UsageError, match=f"computes no gradient of a weight, which --method {method} trains") as error:
        TrainingSettings(method=method, engine="onnxruntime")
    assert error.value.hint == "add --engine torch"


def test_bfloat16_is_refused() -> None:
    with pytest.raises(UsageError, match="--bf16 goes with --engine torch"):
        TrainingSettings(bf16=True, engine="onnxruntime")


def test_a_model_without_gradients_in_its_graph_is_refused_with_the_other_engine(
    calm_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitfit_export.compiler.gradients import reverse

    monkeypatch.setattr(reverse, "RULES", {name: rule for name, rule in reverse.RULES.items() if name != "Softmax"})
    model = TrainableModel(calm_base.module, "mean", 2)
    create_method(STEPS).prepare(model)
    with pytest.raises(CompileError, match="the operator Softmax") as error:
        use_onnxruntime(model, calm_base)
    assert error.value.hint == "train it with --engine torch"
