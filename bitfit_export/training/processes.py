"""Several processes that train one task together, as torchrun and `accelerate launch` start them.

All of them train; the first one alone says anything and writes anything but its share of a checkpoint.
"""

from __future__ import annotations

import os

from bitfit_export.errors import UsageError

__all__ = ["is_first_process", "items_per_process", "together_on_cpu", "wait_for_all"]


def is_first_process() -> bool:
    """Returns whether this is the process that reports and publishes; true where there is one process."""
    return int(os.environ.get("RANK", "0")) == 0


def _process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def items_per_process(batch_size: int) -> int:
    """Returns how many of a batch's items are this process's, so that all processes together have the batch.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    count = _process_count()
    if batch_size % count:
        raise UsageError(f"--batch-size is {batch_size}, expected a multiple of the {count} processes")
    return batch_size // count


def together_on_cpu() -> bool:
    """Returns whether several processes train without a GPU: accelerate must be told, or each trains alone."""
    import torch

    return _process_count() > 1 and not torch.cuda.is_available()


def wait_for_all() -> None:
    """Return when every process has come here."""
    if _process_count() > 1:
        from accelerate import PartialState

        PartialState(cpu=together_on_cpu()).wait_for_everyone()
