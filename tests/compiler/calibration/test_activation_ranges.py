"""Ranges of activations in 256 steps."""

from __future__ import annotations

import numpy as np
import pytest

from bitfit_export.compiler.calibration.activation_ranges import full_range, least_error_range


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 2.0), (-3.0, -1.0), (-0.17, 20.0)])
def test_a_full_range_has_both_ends_and_an_exact_zero(low: float, high: float) -> None:
    each = full_range(low, high)
    ends = np.array([low, 0, high], np.float32)
    assert 0 <= each.zero_point <= 255
    assert np.abs(each.round(ends) - ends).max() <= 0.5001 * each.scale
    assert each.round(ends)[1] == 0
    assert each.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)


def test_a_range_of_zeros_has_a_scale() -> None:
    each = full_range(0.0, 0.0)
    assert each.scale > 0
    assert each.round(np.zeros(3)).tolist() == [0, 0, 0]


def test_what_is_beyond_the_range_saturates() -> None:
    each = full_range(-1.0, 1.0)
    np.testing.assert_allclose(each.round(np.array([-9.0, 9.0])), [-1, 1], atol=each.scale)


def test_the_share_that_was_used_is_that_of_the_larger_side() -> None:
    assert full_range(-1.0, 1.0, (-0.5, 0.25)).used == pytest.approx(0.5, abs=0.01)
    assert full_range(-1.0, 1.0, (-0.5, 2.0)).used == pytest.approx(2, abs=0.02)


def test_a_few_large_values_are_cut_where_that_is_the_smaller_error() -> None:
    x = np.random.default_rng(0).normal(0, 1, (4000, 8))
    x[0, 0] = 6
    seen = float(x.min()), float(x.max())
    found = least_error_range(x, np.ones(x.shape), seen, typical=True)
    assert found.used > 1
    errors = [np.square(each.round(x) - x).sum() for each in (found, full_range(*seen))]
    assert errors[0] < errors[1]


def test_important_values_are_not_cut() -> None:
    x = np.random.default_rng(0).normal(0, 1, (4000, 8))
    x[0, 0] = 6
    importance = np.ones(x.shape)
    importance[0, 0] = 1e6
    assert least_error_range(x, importance, (float(x.min()), 6.0), typical=True).round(x)[0, 0] == pytest.approx(
        6, abs=0.05
    )


def test_sample_texts_leave_room_for_others() -> None:
    x = np.random.default_rng(0).normal(0, 1, (400, 8))
    seen = float(x.min()), float(x.max())
    own, sample = (least_error_range(x, np.ones(x.shape), seen, typical=typical) for typical in (True, False))
    assert sample.scale == pytest.approx(1.2 * own.scale, rel=1e-3)
    assert sample.used == pytest.approx(own.used / 1.2, rel=0.02)
