"""Products in integers: what is divided, and what is known of the error."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="needs bitfit-export[export]")

from bitfit_export.compiler.calibration.integer_products import plan_product, plan_range
from tests.compiler.rounded import K, random_matrix, stats_of


def activations(tokens: int = 300, seed: int = 1) -> np.ndarray:
    """Of one size, in every channel and in every token."""
    return np.random.default_rng(seed).uniform(-1, 1, (tokens, K)).astype(np.float32)


def by_plan(weight: np.ndarray, x: np.ndarray, *, static: bool) -> tuple[np.ndarray, float]:
    """The product by the definition of a plan, in float64, and the error that the plan claims."""
    read = stats_of(x)
    plan = plan_product(weight, read, static=static)
    divided = x.astype(np.float64) * (1 if plan.factors is None else plan.factors)
    sizes = np.ones((len(x), 1)) if plan.token_size is None else plan.token_size.of(divided)
    rounded = plan_range(read, weight, plan).round(divided / sizes) * sizes
    of_integers = rounded @ (plan.integers * plan.scale.astype(np.float64)) - plan.excess * sizes
    floats = plan.float_channels
    return of_integers + x[:, floats].astype(np.float64) @ weight[floats], plan.error


@pytest.mark.parametrize("static", [True, False])
def test_nothing_is_divided_and_nothing_stays_float_where_nothing_is_large(static: bool) -> None:
    plan = plan_product(random_matrix(), stats_of(activations()), static=static)
    assert plan.divisors is plan.token_size is plan.factors is None
    assert not plan.float_channels.size


@pytest.mark.parametrize("static", [True, False])
def test_channels_that_are_large_in_all_tokens_stay_float_and_the_others_need_no_division(static: bool) -> None:
    x = activations()
    x[:, [5, 40]] *= 30
    plan = plan_product(random_matrix(), stats_of(x), static=static)
    assert plan.float_channels.tolist() == [5, 40]
    assert not plan.integers[[5, 40]].any()
    assert plan.divisors is None
    np.testing.assert_array_equal(plan.factors, np.where(np.isin(np.arange(K), [5, 40]), 0, 1))


@pytest.mark.parametrize("static", [True, False])
def test_more_large_channels_than_may_stay_float_are_divided(static: bool) -> None:
    x = activations()
    x[:, :8] *= 30
    plan = plan_product(random_matrix(), stats_of(x), static=static)
    assert plan.divisors is not None
    assert plan.divisors[:8].min() > 2 * plan.divisors[8:].max()


@pytest.mark.parametrize(("channels", "floats"), [(31, 0), (32, 1), (127, 3), (128, 4), (300, 4)])
def test_one_channel_in_32_may_stay_float_and_no_more_than_four(channels: int, floats: int) -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (300, channels)).astype(np.float32)
    x[:, :floats] *= 30
    plan = plan_product(random_matrix(channels), stats_of(x), static=False)
    assert plan.float_channels.tolist() == list(range(floats))


def test_large_channels_that_stay_float_leave_the_smaller_error() -> None:
    """The same large values cost more where they are spread over more channels than may stay float."""
    x = activations()
    few, many = x.copy(), x.copy()
    few[:, :2] *= 30
    many[:, :8] *= 30
    assert plan_product(random_matrix(), stats_of(few), static=False).error < 0.004
    assert plan_product(random_matrix(), stats_of(many), static=False).error > 0.006


@pytest.mark.parametrize("static", [True, False])
def test_tokens_are_divided_where_a_few_are_large(static: bool) -> None:
    x = activations()
    x[::20] *= 50
    plan = plan_product(random_matrix(), stats_of(x), static=static)
    assert plan.token_size is not None
    assert plan.token_size.signed


@pytest.mark.parametrize("kind", ["plain", "channel", "channels", "tokens"])
def test_the_error_is_that_of_the_product(kind: str) -> None:
    x, weight = activations(), random_matrix()
    if kind == "channel":
        x[:, 5] *= 30
    if kind == "channels":
        x[:, :8] *= 30
    if kind == "tokens":
        x[::20] *= 50
    found, claimed = by_plan(weight, x, static=True)
    exact = x.astype(np.float64) @ weight
    relative = np.square(found - exact).mean(axis=1) / np.square(exact).mean(axis=1)
    assert claimed == pytest.approx(np.sqrt(relative.mean()), rel=0.15)
    assert claimed < 0.02


def test_what_rounding_adds_on_average_is_subtracted() -> None:
    weight, x = random_matrix(), activations() + np.float32(2)
    found, _ = by_plan(weight, x, static=True)
    difference = found - x.astype(np.float64) @ weight
    assert (np.abs(difference.mean(axis=0)) < 0.2 * difference.std(axis=0)).all()


def test_a_product_of_which_nothing_is_known_is_rounded_to_nearest() -> None:
    plan = plan_product(random_matrix(), None, static=False)
    assert plan.divisors is plan.token_size is plan.excess is None
    assert plan.error == 0
