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
    divided = x.astype(np.float64) / (1 if plan.divisors is None else plan.divisors)
    sizes = np.ones((len(x), 1)) if plan.token_size is None else plan.token_size.of(divided)
    rounded = plan_range(read, weight, plan.divisors, plan.token_size).round(divided / sizes) * sizes
    return rounded @ (plan.integers * plan.scale.astype(np.float64)) - plan.excess * sizes, plan.error


def test_nothing_is_divided_where_nothing_is_large() -> None:
    plan = plan_product(random_matrix(), stats_of(activations()), static=True)
    assert plan.divisors is None
    assert plan.token_size is None


@pytest.mark.parametrize("static", [True, False])
def test_a_channel_that_is_large_in_all_tokens_is_divided(static: bool) -> None:
    x = activations()
    x[:, 5] *= 30
    plan = plan_product(random_matrix(), stats_of(x), static=static)
    assert plan.divisors is not None
    assert plan.divisors.argmax() == 5


@pytest.mark.parametrize("static", [True, False])
def test_tokens_are_divided_where_a_few_are_large(static: bool) -> None:
    x = activations()
    x[::20] *= 50
    plan = plan_product(random_matrix(), stats_of(x), static=static)
    assert plan.token_size is not None
    assert plan.token_size.signed


@pytest.mark.parametrize("kind", ["plain", "channel", "tokens"])
def test_the_error_is_that_of_the_product(kind: str) -> None:
    x, weight = activations(), random_matrix()
    if kind == "channel":
        x[:, 5] *= 30
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
