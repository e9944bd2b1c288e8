"""How a product x @ W is best computed in integers: uint8 activations, int8 weights.

    x W  ~  m * (scale_x * round(x / d / m / scale_x) (scale_W * integers) - excess) + x_f W_f

`d` divides channels and is made up for in the weights, which is exact ("SmoothQuant", Xiao et al. 2023): a large
channel would take most of the 256 steps. Dividing more makes activations finer and weights coarser. Where x comes from
a LayerNormalization, this moves its weight into the matrix as well ("Outlier Suppression", Wei et al. 2022).

`m` is the size of each token. What attention and activation functions make is large in a few tokens, and so small in
all others that they would have a few steps each. To divide by it costs a reduction and a product, so it is done where
it at least halves the squared error.

`f` are a few channels that stay in float32 ("LLM.int8()", Dettmers et al. 2022): those of the largest activations.
Undivided they would cost the other channels steps, divided they cost the other weights. These choices are made for each
product by the error that it has on the examples.

Weights are rounded such that errors of a column cancel out on the calibration texts (see `rounding.py`). What remains
of the error on average, the excess, is known when the model is compiled, and is subtracted ("bias correction", Nagel et
al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bitfit_export.compiler.calibration.activation_ranges import ActivationRange, full_range, least_error_range
from bitfit_export.compiler.calibration.activation_stats import ActivationStats
from bitfit_export.compiler.calibration.rounding import even_channels, quantize_columns

__all__ = ["IntegerProduct", "TokenSize", "plan_product", "plan_range"]

#: Powers of a channel's size by which it is divided, beside no division at all.
_POWERS = (0.0, 0.25, 0.5, 0.7)
#: Examples by which the choices are made.
_CHOSEN_BY = 256
#: Compensated rounding leaves about this share of the squared error that rounding to nearest makes.
_COMPENSATED = 0.5
#: What part of the squared error may be left for channels to be divided at all.
_WORTH_A_DIVISION = 0.8
#: What part of the squared error may be left for tokens to be divided by their sizes.
_WORTH_A_REDUCTION = 0.5
#: What part of the squared error may be left for channels to stay in float32.
_WORTH_FLOATS = 0.65
#: Channels in float32: more than four take hardly more off the error, and of few channels one in 32 is enough.
_MOST_FLOATS, _CHANNELS_PER_FLOAT = 4, 32
_NO_CHANNELS = np.zeros(0, np.int64)
_SMALLEST = 1e-6


@dataclass(frozen=True)
class TokenSize:
    """The size of a token: its largest activation, or `least` where that is larger.

    Attributes:
        signed: the largest magnitude; else the largest value, where negative ones are never as large.
    """

    least: float
    signed: bool

    def of(self, x: np.ndarray) -> np.ndarray:
        """[tokens, 1] of x [tokens, k]."""
        largest = (np.abs(x) if self.signed else x).max(axis=-1, keepdims=True)
        sizes: np.ndarray = np.maximum(largest, np.float32(self.least))
        return sizes


@dataclass(frozen=True, eq=False)
class IntegerProduct:
    """A product x @ W in integers.

    Attributes:
        divisors: float32 [k], of the channels of x; None for no division.
        token_size: what each token is divided by, after its channels were; None for no division.
        integers: int8 [k, n].
        scale: float32 [n].
        excess: float32 [n], what rounding adds on average to the product of a token of size 1, or of any where tokens
            are not divided; None where the activations are not known.
        error: the size of the error by that of the product, token by token, as root mean square over the examples; 0
            where these are not known.
        float_channels: int64 [f], the channels of x that are multiplied in float32. Their integers are 0.
    """

    divisors: np.ndarray | None
    token_size: TokenSize | None
    integers: np.ndarray
    scale: np.ndarray
    excess: np.ndarray | None = None
    error: float = 0.0
    float_channels: np.ndarray = field(default_factory=_NO_CHANNELS.copy)

    @property
    def factors(self) -> np.ndarray | None:
        """float32 [k], what channels are multiplied with before they are rounded; None where that changes nothing."""
        if self.divisors is None and not self.float_channels.size:
            return None
        factors = np.ones(len(self.integers), np.float32)
        if self.divisors is not None:
            factors /= self.divisors
        factors[self.float_channels] = 0
        return factors


def plan_product(weight: np.ndarray, read: ActivationStats | None, *, static: bool) -> IntegerProduct:
    """Choose divisors and integers for a weight [k, n].

    Args:
        read: what the product reads, where that is known.
        static: one range of activations serves all runs. Otherwise each run finds the range of its batch, unless tokens
            are divided by their sizes.
    """
    if read is None:
        return IntegerProduct(None, None, *quantize_columns(weight, paired=True))
    plain = _choose(_Trial(weight, read, _NO_CHANNELS, _CHOSEN_BY, static=static))
    split = _choose(_Trial(weight, read, _largest_channels(read), _CHOSEN_BY, static=static))
    # Where tokens are divided for the sake of the split alone, it must be worth both.
    worth = _WORTH_FLOATS * (_WORTH_A_REDUCTION if split.size and not plain.size else 1)
    divisors, size, floats, _ = split if split.error < worth * plain.error else plain
    trial = _Trial(weight, read, floats, len(read.examples), static=static)
    gram = trial.gram / np.outer(divisors, divisors)
    integers, scale = quantize_columns(trial.weight * divisors[:, np.newaxis], paired=True, gram=gram)
    difference = trial.activations(divisors, size) @ (integers * scale) - trial.exact
    sizes = trial.sizes(divisors, size)
    excess = np.average(difference / sizes, axis=0, weights=trial.counts * np.square(sizes[:, 0])).astype(np.float32)
    error = float(np.sqrt((np.square(difference - excess * sizes).mean(axis=1) * trial.counts).mean()))
    undivided = bool((divisors == 1).all())
    return IntegerProduct(None if undivided else divisors, size, integers, scale, excess, error, floats)


def plan_range(read: ActivationStats, weight: np.ndarray, product: IntegerProduct) -> ActivationRange:
    """The range of uint8 that has the least squared error of the product; the few values beyond it saturate.

    Args:
        read: what the product reads, before it is divided.
        weight: [k, n], which says how much the error of each channel matters.
    """
    divisors = np.ones(len(weight), np.float32) if product.divisors is None else product.divisors
    trial = _Trial(weight, read, product.float_channels, len(read.examples), static=True)
    return trial.range(divisors, product.token_size)


class _Trial:
    """A product with some of the examples, to see what dividing and rounding them does to it.

    What it has of channels that stay in float32 is 0.

    Attributes:
        weight: [k, n].
        exact: [tokens, n], the product.
        counts: [tokens], by which squared errors become relative to the product of their token, all channels included.
        lowest, highest, gram: of all that the product reads.
    """

    def __init__(
        self, weight: np.ndarray, read: ActivationStats, floats: np.ndarray, examples: int, *, static: bool
    ) -> None:
        kept = np.ones(len(weight), np.float32)
        kept[floats] = 0
        x = read.examples[:: max(1, len(read.examples) // examples)]
        sizes = np.square(x @ weight).mean(axis=1, dtype=np.float64)
        self.counts = 1 / np.maximum(sizes, 1e-3 * max(float(sizes.mean()), _SMALLEST))
        self.floats, self.weight, self._x = floats, weight * kept[:, np.newaxis], x * kept
        self.exact = self._x @ self.weight
        self.lowest, self.highest = read.lowest * kept, read.highest * kept
        self.gram = read.gram * np.outer(kept, kept)
        self._typical, self._static = read.typical, static

    def sizes(self, divisors: np.ndarray, size: TokenSize | None) -> np.ndarray:
        """[tokens, 1], what tokens are divided by."""
        return np.ones((len(self._x), 1), np.float32) if size is None else size.of(self._x / divisors)

    def activations(self, divisors: np.ndarray, size: TokenSize | None) -> np.ndarray:
        """What the rounded activations [tokens, k] stand for, still divided by `divisors`."""
        x, sizes = self._x / divisors, self.sizes(divisors, size)
        rounded: np.ndarray = self.range(divisors, size).round(x / sizes) * sizes
        return rounded

    def range(self, divisors: np.ndarray, size: TokenSize | None) -> ActivationRange:
        """The range to which activations are rounded."""
        x = self._x / divisors
        lowest, highest = (float((each / divisors).min()) for each in (self.lowest, -self.highest))
        seen, counts = (lowest, -highest), self.counts[:, np.newaxis]
        if size is not None:
            sizes = size.of(x)
            x, counts = x / sizes, counts * np.square(sizes)
            seen = float(x.min()), 1.0
        elif not self._static:
            return full_range(float(x.min()), float(x.max()))
        importance = np.square(self.weight * divisors[:, np.newaxis]).sum(axis=1)
        # A token's size is measured in each run, so it is not what others' texts may exceed.
        typical = self._typical or size is not None
        return least_error_range(x, counts * importance, seen, typical=typical)

    def error(self, divisors: np.ndarray, size: TokenSize | None) -> float:
        """About the squared error of the product by its own size, summed over the tokens."""
        divided = self.weight * divisors[:, np.newaxis]
        integers, scale = quantize_columns(divided, paired=True)
        of_activations = np.square(self.activations(divisors, size) @ divided - self.exact).sum(axis=1)
        of_weights = np.square(self._x / divisors @ (integers * scale) - self.exact).sum(axis=1)
        return float((of_activations + _COMPENSATED * of_weights) @ self.counts)


class _Choice(NamedTuple):
    """How a product is divided, and the squared error that this leaves."""

    divisors: np.ndarray
    size: TokenSize | None
    floats: np.ndarray
    error: float


def _choose(trial: _Trial) -> _Choice:
    """The divisors [k] and the token size of the least squared error."""
    candidates = list(_candidates(np.maximum(np.abs(trial.lowest), np.abs(trial.highest))))
    sizes = [_token_size(trial, divisors) for divisors in candidates]
    by_range = [trial.error(divisors, None) for divisors in candidates]
    by_token = [trial.error(divisors, size) for divisors, size in zip(candidates, sizes, strict=True)]
    best, best_by_token = _least(by_range), _least(by_token)
    if by_token[best_by_token] < _WORTH_A_REDUCTION * by_range[best]:
        return _Choice(candidates[best_by_token], sizes[best_by_token], trial.floats, by_token[best_by_token])
    return _Choice(candidates[best], None, trial.floats, by_range[best])


def _largest_channels(read: ActivationStats) -> np.ndarray:
    """The channels of the largest activations, in order."""
    count = min(_MOST_FLOATS, len(read.largest) // _CHANNELS_PER_FLOAT)
    return np.sort(np.argsort(-read.largest, kind="stable")[:count])


def _least(errors: list[float]) -> int:
    """The candidate of the least error; the first, which divides nothing, where another is hardly better."""
    best = int(np.argmin(errors))
    return best if errors[best] < _WORTH_A_DIVISION * errors[0] else 0


def _token_size(trial: _Trial, divisors: np.ndarray) -> TokenSize:
    lowest, highest = float((trial.lowest / divisors).min()), float((trial.highest / divisors).max())
    # As what GELU and its like make: its negative values never exceed a small number.
    positive = -lowest < 0.1 * highest
    return TokenSize(max(-lowest if positive else 0.0, _SMALLEST), signed=not positive)


def _candidates(largest: np.ndarray) -> Iterator[np.ndarray]:
    """Divisors of channels: none; the largest alone; and all of them by powers of their sizes."""
    ones = np.ones(len(largest), np.float32)
    yield ones
    even = even_channels(largest)
    even = ones if even is None else even
    sizes = np.maximum(largest / even, 1e-3 * max(float(largest.max()), _SMALLEST))
    for power in _POWERS:
        powers = sizes**power
        yield (even * powers / np.exp(np.log(powers).mean())).astype(np.float32)
