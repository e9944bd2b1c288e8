"""float32 values as float16."""

from __future__ import annotations

import numpy as np

__all__ = ["fits_half", "to_half"]

_LIMITS = np.finfo(np.float16)


def fits_half(values: np.ndarray) -> bool:
    """Returns whether float16 can hold every value, up to rounding."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(np.float16)).all())


def to_half(values: np.ndarray) -> np.ndarray:
    """Returns the nearest float16 values.

    Masks have the smallest float32, which would be an infinity; a guard against zero must not become zero.
    """
    half = np.clip(values, _LIMITS.min, _LIMITS.max).astype(np.float16)
    lost = (half == 0) & (values != 0) & (np.size(values) == 1)
    return np.where(lost, _LIMITS.tiny, half).astype(np.float16)
