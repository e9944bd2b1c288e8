"""Each method changes what its paper says and nothing else, as often as one likes to the same result."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import UsageError
from bitfit_export.training import METHODS, TrainingSettings, train_task
from bitfit_export.training.methods import create_method
from bitfit_export.training.methods.adapters import residual_outputs
from bitfit_export.training.methods.diff_pruning import _gates
from bitfit_export.training.trainable import TrainableModel
from bitfit_export.training.trainer import TrainedModel, train_model
from tests.families import TEXT_GRAPHS
from tests.families import tiny_base as make_family
from tests.training.test_trainer import StopAfter, make_data

QUICK = TrainingSettings(pooling="pooler", learning_rate=5e-3, epochs=3, max_length=16)
#: Those that add something to the model or put something over its parameters.
NEW_METHODS = ("rand-uniform", "rand-row-col", "adapters", "diff-pruning")
DATA = make_data()
tiny_family = functools.cache(make_family)


def settings_for(method: str, **changes: Any) -> TrainingSettings:
    # The tiny model has 9,000 values beside its vocabulary, so that a share is a countable number of them.
    small = {"adapter_size": 4} if method == "adapters" else {"sparsity": 0.001} if method == "diff-pruning" else {}
    return dataclasses.replace(QUICK, method=method, **{**small, **changes})


def prepared(base: BaseModel, settings: TrainingSettings) -> tuple[TrainableModel, Any]:
    torch.manual_seed(settings.seed)
    model = TrainableModel(copy.deepcopy(base.module), settings.pooling, 2)
    method = create_method(settings)
    method.prepare(model)
    return model, method


def trained_parts(model: TrainableModel) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.base.named_parameters() if value.requires_grad}


def changed_entries(base: BaseModel, trained: TrainedModel) -> dict[str, np.ndarray]:
    """Where the base's tensors are not what they were, by name."""
    before = base.module.state_dict()
    after = trained.model.base.state_dict()
    return {name: (after[name] != value).numpy() for name, value in before.items()}


def bias_count(base: BaseModel) -> int:
    return sum(value.size for value in base.biases.values())


def gradients(model: TrainableModel) -> None:
    ids = torch.arange(1, 13).view(2, 6)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1]))["loss"].backward()


def test_each_method_of_the_command_is_one_of_its_own() -> None:
    made = {method: type(create_method(TrainingSettings(method=method))).__name__ for method in METHODS}
    assert made == {
        "bitfit": "BitFit",
        "frozen": "Frozen",
        "full": "Full",
        "rand-uniform": "RandUniform",
        "rand-row-col": "RandRowCol",
        "adapters": "Adapters",
        "diff-pruning": "DiffPruning",
    }


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_has_a_gradient_and_nothing_else_has(tiny_base: BaseModel, method: str) -> None:
    model, _ = prepared(tiny_base, settings_for(method))
    gradients(model.train())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("method", ["rand-uniform", "rand-row-col"])
@pytest.mark.parametrize("family", TEXT_GRAPHS)
def test_random_entries_are_as_many_as_the_bias_terms_in_every_family(family: str, method: str) -> None:
    base = tiny_family(family)
    pooling = "pooler" if getattr(base.module, "pooler", None) is not None else "cls"
    model, approach = prepared(base, settings_for(method, pooling=pooling))
    assert sum(value.numel() for value in trained_parts(model).values()) == bias_count(base)
    assert approach.finish(model) == bias_count(base)


@pytest.mark.parametrize("method", ["rand-uniform", "rand-row-col"])
def test_random_entries_are_all_that_changes(tiny_base: BaseModel, tmp_path: Path, method: str) -> None:
    settings = settings_for(method, epochs=1)
    model, _ = prepared(tiny_base, settings)
    chosen = {
        name.replace("parametrizations.", "").replace(".0.indices", ""): indices
        for name, indices in model.base.named_buffers()
        if name.endswith("indices")
    }
    whole = {name for name in trained_parts(model) if not name.endswith(".values")}
    trained = train_model(tiny_base, DATA, settings, tmp_path)
    assert trained.trained == bias_count(tiny_base)
    changed = changed_entries(tiny_base, trained)
    for name, where in changed.items():
        if name in chosen:
            outside = np.ones(where.size, bool)
            outside[chosen[name].numpy()] = False
            assert not where.flatten()[outside].any(), name
        elif name not in whole:
            assert not where.any(), name
    # Not all of them: most of a tiny model is its vocabulary, and a word that the texts do not have has no gradient.
    inside = {name: indices for name, indices in chosen.items() if not name.startswith("embeddings.")}
    moved = [changed[name].flatten()[indices.numpy()] for name, indices in inside.items()]
    assert np.concatenate(moved).mean() > 0.9
    assert set(trained.model.base.state_dict()) == set(tiny_base.module.state_dict())


