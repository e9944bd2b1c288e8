"""Dropout on a CPU at a fraction of the cost of PyTorch's: of its time, and of the memory that it keeps.

PyTorch draws a 32-bit number of a Mersenne twister for each entry, and keeps a float32 mask until the backward pass.
Here an entry takes 16 bits of a faster generator, and what is kept is the generator's seed: the backward pass draws the
same mask again. The seed comes from PyTorch's generator, so `torch.manual_seed` and a stored state decide here too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["SeededDropout", "dropout"]

_LOTS = 1 << 16


def dropout(values: torch.Tensor, rate: float) -> torch.Tensor:
    """`values` with entries set to zero by chance, the others scaled so that the expectation stays.

    Args:
        rate: the chance, in [0, 1); it is rounded to a multiple of 1/65536.
    """
    dropped: torch.Tensor = _Dropout.apply(values, rate, _new_seed())  # type: ignore[no-untyped-call]
    return dropped


class SeededDropout(TorchFunctionMode):
    """A context in which `dropout` takes the place of PyTorch's, in layers and in attention, for tensors on a CPU.

    Attention is computed as the paper of the transformer writes it, which is what PyTorch does on a CPU when there is
    dropout; a causal one and one with fewer key heads than query heads are left to PyTorch.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch for each of its functions."""
        if func is functional.dropout:
            return _layer_dropout(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _layer_dropout(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> torch.Tensor:
    if not training or inplace or not _is_ours(input, p):
        return functional.dropout(input, p, training, inplace)
    return dropout(input, p)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **others: Any,
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d) + mask) V with dropout over the softmax (Vaswani et al., 2017, equation 1)."""
    if is_causal or any(others.values()) or not _is_ours(query, dropout_p):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **others
        )
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-1, -2))
    # The lowest number, not -inf, so that a query without any key gets numbers.
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask.clamp_min(torch.finfo(attn_mask.dtype).min)
    weights = scores.softmax(-1).to(value.dtype)
    attended: torch.Tensor = _DropoutProduct.apply(weights, value, dropout_p, _new_seed())  # type: ignore[no-untyped-call]
    return attended


def _is_ours(values: torch.Tensor, rate: float) -> bool:
    return values.device.type == "cpu" and values.is_floating_point() and 0 < rate < 1


class _Dropout(torch.autograd.Function):
    """`_drop` and its derivative, which is the same with the same seed."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
        ctx.drawn = rate, seed
        return _drop(values, rate, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _drop(gradient, *ctx.drawn), None, None


class _DropoutProduct(torch.autograd.Function):
    """`_drop(weights) @ values`, without keeping the first factor beside `weights`, which a softmax keeps anyway."""

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, values: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
        ctx.drawn = rate, seed
        ctx.save_for_backward(weights, values)
        return torch.matmul(_drop(weights, rate, seed), values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        weights, values = ctx.saved_tensors
        of_weights = torch.matmul(gradient, values.transpose(-1, -2))
        of_values = torch.matmul(_drop(weights, *ctx.drawn).transpose(-1, -2), gradient)
        return _drop(of_weights, *ctx.drawn), of_values, None, None


def _new_seed() -> int:
    return int(torch.randint(2**63 - 1, ()))


def _drop(values: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
    count = math.prod(values.shape)
    # random_raw gives 64 bits at a time, by a stream that NumPy keeps the same in all releases.
    drawn = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    dropped = min(round(rate * _LOTS), _LOTS - 1)
    kept = torch.from_numpy(drawn).view(values.shape) >= dropped - _LOTS // 2
    return torch.where(kept, values, 0.0).mul_(_LOTS / (_LOTS - dropped))
