"""How a product x @ W is best computed in integers: uint8 activations, int8 weights.

    x W  ~  (scale_x * round(x / d / scale_x)) (scale_W * integers) - excess

`d` divides channels and is made up for in the weights, which is exact ("SmoothQuant", Xiao et al. 2023): a large
channel would take most of the 256 steps. Dividing more makes activations finer and weights coarser, so the choice is
made for each product by the error that it has on the examples. Where x comes from a LayerNormalization, this moves its
weight into the matrix as well ("Outlier Suppression", Wei et al. 2022).

Weights are rounded such that errors of a column cancel out on the calibration texts (see `rounding.py`). What remains
of the error on average, the excess, is known when the model is compiled, and is subtracted ("bias correction", Nagel et
al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bitfit_export.compiler.calibration.activation_stats import ActivationStats
from bitfit_export.compiler.calibration.rounding import even_channels, quantize_columns

__all__ = ["ActivationRange", "IntegerProduct", "plan_product", "plan_range"]

_LAST_STEP = 255
#: Powers of a channel's size by which it is divided, beside no division at all.
_POWERS = (0.0, 0.5, 0.7, 0.85)
#: Examples by which a division is chosen.
_CHOSEN_BY = 256
#: Compensated rounding leaves about this share of the squared error that rounding to nearest makes.
_COMPENSATED = 0.35
_BINS = 2048
#: Shares of the range that are tried on either side.
_SHARES = np.linspace(1.0, 0.3, 36)


@dataclass(frozen=True)
class ActivationRange:
    """How activations become uint8: round(x / scale) + zero_point, saturating.

    Attributes:
        used: the largest activation that was seen by the largest that can be represented; more than 1 where it
            saturates.
    """

    scale: float
    zero_point: int
    used: float

    def round(self, x: np.ndarray) -> np.ndarray:
        """What the rounded activations stand for."""
        integers = (np.rint(x / np.float32(self.scale)) + self.zero_point).clip(0, _LAST_STEP)
        rounded: np.ndarray = ((integers - self.zero_point) * self.scale).astype(np.float32)
        return rounded


@dataclass(frozen=True, eq=False)
class IntegerProduct:
    """A product x @ W in integers.

    Attributes:
        divisors: float32 [k], of the channels of x; None for no division.
        integers: int8 [k, n].
        scale: float32 [n].
        excess: float32 [n], what rounding adds to the product on average; None where the activations are not known.
        error: the size of the error by that of the product, both as root mean square over the examples; 0 where these
            are not known.
    """

    divisors: np.ndarray | None
    integers: np.ndarray
    scale: np.ndarray
    excess: np.ndarray | None = None
    error: float = 0.0


def plan_product(weight: np.ndarray, read: ActivationStats | None, *, static: bool) -> IntegerProduct:
    """Choose divisors and integers for a weight [k, n].

    Args:
        read: what the product reads, where that is known.
        static: the range of activations is one for all runs; else it is that of the batch.
    """
    if read is None:
        return IntegerProduct(None, *quantize_columns(weight, paired=True))
    divisors = _choose_divisors(weight, read, static=static)
    divided = weight * divisors[:, np.newaxis]
    gram = read.gram / np.outer(divisors, divisors)
    integers, scale = quantize_columns(divided, paired=True, gram=gram)
    x = read.examples / divisors
    rounded = _range_of(x, divided, read, divisors, static=static).round(x) @ (integers * scale)
    exact = read.examples @ weight
    excess = (rounded - exact).mean(axis=0, dtype=np.float64).astype(np.float32)
    error = float(np.sqrt(np.square(rounded - excess - exact).mean() / max(np.square(exact).mean(), 1e-30)))
    plain = bool((divisors == 1).all())
    return IntegerProduct(None if plain else divisors, integers, scale, excess, error)


def plan_range(read: ActivationStats, weight: np.ndarray, divisors: np.ndarray | None) -> ActivationRange:
    """The range of uint8 that has the least squared error of the product; the few values beyond it saturate.

    Args:
        read: what the product reads, before it is divided.
        weight: [k, n], which says how much the error of each channel matters.
    """
    divisors = np.ones(len(weight), np.float32) if divisors is None else divisors
    divided = weight * divisors[:, np.newaxis]
    return _range_of(read.examples / divisors, divided, read, divisors, static=True)


def _choose_divisors(weight: np.ndarray, read: ActivationStats, *, static: bool) -> np.ndarray:
    """float32 [k], those of the candidates that leave the least squared error on some of the examples."""
    examples = read.examples[:: max(1, len(read.examples) // _CHOSEN_BY)]
    exact = examples @ weight
    errors = []
    candidates = list(_candidates(read.largest))
    for divisors in candidates:
        x, divided = examples / divisors, weight * divisors[:, np.newaxis]
        rounded = _range_of(x, divided, read, divisors, static=static).round(x)
        integers, scale = quantize_columns(divided, paired=True)
        of_activations = np.square(rounded @ divided - exact).sum()
        of_weights = np.square(x @ (integers * scale) - exact).sum()
        errors.append(of_activations + _COMPENSATED * of_weights)
    return candidates[int(np.argmin(errors))]


def _candidates(largest: np.ndarray) -> Iterator[np.ndarray]:
    """Divisors of channels: none; the largest alone; and all of them by powers of their sizes."""
    ones = np.ones(len(largest), np.float32)
    yield ones
    even = even_channels(largest)
    even = ones if even is None else even
    sizes = np.maximum(largest / even, 1e-3 * max(float(largest.max()), 1e-30))
    for power in _POWERS:
        powers = sizes**power
        yield (even * powers / np.exp(np.log(powers).mean())).astype(np.float32)


def _range_of(
    x: np.ndarray, weight: np.ndarray, read: ActivationStats, divisors: np.ndarray, *, static: bool
) -> ActivationRange:
    """The range of x [tokens, k], which was divided already, as `weight` was multiplied."""
    seen = float(min((read.lowest / divisors).min(), 0)), float(max((read.highest / divisors).max(), 0))
    if not static:
        return _range_between(min(float(x.min()), 0), max(float(x.max()), 0), seen)
    low, high = _least_error(x, np.square(weight).sum(axis=1), seen)
    return _range_between(low, high, seen)


def _range_between(low: float, high: float, seen: tuple[float, float]) -> ActivationRange:
    scale = float(np.float32((high - low) / _LAST_STEP)) or 1.0
    zero = int(np.clip(np.rint(-low / scale), 0, _LAST_STEP))
    ends = -zero * scale, (_LAST_STEP - zero) * scale
    used = max((each / end for each, end in zip(seen, ends, strict=True) if end), default=0.0)
    return ActivationRange(scale, zero, used)


def _least_error(x: np.ndarray, importance: np.ndarray, seen: tuple[float, float]) -> tuple[float, float]:
    """The ends of the range of least squared error, each channel's error weighed by its importance [k]."""
    if seen[0] == seen[1]:
        return seen
    weights = np.broadcast_to(importance, x.shape)
    counts, edges = np.histogram(x, _BINS, range=seen, weights=weights)
    centres = (edges[:-1] + edges[1:]) / 2
    filled = counts > 0
    counts, centres = counts[filled], centres[filled]

    def error(low: float, high: float) -> float:
        scale = (high - low) / _LAST_STEP
        beyond = np.square(np.maximum(centres - high, 0) + np.maximum(low - centres, 0))
        inside = (centres >= low) & (centres <= high)
        return float((counts * (beyond + inside * scale * scale / 12)).sum())

    ends = [(seen[0] * low, seen[1] * high) for low in _SHARES for high in _SHARES]
    return min(ends, key=lambda each: error(*each))
