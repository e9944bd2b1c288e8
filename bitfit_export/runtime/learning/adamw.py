"""AdamW over one vector, as `torch.optim.AdamW` computes it (Loshchilov and Hutter, 2019)."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["AdamW", "clipped"]

Float32Array: TypeAlias = NDArray[np.float32]
_BETA1, _BETA2 = 0.9, 0.999
#: What torch adds to a norm before it divides by it.
_CLIP_EPSILON = 1e-6


class AdamW:
    """The optimiser's state: two float32 vectors of the size of what it changes.

    Attributes:
        steps: the number of steps so far.
        mean, square: running means of the gradient and of its square.
    """

    def __init__(self, size: int, *, epsilon: float, weight_decay: float) -> None:
        self._epsilon, self._weight_decay = epsilon, weight_decay
        self.steps = 0
        self.mean: Float32Array = np.zeros(size, np.float32)
        self.square: Float32Array = np.zeros(size, np.float32)

    def step(self, values: Float32Array, gradient: Float32Array, rate: float) -> None:
        """Change the values in place, by one gradient.

        Args:
            rate: the learning rate.
        """
        self.steps += 1
        values *= np.float32(1 - rate * self._weight_decay)
        self.mean += np.float32(1 - _BETA1) * (gradient - self.mean)
        self.square *= np.float32(_BETA2)
        self.square += np.float32(1 - _BETA2) * gradient * gradient
        correction = math.sqrt(1 - _BETA2**self.steps)
        size = np.sqrt(self.square) / np.float32(correction) + np.float32(self._epsilon)
        with np.errstate(over="ignore"):  # values that are no numbers are found by their loss
            values -= np.float32(rate / (1 - _BETA1**self.steps)) * (self.mean / size)


def clipped(gradient: Float32Array, largest: float | None) -> Float32Array:
    """Returns a gradient whose Euclidean norm is at most `largest`, as `torch.nn.utils.clip_grad_norm_` does."""
    if largest is None:
        return gradient
    factor = largest / (float(np.linalg.norm(gradient)) + _CLIP_EPSILON)
    return gradient if factor >= 1 else gradient * np.float32(factor)
