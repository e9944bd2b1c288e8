"""Floats to integers: how near, how large, and with what effect."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="needs bitfit-export[export]")

from bitfit_export.compiler.calibration.rounding import even_channels, quantize_blocks, quantize_columns
from tests.compiler.rounded import K, N, random_matrix, rounded_blocks


def test_the_largest_weight_of_a_column_is_127_and_every_weight_is_within_half_a_step() -> None:
    weight = random_matrix()
    integers, scale = quantize_columns(weight)
    assert integers.dtype == np.int8
    assert (np.abs(integers.astype(int)).max(axis=0) == 127).all()
    assert (np.abs(weight - integers * scale) <= scale * 0.5001).all()


def test_a_column_of_zeros_stays_zero() -> None:
    weight = random_matrix()
    weight[:, 3] = 0
    with np.errstate(all="raise"):
        integers, scale = quantize_columns(weight)
    assert (scale > 0).all()
    assert (integers[:, 3] == 0).all()


@pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
def test_4_bit_weights_are_at_least_as_near_as_16_even_steps(offset: float) -> None:
    weight = random_matrix() + np.float32(offset)
    integers, scale, zero = quantize_blocks(weight, 16)
    assert scale.shape == zero.shape == (K // 16, N)
    found = rounded_blocks(integers, scale, zero, 16)

    blocks = weight.reshape(-1, 16, N).astype(np.float64)
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    step = (high - low) / 15
    even = (
        np.clip(np.rint(blocks / step[:, None]) + np.rint(-low / step)[:, None], 0, 15) - np.rint(-low / step)[:, None]
    )
    even_error = np.square(even * step[:, None] - blocks).sum(axis=1)
    error = np.square(found - weight).reshape(-1, 16, N).sum(axis=1)
    assert (error <= even_error * 1.0001).all()
    assert error.sum() < even_error.sum()


def test_a_4_bit_zero_is_exact() -> None:
    weight = random_matrix() + np.float32(5)
    weight[7], weight[16:32, 3] = 0, 0
    found = rounded_blocks(*quantize_blocks(weight, 16), 16)
    assert (found[weight == 0] == 0).all()


def largest_pairs(integers: np.ndarray) -> np.ndarray:
    """[n], the largest size of what two neighbouring rows of one sign add up to."""
    pairs = integers.astype(int).reshape(-1, 2, integers.shape[1])
    return np.maximum(pairs.clip(min=0).sum(axis=1), (-pairs).clip(min=0).sum(axis=1)).max(axis=0)


def test_neighbouring_rows_add_up_to_128_at_most_where_they_are_paired() -> None:
    weight = np.concatenate([random_matrix(), np.full((K, 1), 0.3, np.float32)], axis=1)
    assert largest_pairs(quantize_columns(weight)[0]).max() == 254
    integers, scale = quantize_columns(weight, paired=True)
    assert (largest_pairs(integers) <= 128).all()
    assert (np.abs(weight - integers * scale) <= scale * 0.5001).all()
    # No coarser than that needs: one of the two bounds is reached.
    assert ((largest_pairs(integers) >= 127) | (np.abs(integers.astype(int)).max(axis=0) == 127)).all()


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("rows", [K, K - 1])
def test_columns_that_know_what_they_multiply_give_the_better_product(paired: bool, rows: int) -> None:
    random, weight = np.random.default_rng(3), random_matrix(rows)
    # Activations of few dimensions, as they are in a model: that leaves errors a direction to go to.
    x = random.normal(0, 1, (200, 16)) @ random.normal(0, 1, (16, rows))
    plain, scale = quantize_columns(weight, paired=paired)
    integers, same = quantize_columns(weight, paired=paired, gram=x.T @ x)
    np.testing.assert_array_equal(scale, same)
    assert np.abs(integers.astype(int)).max() <= 127
    if paired:
        assert (largest_pairs(np.pad(integers, ((0, rows % 2), (0, 0)))) <= 128).all()
    errors = [np.square(x @ (each * scale) - x @ weight).mean() for each in (plain, integers)]
    assert errors[1] < 0.5 * errors[0]


def test_pairs_of_an_odd_number_of_rows() -> None:
    integers, _ = quantize_columns(np.array([[1.0], [1.0], [1.0]], np.float32), paired=True)
    assert integers.ravel().tolist() == [64, 64, 64]


def test_channels_of_one_size_stay_as_they_are() -> None:
    assert even_channels(np.ones(K)) is None
    assert even_channels(np.zeros(K)) is None


def test_the_few_channels_that_are_much_larger_are_divided_to_the_size_of_the_others() -> None:
    largest = np.ones(1000, np.float32)
    largest[[3, 700]] = 20, 5
    divisors = even_channels(largest)
    assert divisors is not None
    np.testing.assert_allclose(largest / divisors, 1)
    assert (divisors[np.delete(np.arange(1000), [3, 700])] == 1).all()


def test_compensated_blocks_make_the_product_better_though_each_weight_is_no_nearer() -> None:
    random = np.random.default_rng(5)
    weight = random_matrix()
    x = random.normal(0, 1, (200, 16)) @ random.normal(0, 1, (16, K))
    rounded = [rounded_blocks(*quantize_blocks(weight, 16, gram), 16) for gram in (None, x.T @ x)]
    of_weight = [np.square(each - weight).sum() for each in rounded]
    of_product = [np.square(x @ (each - weight)).sum() for each in rounded]
    assert of_product[1] < of_product[0] / 4
    assert of_weight[1] >= of_weight[0]


def test_activations_that_say_nothing_leave_the_nearest_integers() -> None:
    weight = random_matrix()
    for plain, compensated in zip(quantize_blocks(weight, 16), quantize_blocks(weight, 16, np.eye(K)), strict=True):
        np.testing.assert_array_equal(plain, compensated)


def test_a_channel_that_is_never_used_is_no_obstacle() -> None:
    gram = np.eye(K)
    gram[3] = gram[:, 3] = 0
    integers, scale, zero = quantize_blocks(random_matrix(), 16, gram)
    assert np.isfinite(rounded_blocks(integers, scale, zero, 16)).all()
    assert quantize_blocks(random_matrix(), 16, np.zeros((K, K)))[0].shape == (K, N)
