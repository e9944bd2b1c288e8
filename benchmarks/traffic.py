"""Requests of mixed tasks with the lengths of real texts, and the batches that they become.

Ids are random: time and memory depend on the lengths alone. This module imports next to nothing, for processes whose
memory is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "BATCHINGS",
    "Batch",
    "Ids",
    "Request",
    "add_traffic_options",
    "describe_traffic",
    "make_ids",
    "make_requests",
    "padding_of",
    "read_lengths",
]

MAX_LENGTH = 128
_GLUE = ("sst2", "mrpc", "cola", "stsb", "rte")
_SEED = 0

Ids: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """One text of one task; `length` in tokens."""

    task: str
    length: int


Batch: TypeAlias = Sequence[Request]


def add_traffic_options(parser: argparse.ArgumentParser, *, requests: int) -> None:
    """The options that say which requests a script makes."""
    parser.add_argument("--requests", type=int, default=requests, help="how many (%(default)s)")
    parser.add_argument(
        "--lengths",
        type=Path,
        metavar="FILE",
        help="lengths of texts in tokens, one a line; by default those of the GLUE dev sets in the folder BITFIT_DATA",
    )


def read_lengths(path: Path | None, tokenizer: Any) -> dict[str, list[int]]:
    """Returns lengths of real texts in tokens, at most `MAX_LENGTH`: of a file, or of each GLUE dev set.

    Args:
        tokenizer: of transformers; counts the tokens of the dev sets.
    """
    if path is not None:
        lengths = {path.name: [int(line) for line in path.read_text().split()]}
    elif "BITFIT_DATA" in os.environ:
        data = Path(os.environ["BITFIT_DATA"])
        lengths = {task: _dev_lengths(data, task, tokenizer) for task in _GLUE}
    else:
        sys.exit("BITFIT_DATA is not set, expected a folder with GLUE's dev sets\nhint: set it, or pass --lengths FILE")
    for source, found in lengths.items():
        if not found or min(found) < 1:
            sys.exit(f"{source} has no lengths or one below 1, expected numbers of tokens")
    return {source: [min(length, MAX_LENGTH) for length in found] for source, found in lengths.items()}


def _dev_lengths(data: Path, task: str, tokenizer: Any) -> list[int]:
    from bitfit_export.training.data import load_task_data

    columns = map(list, zip(*load_task_data(task, data=data).validation.texts, strict=True))
    return [len(ids) for ids in tokenizer(*columns, truncation=True, max_length=MAX_LENGTH)["input_ids"]]


def make_requests(tasks: Sequence[str], lengths: Mapping[str, Sequence[int]], count: int) -> list[Request]:
    """Returns requests in the order in which they arrive: as many of each task, in random order, seeded.

    Args:
        lengths: of texts, by their source; the tasks have these sources in turn.
    """
    random = np.random.default_rng(_SEED)
    sources = dict(zip(tasks, cycle(lengths.values()), strict=False))
    each = islice(cycle(tasks), count)
    requests = [Request(task, int(random.choice(sources[task]))) for task in each]
    return [requests[place] for place in random.permutation(count)]


def describe_traffic(requests: Sequence[Request], lengths: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """What results say about the requests."""
    found = [request.length for request in requests]
    return {
        "requests": len(requests),
        "lengths": ", ".join(lengths),
        "tokens": {"mean": statistics.mean(found), "median": statistics.median(found), "largest": max(found)},
    }


# --- batches


def _in_order(requests: Sequence[Request], size: int) -> list[Batch]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _by_task(requests: Sequence[Request], size: int) -> list[Batch]:
    waiting: dict[str, list[Request]] = {}
    full: list[Batch] = []
    for request in requests:
        queue = waiting.setdefault(request.task, [])
        queue.append(request)
        if len(queue) == size:
            full.append(waiting.pop(request.task))
    return [*full, *waiting.values()]


def _alone(requests: Sequence[Request], size: int) -> list[Batch]:
    return _in_order(requests, 1)


#: How requests become batches of at most a size: in the order of arrival, whatever their tasks; each task's own, a
#: batch when it is full, and at the end what still waits; or one by one.
BATCHINGS = {"mixed": _in_order, "by task": _by_task, "alone": _alone}


def padding_of(batches: Sequence[Batch]) -> float:
    """Returns the share of padding among the places of all batches, each padded to its longest text."""
    places = sum(len(batch) * max(request.length for request in batch) for batch in batches)
    return 1 - sum(request.length for batch in batches for request in batch) / places


def make_ids(batch: Batch, names: Sequence[str], vocabulary: int) -> dict[str, np.ndarray]:
    """Returns the text inputs of these names, int64 [batch, sequence], padded to the longest text."""
    lengths = np.array([request.length for request in batch])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.random.default_rng(_SEED).integers(1, vocabulary, mask.shape) * mask
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    return {name: values[name] for name in names}
