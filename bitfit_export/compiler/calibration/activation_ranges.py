"""Ranges of activations in 256 steps, or in 65,536 where an accelerator has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ActivationRange", "full_range", "least_error_range"]

_LAST_STEP = 255
_BINS = 2048
#: Shares of the range that was seen, which are tried on either side.
_SHARES = np.linspace(1.0, 0.8, 11)
#: By how much texts are taken to exceed what sample texts have shown.
_BEYOND_SAMPLES = 1.2


@dataclass(frozen=True)
class ActivationRange:
    """How activations become unsigned integers: round(x / scale) + zero_point, saturating.

    Attributes:
        used: the largest activation that was seen by the largest that can be represented; more than 1 where it
            saturates.
        last_step: the largest integer, 255 for uint8.
    """

    scale: float
    zero_point: int
    used: float = 1.0
    last_step: int = _LAST_STEP

    def round(self, x: np.ndarray) -> np.ndarray:
        """What the rounded activations stand for."""
        integers = (np.rint(x / np.float32(self.scale)) + self.zero_point).clip(0, self.last_step)
        rounded: np.ndarray = ((integers - self.zero_point) * self.scale).astype(np.float32)
        return rounded


def full_range(low: float, high: float, seen: tuple[float, float] | None = None) -> ActivationRange:
    """The range from `low` to `high`, and 0, which is always exact.

    Args:
        seen: the least and the greatest activation that was seen, by default the ends of the range.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / _LAST_STEP)) or 1.0
    zero = int(np.clip(np.rint(-low / scale), 0, _LAST_STEP))
    ends = -zero * scale, (_LAST_STEP - zero) * scale
    used = max((each / end for each, end in zip(seen or ends, ends, strict=True) if end), default=0.0)
    return ActivationRange(scale, zero, max(used, 0.0))


def least_error_range(
    x: np.ndarray, importance: np.ndarray, seen: tuple[float, float], *, typical: bool
) -> ActivationRange:
    """The range that rounds some activations with the least squared error.

    Args:
        x: [tokens, k], of the activations that were seen.
        importance: [tokens, k], of the squared error of each.
        seen: the least and the greatest activation that was seen, of which `x` may have a part.
        typical: x shows what will come; else the range is wider.
    """
    low, high = min(seen[0], 0.0), max(seen[1], 0.0)
    if low == high:
        return full_range(low, high)
    counts, edges = np.histogram(x, _BINS, range=(low, high), weights=importance)
    centres = (edges[:-1] + edges[1:])[counts > 0] / 2
    counts = counts[counts > 0]

    def error(low: float, high: float) -> float:
        step = (high - low) / _LAST_STEP
        beyond = np.square(np.maximum(centres - high, 0) + np.maximum(low - centres, 0))
        inside = (centres >= low) & (centres <= high)
        return float((counts * (beyond + inside * step * step / 12)).sum())

    ends = [(low * below, high * above) for below in _SHARES for above in _SHARES]
    least = min(ends, key=lambda each: error(*each))
    more = 1.0 if typical else _BEYOND_SAMPLES
    return full_range(more * least[0], more * least[1], (low, high))
