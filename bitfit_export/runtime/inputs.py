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

_INT64 = np.dtype(np.int64)
_INT64_MAX = 2**63 - 1


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
        shape = items, length = ids.shape
        if not items or not length:
            raise InputError(f"input_ids has shape {list(shape)}, expected at least one row and one token")
        if length > self.max_positions:
            raise InputError(
                f"the sequence has {length} tokens, expected at most {self.max_positions}",
                hint="shorten the text, or truncate it when it is tokenised",
            )
        if mask.shape != shape:
            raise _wrong_shape("attention_mask", mask, shape)
        _check_range("input_ids", ids, self.vocab_size - 1)
        if _check_range("attention_mask", mask, 1) == 0:
            _check_tokens(mask)
        checked = {"input_ids": ids, "attention_mask": mask}
        if token_type_ids is not None:
            types = _integers("token_type_ids", token_type_ids)
            if types.shape != shape:
                raise _wrong_shape("token_type_ids", types, shape)
            # The manifest does not say how many types there are; the model refuses one that is too large.
            _check_range("token_type_ids", types, _INT64_MAX if self.has_token_types else 0)
        else:
            types = np.zeros(shape, np.int64)
        if self.has_token_types:
            checked["token_type_ids"] = types
        return checked


def _integers(name: str, values: ArrayLike) -> IntArray:
    """An int64 array of rank 2, contiguous; the caller's own where it is one."""
    if type(values) is np.ndarray and values.dtype is _INT64 and values.ndim == 2 and values.flags.c_contiguous:
        return values
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


def _wrong_shape(name: str, array: IntArray, shape: tuple[int, ...]) -> InputError:
    return InputError(f"{name} has shape {list(array.shape)}, expected that of input_ids, {list(shape)}")


def _check_range(name: str, array: IntArray, largest: int) -> int:
    """Returns the least of the numbers, which are 0 or more and not above `largest`."""
    # A run of the model leaves nothing of this in the processor's caches. These methods go through much less code than
    # min and max, which are reductions of ufuncs.
    smallest_found: int = array.item(array.argmin())
    largest_found: int = array.item(array.argmax())
    if smallest_found < 0 or largest_found > largest:
        wrong = smallest_found if smallest_found < 0 else largest_found
        row = int(np.nonzero((array == wrong).any(axis=1))[0][0])
        expected = "0 or more" if largest == _INT64_MAX else f"0 to {largest}" if largest else "0"
        raise InputError(f"has {wrong} in {name}, expected {expected}", row=row)
    return smallest_found


def _check_tokens(mask: IntArray) -> None:
    """Refuse an item without a token, in a mask of 0 and 1."""
    if 0 not in mask[:, 0].tolist():
        return
    has_token = mask.any(axis=1)
    if not has_token.all():
        row = int(np.argmin(has_token))
        raise InputError("has an attention_mask of zeros only, expected at least one token", row=row)
