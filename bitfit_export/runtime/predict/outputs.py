"""Which output of the graph has the answers of some tasks, and which of its numbers are theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import InputError
from bitfit_export.runtime.tasks.task_store import LoadedTask

__all__ = ["own_labels", "shared_output"]

Float32Array: TypeAlias = NDArray[np.float32]


def shared_output(tasks: Sequence[LoadedTask]) -> str:
    """Returns the name of the graph output that all of the tasks have their answers in.

    Raises:
        InputError: sentence tasks together with token or span tasks.
    """
    first = tasks[0]
    for task in tasks:
        if task.output != first.output:
            raise InputError(
                f"the batch has the {first.problem_type} task {first.name} and the {task.problem_type} task "
                f"{task.name}, expected sentence tasks alone, or token and span tasks alone",
                hint="run_outputs gives the logits of both kinds",
            )
    return first.output


def own_labels(logits: Float32Array, tasks: Sequence[LoadedTask]) -> Float32Array:
    """Returns logits [batch, ..., labels] without the labels that no item has; -inf where an item lacks a label."""
    counts = [task.label_count for task in tasks]
    most = max(counts)
    if most < logits.shape[-1]:
        logits = np.ascontiguousarray(logits[..., :most])
    if min(counts) < most:
        for item, count in enumerate(counts):
            if count < most:
                logits[item, ..., count:] = -np.inf
    return logits
