"""float32 as float16: what fits, and what becomes of what does not."""

from __future__ import annotations

import numpy as np
import pytest

from bitfit_export.compiler.graph.half import fits_half, to_half


@pytest.mark.parametrize(("largest", "fits"), [(65504, True), (65519, True), (65520, False), (np.inf, False)])
def test_a_value_fits_up_to_the_largest_float16(largest: float, fits: bool) -> None:
    assert fits_half(np.array([0, -largest], np.float32)) is fits


def test_nan_does_not_fit() -> None:
    assert not fits_half(np.array([np.nan], np.float32))


def test_the_lowest_float32_of_a_mask_stays_finite() -> None:
    assert to_half(np.array([np.finfo(np.float32).min], np.float32)) == np.finfo(np.float16).min


def test_a_guard_against_zero_stays_positive_and_small_weights_may_vanish() -> None:
    assert to_half(np.array(1e-12, np.float32)) > 0
    assert to_half(np.array([1e-12, 1], np.float32)).tolist() == [0, 1]