def test_uniform_entries_are_spread_as_the_parameters_are() -> None:
    """A share of a big tensor, over many seeds, is its share of the model."""
    base = tiny_family("bert")
    counts = []
    for seed in range(40):
        model, _ = prepared(base, settings_for("rand-uniform", seed=seed))
        parts = trained_parts(model)
        words = "embeddings.word_embeddings.parametrizations.weight.0.values"
        counts.append(parts[words].numel() / bias_count(base))
    parameters = dict(base.module.named_parameters())
    share = parameters["embeddings.word_embeddings.weight"].numel() / sum(p.numel() for p in parameters.values())
    assert np.mean(counts) == pytest.approx(share, abs=0.01)
    assert np.std(counts) > 0


def test_rows_and_columns_are_whole_and_layernorms_too(tiny_base: BaseModel) -> None:
    model, _ = prepared(tiny_base, settings_for("rand-row-col"))
    buffers = dict(model.base.named_buffers())
    ways = set()
    for name, parameter in tiny_base.module.named_parameters():
        owner, _, leaf = name.rpartition(".")
        indices = buffers.get(f"{owner}.parametrizations.{leaf}.0.indices")
        if indices is None:
            continue
        marked = np.zeros(parameter.numel(), bool)
        marked[indices.numpy()] = True
        marked = marked.reshape(parameter.shape)
        rows, columns = marked.all(1), marked.all(0)
        by_row, by_column = marked.sum() == rows.sum() * marked.shape[1], marked.sum() == columns.sum() * len(marked)
        assert by_row or by_column, name
        ways.add("rows" if by_row else "columns")
        assert marked.sum() == len(parameter), name
    assert ways == {"rows", "columns"}
    parts = trained_parts(model)
    norms = {name for name in tiny_base.module.state_dict() if name.endswith("LayerNorm.weight")}
    assert norms == {name for name in parts if not name.endswith(".values")}


@pytest.mark.parametrize("family", TEXT_GRAPHS)
def test_a_layer_has_two_adapters_in_every_family(family: str) -> None:
    base = tiny_family(family)
    layers = 1 if family == "albert" else 2  # its layers share their parameters
    outputs = residual_outputs(base.module)
    assert len(outputs) == 2 * layers
    # One of them after attention (hidden to hidden), one after the feed-forward network (which is wider).
    shapes = [sorted(base.module.get_parameter(f"{name}.weight").shape) for name in outputs]
    assert shapes == [[32, 32], [32, 128 if family == "gpt2" else 64]] * layers
    assert set(outputs.values()) == {32}


