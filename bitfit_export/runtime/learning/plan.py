"""What learning will do, said before the first step: its size, and the memory that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitfit_export.errors import UsageError

__all__ = ["Epoch", "LearningPlan", "check_memory", "megabytes", "peak_memory"]

_STATUS, _MAPS = Path("/proc/self/status"), Path("/proc/self/smaps")


@dataclass(frozen=True)
class LearningPlan:
    """What learning will do, and what it needs.

    Attributes:
        values: the number of learnt values.
        steps: of all epochs.
        part_items, part_tokens: of the largest part of a batch: its shape.
        peak_bytes: the largest memory of the process so far, when the largest batches were run, and what of the mapped
            weights is not read yet. 0 where the system does not say.
    """

    values: int
    steps: int
    part_items: int
    part_tokens: int
    peak_bytes: int


@dataclass(frozen=True)
class Epoch:
    """One epoch that is over.

    Attributes:
        number: from 1.
        scores: on the held-out examples, and `loss`, the mean over the epoch's steps.
        is_best: whether no epoch before it had as good a score.
    """

    number: int
    scores: dict[str, float]
    is_best: bool


def check_memory(plan: LearningPlan, limit: int | None) -> None:
    """Refuse a plan that needs more memory than a limit, in bytes.

    Raises:
        UsageError: it needs more.
    """
    if limit is None or plan.peak_bytes <= limit:
        return
    hint = f"compute fewer at once: --part-size {plan.part_items // 2}"
    what = f"{plan.part_items} texts of {plan.part_tokens} tokens at once"
    raise UsageError(
        f"learning needs {megabytes(plan.peak_bytes)} for {what}, expected at most {megabytes(limit)}",
        hint=hint if plan.part_items > 1 else "cut texts to fewer tokens: --max-length",
    )


def megabytes(count: int) -> str:
    """Returns a number of bytes as megabytes, rounded up."""
    return f"{-(-count // 10**6)} MB"


def peak_memory(weights: str, status: Path = _STATUS, maps: Path = _MAPS) -> int:
    """Returns the memory that this process will have had, in bytes; 0 where the system does not say.

    That is the most so far, and what of the weights is mapped and not read yet: later texts read other embeddings.

    Args:
        weights: the end of the name of the mapped file.
    """
    try:
        lines = status.read_text().splitlines()
        regions = maps.read_text().splitlines()
    except OSError:
        return 0
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return 1024 * (peak + _unread(regions, weights)) if peak else 0


def _unread(lines: list[str], weights: str) -> int:
    """In kilobytes."""
    found, wanted = {"Size:": 0, "Rss:": 0}, False
    for line in lines:
        name, *words = line.split(maxsplit=1)
        if not name.endswith(":"):  # the line that begins a region, with its file at the end
            wanted = line.endswith(weights)
        elif wanted and name in found:
            found[name] += int(words[0].split()[0])
    return found["Size:"] - found["Rss:"]
