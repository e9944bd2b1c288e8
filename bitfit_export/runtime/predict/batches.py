"""The plan of batches: which sequences a prediction runs together."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BATCH_SIZE", "BATCH_TOKENS", "plan_batches"]

#: The most items of a batch, and the most tokens of one with its padding, where a caller names none. Batches of more
#: tokens take more time per token, as they leave the caches, and more memory: `benchmarks/batch_tokens.py`.
BATCH_SIZE = 32
BATCH_TOKENS = 512


def plan_batches(
    lengths: Sequence[int],
    groups: Sequence[str],
    *,
    batch_size: int = BATCH_SIZE,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[int]]:
    """Returns the items of each batch, by their places, such that neighbours in length run together.

    The items are sorted by group, then by length. A batch takes the next one while it is of the same group, and neither
    the number of items nor that of tokens, which is items times the longest length, goes beyond its limit. An item that
    alone has too many tokens is a batch of its own. `conformance/batches` has cases.

    Args:
        lengths: of the items, in tokens.
        groups: of each item; items of different groups are never in one batch.
    """
    batches: list[list[int]] = []
    group = None
    for place in sorted(range(len(lengths)), key=lambda each: (groups[each], lengths[each])):
        size = len(batches[-1]) + 1 if batches else 1
        if groups[place] != group or size > batch_size or size * lengths[place] > batch_tokens:
            group = groups[place]
            batches.append([])
        batches[-1].append(place)
    return batches
