"""Part of pass 3, rounding: float weights to integers, with the least harm to what they are multiplied with.

int8: one scale for each column, symmetric, so no zero point. On x86 a product of uint8 activations and int8 weights is
the fast one; with uint8 weights, which a zero point would need, ONNX Runtime takes twice the time.

int4: a scale and a zero point for each block of a column.

Both are rounded to nearest, or, where the second moments of the activations are known, so that a column's errors cancel
out in the product ("GPTQ", Frantar et al. 2023).
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

__all__ = ["even_channels", "quantize_blocks", "quantize_columns"]

_INT8_MAX = 127
_UINT4_MAX = 15
#: x86 processors without VNNI add the products of two neighbouring rows in 16 bits, saturating: 255 * 128 still fits.
_PAIR_MAX = 128
#: A block of 4-bit integers is most exact when its largest weights are cut a little.
_RANGE_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
#: Rows whose errors are handed on to all others together.
_COLUMN_BLOCK = 64
#: Of the mean of the gram matrix's diagonal, added to it.
_DAMPING = 0.01
#: The share of the channels whose sizes are taken as usual, and by how much the largest must exceed them to matter.
_USUAL_SHARE = 0.99
_OUTLIER = 1.5


def even_channels(largest: np.ndarray) -> np.ndarray | None:
    """What to divide channels by so that none is much larger than most; None where none is.

    Args:
        largest: [k], the largest magnitude in each channel.

    Returns:
        float32 [k], 1 for most.
    """
    usual = np.quantile(largest, _USUAL_SHARE)
    if usual <= 0 or largest.max() <= _OUTLIER * usual:
        return None
    divisors: np.ndarray = np.maximum(largest / usual, 1).astype(np.float32)
    return divisors


def quantize_columns(
    weight: np.ndarray, *, paired: bool = False, gram: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """int8 [k, n] and the scale float32 [n] of each column: weight ~ int8 * scale, no zero point.

    Args:
        paired: rows 2i and 2i + 1 of a column do not add up to more than 128 in size where they have one sign. Then
            ONNX Runtime computes the same product on every processor: on x86 without VNNI it would saturate.
        gram: [k, k], the sum of x x^T over the activations x that are multiplied with the weight. With it the error
            of the product is small, without it that of the weight.
    """
    step = np.abs(weight).max(axis=0) / _INT8_MAX
    if paired:
        step = np.maximum(step, _largest_pairs(weight) / _PAIR_MAX)
    scale = np.where(step > 0, step, 1).astype(np.float32)
    if gram is not None:
        return _compensated_columns(weight, scale, gram, paired=paired), scale
    return np.rint(weight / scale).clip(-_INT8_MAX, _INT8_MAX).astype(np.int8), scale


def _compensated_columns(weight: np.ndarray, scale: np.ndarray, gram: np.ndarray, *, paired: bool) -> np.ndarray:
    """int8 [k, n], rounded row by row; what a row's rounding did to the product, the rows after it make up for.

    As `_compensated`, but rows with large activations come first: then there are many left to make up for them.
    """
    order = np.argsort(-np.diag(gram), kind="stable")
    upper = _inverse_factor(gram[order][:, order])
    left = (weight / scale).astype(np.float64)[order]
    # A row more, for the partner that the last of an odd number of rows lacks.
    integers = np.zeros((len(weight) + 1, weight.shape[1]), np.float32)
    for start in range(0, len(left), _COLUMN_BLOCK):
        end = min(start + _COLUMN_BLOCK, len(left))
        errors = np.empty((end - start, weight.shape[1]))
        for row in range(start, end):
            partner = integers[order[row] ^ 1] if paired else 0
            least, most = np.minimum(-_PAIR_MAX - partner, 0), np.maximum(_PAIR_MAX - partner, 0)
            chosen = np.rint(left[row]).clip(np.maximum(least, -_INT8_MAX), np.minimum(most, _INT8_MAX))
            integers[order[row]] = chosen
            error = (left[row] - chosen) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], error)
            errors[row - start] = error
        left[end:] -= upper[start:end, end:].T @ errors
    return integers[:-1].astype(np.int8)


def _largest_pairs(weight: np.ndarray) -> np.ndarray:
    """[n], the largest sum of two neighbouring rows' weights of one sign, in magnitude."""
    padded = np.pad(weight, ((0, len(weight) % 2), (0, 0)))
    sums = [part[0::2] + part[1::2] for part in (padded.clip(min=0), -padded.clip(max=0))]
    largest: np.ndarray = np.maximum(*sums).max(axis=0)
    return largest


