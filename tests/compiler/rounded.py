"""Matrices to quantise, and what quantised ones stand for."""

from __future__ import annotations

import numpy as np

from bitfit_export.compiler.calibration.activation_stats import ActivationStats

__all__ = ["K", "N", "random_matrix", "rounded_blocks", "stats_of"]

K, N = 64, 48


def random_matrix(rows: int = K, columns: int = N, seed: int = 0) -> np.ndarray:
    """Columns of very different sizes, as trained matrices have them."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 1, (rows, columns)) * random.lognormal(0, 1, columns)).astype(np.float32)


def rounded_blocks(integers: np.ndarray, scale: np.ndarray, zero: np.ndarray, block: int) -> np.ndarray:
    """What 4-bit integers stand for, as DequantizeLinear has it."""
    integers, scale, zero = (each.astype(np.float64) for each in (integers, scale, zero))
    return (integers - np.repeat(zero, block, axis=0)) * np.repeat(scale, block, axis=0)


def stats_of(x: np.ndarray, *, typical: bool = True) -> ActivationStats:
    """What a product that reads all of x [tokens, k] is known to read."""
    alike = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True))
    return ActivationStats(x.min(axis=0), x.max(axis=0), alike.T @ alike, x, typical)
