"""What a BitFit step computes and keeps: nothing that only a weight's gradient needs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.training import TrainingSettings
from bitfit_export.training.methods import create_method
from bitfit_export.training.trainable import TrainableModel


def prepared(base: BaseModel, method: str) -> TrainableModel:
    model = TrainableModel(copy.deepcopy(base.module), "pooler", 2)
    create_method(TrainingSettings(method=method)).prepare(model)
    return model.train()


def loss_of(model: TrainableModel) -> torch.Tensor:
    ids = torch.arange(1, 25).view(2, 12)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1]))["loss"]


def kept_inputs(model: TrainableModel) -> set[str]:
    """The base's linear layers that keep their input until the backward pass."""
    kept: list[tuple[str, torch.Tensor]] = []
    inside: list[str] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if inside:
            kept.append((inside[-1], tensor))
        return tensor

    for name, part in model.base.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(lambda _, __, name=name: inside.append(name))
            part.register_forward_hook(lambda *_: inside.clear())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model)
    weights = {part.weight.untyped_storage().data_ptr() for part in model.modules() if isinstance(part, nn.Linear)}
    return {name for name, tensor in kept if tensor.untyped_storage().data_ptr() not in weights}


def test_no_linear_layer_keeps_its_input(tiny_base: BaseModel) -> None:
    linear = {name for name, part in tiny_base.module.named_modules() if isinstance(part, nn.Linear)}
    assert kept_inputs(prepared(tiny_base, "bitfit")) == set()
    assert kept_inputs(prepared(tiny_base, "full")) == linear  # so the test would see it


def products(model: TrainableModel) -> int:
    """Matrix products of the backward pass, attention's batched ones apart."""
    loss = loss_of(model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()
    return sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))


def test_one_product_a_linear_layer_in_the_backward_pass_instead_of_two(tiny_base: BaseModel) -> None:
    """The gradient of the layer's input, and in full fine-tuning that of its weight. The head has both in either."""
    linear = sum(isinstance(part, nn.Linear) for part in tiny_base.module.modules())
    head = 2
    assert products(prepared(tiny_base, "bitfit")) == linear + head
    assert products(prepared(tiny_base, "full")) == 2 * linear + head


@pytest.mark.parametrize("method", ["bitfit", "frozen"])
def test_the_optimiser_holds_the_trained_values_alone(tiny_base: BaseModel, method: str) -> None:
    model = prepared(tiny_base, method)
    optimiser = torch.optim.AdamW(create_method(TrainingSettings(method=method)).parameter_groups(model))
    loss_of(model).backward()
    optimiser.step()
    held = sum(state["exp_avg"].numel() for state in optimiser.state.values())
    biases = sum(value.size for value in tiny_base.biases.values()) if method == "bitfit" else 0
    assert held == biases + 2 * 32 + 2


def test_a_frozen_body_keeps_nothing_at_all(tiny_base: BaseModel) -> None:
    model = prepared(tiny_base, "frozen")
    ids = torch.arange(1, 25).view(2, 12)
    assert not model.base(ids).last_hidden_state.requires_grad
