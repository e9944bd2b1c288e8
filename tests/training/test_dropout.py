"""Dropout that keeps a seed: the same in distribution and in gradients as PyTorch's, at less cost."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs bitfit-export[export]")

from torch.nn import functional  # noqa: E402

from bitfit_export.base_model.loading import BaseModel  # noqa: E402
from bitfit_export.training import dropout as module  # noqa: E402
from bitfit_export.training.dropout import SeededDropout, dropout  # noqa: E402
from bitfit_export.training.trainable import TrainableModel  # noqa: E402


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_so_many_entries_are_dropped_and_the_expectation_stays(rate: float) -> None:
    torch.manual_seed(0)
    count = 1_000_000
    dropped = dropout(ones(1000, 1000), rate)
    zeros = int((dropped == 0).sum())
    assert abs(zeros - rate * count) < 5 * (count * rate * (1 - rate)) ** 0.5 + count / 65536
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-3)
    # Neither a row's nor a column's entries go together.
    for axis in (0, 1):
        spread = (dropped == 0).float().mean(axis).std()
        assert spread == pytest.approx((rate * (1 - rate) / 1000) ** 0.5, rel=0.15)


def test_pytorchs_seed_and_state_decide() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = dropout(ones(7, 5), 0.5), dropout(ones(7, 5), 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(ones(7, 5), 0.5), first)
    assert torch.equal(dropout(ones(7, 5), 0.5), second)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 4), (2, 3, 5)])
def test_every_shape_and_a_gradient_where_nothing_was_dropped(shape: tuple[int, ...]) -> None:
    values = (torch.rand(shape) + 1).requires_grad_()
    dropped = dropout(values, 0.4)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, (dropped / values).detach())


def test_nothing_is_kept_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda each: each):
        dropout(ones(4, 4).requires_grad_(), 0.5)
    assert kept == []


def test_a_layers_dropout_in_the_context_and_only_in_training() -> None:
    layer = torch.nn.Dropout(0.5)
    torch.manual_seed(5)
    with SeededDropout():
        found = layer(ones(6, 6))
    torch.manual_seed(5)
    assert torch.equal(found, dropout(ones(6, 6), 0.5))
    layer.eval()
    with SeededDropout():
        assert torch.equal(layer(ones(6, 6)), ones(6, 6))


def attention_inputs() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 3, 6, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]


MASKS: dict[str, Callable[[], torch.Tensor | None]] = {
    "none": lambda: None,
    "bool": lambda: (torch.arange(6) < 4).expand(2, 1, 6, 6),
    "added": lambda: torch.where(torch.arange(6) < 4, 0.0, -1e30).to(torch.float64).expand(2, 1, 6, 6),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_without_luck_is_pytorchs(mask: str, scale: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_drop", lambda values, *_: values)
    inputs = attention_inputs()
    expected = functional.scaled_dot_product_attention(*inputs, attn_mask=MASKS[mask](), scale=scale)
    with SeededDropout():
        found = functional.scaled_dot_product_attention(*inputs, attn_mask=MASKS[mask](), dropout_p=0.1, scale=scale)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    for one, two in zip(
        torch.autograd.grad(found, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_attention_drops_weights_and_its_gradients_know_which() -> None:
    query, key, value = attention_inputs()

    def attend(values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        with SeededDropout():
            return functional.scaled_dot_product_attention(query, key, values, dropout_p=0.4)

    # With the identity as values, attention gives the weights themselves.
    weights = torch.softmax(query @ key.transpose(-1, -2) / 2, -1)
    factors = (attend(torch.eye(6, dtype=torch.float64).expand(2, 3, 6, 6)) / weights).detach()
    assert 0.2 < (factors == 0).double().mean() < 0.6
    expected = (weights * factors) @ value
    found = attend(value)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    inputs = (query, key, value)
    for one, two in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("nothing", [torch.zeros(6, 6, dtype=torch.bool), torch.full((6, 6), -torch.inf)])
def test_a_query_without_any_key_gets_numbers(nothing: torch.Tensor) -> None:
    inputs = attention_inputs()
    with SeededDropout():
        found = functional.scaled_dot_product_attention(*inputs, attn_mask=nothing, dropout_p=0.1)
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.sum(), inputs))


def test_a_mask_that_adds_minus_infinity_hides_a_key() -> None:
    inputs = attention_inputs()
    torch.manual_seed(6)
    with SeededDropout():
        expected = functional.scaled_dot_product_attention(*inputs, attn_mask=torch.arange(6) < 4, dropout_p=0.1)
    torch.manual_seed(6)
    with SeededDropout():
        hidden = torch.where(torch.arange(6) < 4, 0.0, -torch.inf)
        found = functional.scaled_dot_product_attention(*inputs, attn_mask=hidden, dropout_p=0.1)
    torch.testing.assert_close(found, expected)


def test_causal_attention_is_left_to_pytorch() -> None:
    inputs = attention_inputs()

    def attend() -> torch.Tensor:
        torch.manual_seed(4)
        return functional.scaled_dot_product_attention(*inputs, dropout_p=0.3, is_causal=True)

    with SeededDropout():
        found = attend()
    assert torch.equal(found, attend())


def test_types_stay_as_they_are() -> None:
    values = ones(4, 4).bfloat16().requires_grad_()
    dropped = dropout(values, 0.5)
    dropped.sum().backward()
    assert dropped.dtype == values.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("autocast", [False, True])
def test_a_task_model_in_training_draws_every_mask_so(
    tiny_base: BaseModel, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []
    drop = module._drop
    monkeypatch.setattr(
        module, "_drop", lambda values, *others: drawn.append(tuple(values.shape)) or drop(values, *others)
    )
    model = TrainableModel(copy.deepcopy(tiny_base.module), "pooler", 2, autocast=autocast).requires_grad_()
    ids = torch.arange(1, 25).view(2, 12)
    model.eval()(input_ids=ids)
    assert drawn == []
    loss = model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1]))["loss"]
    layers = tiny_base.module.config.num_hidden_layers
    heads = tiny_base.module.config.num_attention_heads
    assert drawn.count((2, heads, 12, 12)) == layers
    assert drawn.count((2, 12, tiny_base.module.config.hidden_size)) == 1 + 2 * layers  # embeddings, and two a layer
    forward = len(drawn)
    loss.backward()
    assert len(drawn) > forward
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