def test_an_adapter_is_nearly_the_identity_at_first_and_sits_before_the_residual(tiny_base: BaseModel) -> None:
    model, _ = prepared(tiny_base, settings_for("adapters"))
    ids = torch.arange(1, 13).view(2, 6)
    plain = tiny_base.module(ids).last_hidden_state
    assert 0 < (model.base.eval()(ids).last_hidden_state - plain).abs().max() < 0.01
    # By hand: LayerNorm(x + adapter(dense(h))).
    block = model.base.get_submodule("encoder.layer.0.output")
    hidden, residual = torch.randn(2, 6, 64), torch.randn(2, 6, 32)
    dense, adapter = block.dense, block.dense.adapter
    torch.nn.init.normal_(adapter.up.weight)
    straight = hidden @ dense.weight.T + dense.bias
    inner = torch.nn.functional.gelu(straight @ adapter.down.weight.T + adapter.down.bias)
    expected = block.LayerNorm(residual + straight + inner @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(block(hidden, residual), expected)


def test_adapters_train_themselves_and_the_layernorms(tiny_base: BaseModel, tmp_path: Path) -> None:
    trained = train_model(tiny_base, DATA, settings_for("adapters", epochs=1), tmp_path)
    # 4 adapters of 2 * 32 * 4 weights and 4 + 32 biases; 5 LayerNorms of 2 * 32.
    assert trained.trained == 4 * (2 * 32 * 4 + 4 + 32) + 5 * 2 * 32
    changed = {name for name, where in changed_entries(tiny_base, trained).items() if where.any()}
    assert changed == {name for name in tiny_base.module.state_dict() if "LayerNorm" in name}


def test_diff_pruning_changes_the_share_that_it_may(tiny_base: BaseModel, tmp_path: Path) -> None:
    trained = train_model(tiny_base, DATA, settings_for("diff-pruning"), tmp_path)
    total = sum(parameter.numel() for parameter in tiny_base.module.parameters())
    assert trained.trained == round(0.001 * total)
    changed = changed_entries(tiny_base, trained)
    assert set(changed) == set(trained.model.base.state_dict())
    count = sum(where.sum() for where in changed.values())
    assert 0.9 * trained.trained < count <= trained.trained
    assert trained.best_epoch == 3  # entries are chosen after the second of three


def test_diff_pruning_keeps_the_largest_entries_of_the_difference(tiny_base: BaseModel) -> None:
    _, method = prepared(tiny_base, settings_for("diff-pruning"))
    torch.manual_seed(0)
    expected = {}
    for name, part in method._parts.items():
        torch.nn.init.normal_(part.difference)
        torch.nn.init.normal_(part.log_alpha, std=3)
        # In eval mode a gate is at sigmoid(log_alpha), stretched to (-1.5, 1.5) and cut at 0 and 1.
        gate = (torch.sigmoid(part.log_alpha) * 3 - 1.5).clamp(0, 1) * min(1.0, 3 / (1 + np.exp(-5)) - 1.5)
        expected[name] = (gate * part.difference).detach()
    sizes = torch.cat([value.abs().flatten() for value in expected.values()]).sort(descending=True).values
    count = round(0.001 * len(sizes))
    method.begin_epoch(3)
    for name, value in expected.items():
        kept = torch.where(value.abs() >= sizes[count - 1], value, 0.0)
        torch.testing.assert_close(method._parts[name].gated(), kept)
    assert method.penalty() is None


def test_a_gate_is_closed_open_or_between_as_its_distribution_says() -> None:
    """The share of closed gates is P(s <= 1/2), of open ones P(s >= 5/6), where s = sigmoid(log_alpha + logistic)."""
    torch.manual_seed(0)
    place = 0.7
    gates = _gates(torch.full((200_000,), place), draw=True)
    closed, opened = 1 / (1 + np.exp(place)), 1 - 1 / (1 + np.exp(-(np.log(5) - place)))
    assert float((gates == 0).float().mean()) == pytest.approx(closed, abs=0.005)
    assert float((gates == 1).float().mean()) == pytest.approx(opened, abs=0.005)


def test_the_penalty_is_the_expected_number_of_gates_that_are_not_closed(tiny_base: BaseModel) -> None:
    _, method = prepared(tiny_base, settings_for("diff-pruning", l0_penalty=1e-3))
    total = sum(parameter.numel() + 1 for parameter in tiny_base.module.parameters())
    assert float(method.penalty()) == pytest.approx(1e-3 * total / (1 + np.exp(-5)), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "epochs", "steps"),
    [
        ("rand-uniform", 2, (8,)),
        ("rand-row-col", 2, (8,)),
        ("adapters", 2, (8,)),
        # The entries are chosen before the third epoch: killed right after that, and after an epoch with them.
        ("diff-pruning", 4, (14, 20)),
    ],
)
def test_the_same_seed_gives_the_same_model_also_when_killed(
    tiny_base: BaseModel, tmp_path: Path, method: str, epochs: int, steps: tuple[int, ...]
) -> None:
    """An epoch has six steps."""
    settings = settings_for(method, epochs=epochs)
    whole = train_model(tiny_base, DATA, settings, tmp_path / "whole")
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            train_model(tiny_base, DATA, settings, tmp_path / "killed", callbacks=[StopAfter(step)])
    assert same(train_model(tiny_base, DATA, settings, tmp_path / "killed"), whole)
    # Once more, killed after the last step of all.
    assert same(train_model(tiny_base, DATA, settings, tmp_path / "whole"), whole)


@pytest.mark.parametrize("method", ["rand-uniform", "rand-row-col"])
def test_another_seed_chooses_other_entries(tiny_base: BaseModel, method: str) -> None:
    chosen = []
    for seed in (0, 0, 1):
        buffers = dict(prepared(tiny_base, settings_for(method, seed=seed))[0].base.named_buffers())
        chosen.append(buffers["encoder.layer.1.output.dense.parametrizations.weight.0.indices"].tolist())
    assert chosen[0] == chosen[1] != chosen[2]


def same(one: TrainedModel, other: TrainedModel) -> bool:
    state = other.model.state_dict()
    equal = all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())
    return equal and (one.history, one.best_epoch, one.trained) == (other.history, other.best_epoch, other.trained)


@pytest.mark.parametrize("method", ["rand-uniform", "rand-row-col"])
def test_checkpoints_hold_the_random_entries_alone(tiny_base: BaseModel, tmp_path: Path, method: str) -> None:
    train_task(tiny_base, DATA, settings_for(method, epochs=1), tmp_path)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    stored = load_file(checkpoint / "trained.safetensors")
    count = sum(value.size for name, value in stored.items() if name.startswith("base."))
    assert count == bias_count(tiny_base)


@pytest.mark.parametrize("method", NEW_METHODS)
def test_a_method_that_changes_more_than_biases_gives_metrics_but_no_delta(
    tiny_base: BaseModel, tmp_path: Path, method: str
) -> None:
    result = train_task(tiny_base, DATA, settings_for(method, epochs=2, learning_rate=2e-2), tmp_path)
    assert result.delta is None
    assert result.metrics["accuracy"] == result.history[result.best_epoch - 1]["accuracy"]
    assert result.record["learning_rate"] == 2e-2
    assert ("adapter_size" in result.record, "sparsity" in result.record) == (
        method == "adapters",
        method == "diff-pruning",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"patience": 0},
        {"adapter_size": 0},
        {"sparsity": 0.0},
        {"sparsity": 1.5},
        {"l0_penalty": -1.0},
        {"method": "adapters", "bias_terms": ("b_q",)},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingSettings(**changes)
