"""Checks of the arrays that a caller runs: all of them before the model sees any.

ONNX Runtime takes a negative id as an index from the end and a mask of any numbers, so what it would not refuse is
refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitfit_export.errors import InputError

__all__ = ["InputLimits"]

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class InputLimits:
    """The limits of a frozen model's inputs.

    Attributes:
        vocab_size: ids are below it.
        max_positions: the longest sequence, in tokens.
        has_token_types: whether the graph has the input `token_type_ids`.
    """

    vocab_size: int
    max_positions: int
    has_token_types: bool

    def check(
        self, input_ids: ArrayLike, attention_mask: ArrayLike, token_type_ids: ArrayLike | None = None
    ) -> dict[str, IntArray]:
        """The graph's text inputs as int64 arrays [batch, sequence].

        Missing `token_type_ids` are zeros. A model that has no such input takes zeros only.

        Raises:
            InputError: anything but integers of one shape [batch, sequence], neither 0; a sequence, an id or a mask
                that is out of range; a row without a token.
        """
        ids = _integers("input_ids", input_ids)
        mask = _integers("attention_mask", attention_mask)
        if not ids.size:
            raise InputError(f"input_ids has shape {list(ids.shape)}, expected at least one row and one token")
        if ids.shape[1] > self.max_positions:
            raise InputError(
                f"the sequence has {ids.shape[1]} tokens, expected at most {self.max_positions}",
                hint="shorten the text, or truncate it when it is tokenised",
            )
        _check_shape("attention_mask", mask, ids)
        _check_range("input_ids", ids, self.vocab_size - 1)
        _check_range("attention_mask", mask, 1)
        if not mask.any(axis=1).all():
            row = int(np.argmin(mask.any(axis=1)))
            raise InputError("has an attention_mask of zeros only, expected at least one token", row=row)
        checked = {"input_ids": ids, "attention_mask": mask}
        types = self._check_token_types(token_type_ids, ids)
        return checked | {"token_type_ids": types} if self.has_token_types else checked

    def _check_token_types(self, token_type_ids: ArrayLike | None, ids: IntArray) -> IntArray:
        if token_type_ids is None:
            return np.zeros_like(ids)
        types = _integers("token_type_ids", token_type_ids)
        _check_shape("token_type_ids", types, ids)
        # The manifest does not say how many types there are; the model refuses one that is too large.
        _check_range("token_type_ids", types, None if self.has_token_types else 0)
        return types


def _integers(name: str, values: ArrayLike) -> IntArray:
    """An int64 array of rank 2, contiguous; the caller's own where it is one."""
    try:
        array: NDArray[Any] = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} has rows of different lengths, expected one shape [batch, sequence]") from error
    if array.ndim != 2:
        raise InputError(f"{name} has shape {list(array.shape)}, expected two dimensions, [batch, sequence]")
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name} has dtype {array.dtype}, expected integers")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} holds {array.max()}, expected integers that int64 can hold")
    return np.ascontiguousarray(array, np.int64)


def _check_shape(name: str, array: IntArray, ids: IntArray) -> None:
    if array.shape != ids.shape:
        raise InputError(f"{name} has shape {list(array.shape)}, expected that of input_ids, {list(ids.shape)}")


def _check_range(name: str, array: IntArray, largest: int | None) -> None:
    smallest_found, largest_found = int(array.min()), int(array.max())
    if smallest_found < 0 or (largest is not None and largest_found > largest):
        wrong = smallest_found if smallest_found < 0 else largest_found
        row = int(np.nonzero((array == wrong).any(axis=1))[0][0])
        expected = "0 or more" if largest is None else f"0 to {largest}" if largest else "0"
        raise InputError(f"has {wrong} in {name}, expected {expected}", row=row)