def quantize_blocks(
    weight: np.ndarray, block: int, gram: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """4-bit integers, a scale and a zero point for each `block` rows of a column.

    Args:
        weight: float32 [k, n].
        gram: [k, k], the sum of x x^T over the activations x that are multiplied with the weight. With it the error
            of the product is small, without it that of the weight.

    Returns:
        uint4 [k, n], float32 [k / block, n] and uint4 [k / block, n]: weight ~ (integer - zero point) * scale.
    """
    integers, scale, zero = _nearest(weight, block) if gram is None else _compensated(weight, block, gram)
    return integers.astype(ml_dtypes.uint4), scale, zero.astype(ml_dtypes.uint4)


def _nearest(weight: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `quantize_blocks`, in float32, with the least squared error of the weight."""
    blocks = weight.reshape(-1, block, weight.shape[1])
    integers, scale, zero = _round_blocks(blocks, 1.0)
    least = _squared_error(blocks, integers, scale, zero)
    for share in _RANGE_SHARES:
        others = _round_blocks(blocks, share)
        error = _squared_error(blocks, *others)
        better = error < least
        least = np.where(better, error, least)
        integers = np.where(better[:, np.newaxis], others[0], integers)
        scale, zero = (np.where(better, new, old) for new, old in zip(others[1:], (scale, zero), strict=True))
    return integers.reshape(weight.shape), scale, zero


def _compensated(weight: np.ndarray, block: int, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_nearest`, row by row; what a row's rounding did to the product, the rows after it make up for.

    With the upper Cholesky factor U of the inverse of the gram matrix, row i's error e leaves the least when row j > i
    moves by -e U_ij / U_ii (equation 3 of the paper).
    """
    rows, columns = weight.shape
    upper = _inverse_factor(gram)
    left = weight.astype(np.float64)
    integers = np.empty((rows, columns), np.float32)
    scales, zeros = (np.empty((rows // block, columns), np.float32) for _ in range(2))
    for start in range(0, rows, block):
        end = start + block
        _, (scale,), (zero,) = _nearest(left[start:end].astype(np.float32), block)
        scales[start // block], zeros[start // block] = scale, zero
        errors = np.empty((block, columns))
        for row in range(start, end):
            integers[row] = (np.rint(left[row] / scale) + zero).clip(0, _UINT4_MAX)
            error = (left[row] - (integers[row] - zero) * scale) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], error)
            errors[row - start] = error
        left[end:] -= upper[start:end, end:].T @ errors
    return integers, scales, zeros


def _inverse_factor(gram: np.ndarray) -> np.ndarray:
    """Upper triangular U with U^T U the inverse of the gram matrix, which is first made safely invertible."""
    damped = gram.astype(np.float64) + np.eye(len(gram)) * max(_DAMPING * float(np.diag(gram).mean()), 1e-12)
    upper: np.ndarray = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


def _round_blocks(blocks: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks [m, block, n] in 16 steps over a share of each block's range; what lies outside goes to the ends.

    Returns:
        float32 integers [m, block, n], scale [m, n] and zero point [m, n]. 0 is always exact.
    """
    low, high = share * np.minimum(blocks.min(axis=1), 0), share * np.maximum(blocks.max(axis=1), 0)
    scale = np.where(high > low, (high - low) / _UINT4_MAX, 1).astype(np.float32)
    zero = np.rint(-low / scale).astype(np.float32)
    integers = (np.rint(blocks / scale[:, np.newaxis]) + zero[:, np.newaxis]).clip(0, _UINT4_MAX)
    return integers, scale, zero


def _squared_error(blocks: np.ndarray, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """[m, n], of each block."""
    rounded = (integers - zero[:, np.newaxis]) * scale[:, np.newaxis]
    error: np.ndarray = np.square(rounded - blocks).sum(axis=1)
    return error
