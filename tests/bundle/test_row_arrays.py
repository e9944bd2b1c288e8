"""Biases in int32: rounded to nearest, saturating, by scales that are float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitfit_export.bundle.row_arrays import integer_biases


def test_biases_become_steps_of_their_scales_and_the_ends_saturate() -> None:
    scale = np.float32(3e-5)
    values = np.array([0, 1.5, -2.5, 2**31 - 200, 2**31, -(2**31), -(2**31) - 300], np.float32) * scale
    arrays: dict[str, Any] = {"a": values.copy(), "b": np.ones(1, np.float32)}
    # What a manifest has: the shortest decimals of each float32.
    saturated = integer_biases(arrays, {"a": [float(str(scale))] * len(values)})
    least, most = -(2**31), 2**31 - 1
    exact = np.rint(values.astype(np.float64) / np.float64(scale)).clip(least, most)
    np.testing.assert_array_equal(arrays["a"], exact)
    assert arrays["a"].dtype == np.int32
    assert arrays["a"][4:].tolist() == [most, least, least]
    assert saturated == {"a": 2}
    assert arrays["b"].dtype == np.float32
