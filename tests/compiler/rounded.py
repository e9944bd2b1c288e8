"""Matrices to quantise, and what quantised ones stand for."""

from __future__ import annotations

import numpy as np

__all__ = ["K", "N", "random_matrix", "rounded_blocks"]

K, N = 64, 48


def random_matrix(rows: int = K, columns: int = N, seed: int = 0) -> np.ndarray:
    """Columns of very different sizes, as trained matrices have them."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 1, (rows, columns)) * random.lognormal(0, 1, columns)).astype(np.float32)


def rounded_blocks(integers: np.ndarray, scale: np.ndarray, zero: np.ndarray, block: int) -> np.ndarray:
    """What 4-bit integers stand for, as DequantizeLinear has it."""
    integers, scale, zero = (each.astype(np.float64) for each in (integers, scale, zero))
    return (integers - np.repeat(zero, block, axis=0)) * np.repeat(scale, block, axis=0)
