"""Logits beside PyTorch's: how far apart they are, and whether that passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitfit_export.errors import VerificationError

__all__ = [
    "FP32_TOLERANCE",
    "LOW_PRECISION_AGREEMENT",
    "Comparison",
    "VerifyReport",
    "check_report",
    "compare_logits",
]

#: Largest allowed difference of a logit between the bundle and PyTorch, both in float32.
FP32_TOLERANCE = 1e-4
#: In a lower precision differences are reported. Only the probe, whose decisions are far apart, must mostly agree.
LOW_PRECISION_AGREEMENT = 0.8


@dataclass(frozen=True)
class Comparison:
    """The bundle's logits beside PyTorch's over some items.

    Attributes:
        name: a task's name, `mixed` for batches in which every item is another task, or `PROBE`; with underscores
            at the end where a task has that name.
        items: how many decisions were compared: texts, or the tokens of texts.
        argmax_agreement: share of the items with the same largest logit.
        tolerance: the largest difference allowed; None in a lower precision.
        least_agreement: the smallest share allowed there.
    """

    name: str
    items: int
    max_difference: float
    mean_difference: float
    argmax_agreement: float
    tolerance: float | None = FP32_TOLERANCE
    least_agreement: float = 0.0

    @property
    def passed(self) -> bool:
        if self.tolerance is not None:
            return self.max_difference <= self.tolerance and self.argmax_agreement == 1.0
        return bool(np.isfinite(self.max_difference)) and self.argmax_agreement >= self.least_agreement


@dataclass(frozen=True)
class VerifyReport:
    """One comparison a task, and one of mixed batches."""

    comparisons: tuple[Comparison, ...]
    seed: int

    @property
    def max_difference(self) -> float:
        return max(each.max_difference for each in self.comparisons)


def check_report(report: VerifyReport) -> None:
    """Raise VerificationError when a comparison does not hold."""
    failed = [each for each in report.comparisons if not each.passed]
    if failed:
        worst = max(failed, key=lambda each: each.max_difference)
        allowed = "a finite one" if worst.tolerance is None else f"at most {worst.tolerance:.0e}"
        raise VerificationError(
            f"{len(failed)} of {len(report.comparisons)} comparisons with PyTorch failed; {worst.name}: largest "
            f"difference {worst.max_difference:.2e}, expected {allowed}; the same argmax on "
            f"{worst.argmax_agreement:.1%} of {worst.items} items, expected "
            f"{'all' if worst.tolerance is not None else f'at least {worst.least_agreement:.0%}'}"
        )


def compare_logits(
    name: str,
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: float | None = FP32_TOLERANCE,
    *,
    least_agreement: float = 0.0,
) -> Comparison:
    """Compare logits item by item; each is float32 [labels of its task]."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
        raise VerificationError(f"{name}: the bundle gives another number of logits than PyTorch")
    differences = [np.abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)]
    agree = [int(ours.argmax()) == int(theirs.argmax()) for ours, theirs in zip(found, expected, strict=True)]
    flat = np.concatenate(differences)
    # A NaN compares as neither larger nor smaller; it must count as the largest difference there is.
    largest = float(flat.max()) if np.isfinite(flat).all() else float("inf")
    agreement = float(np.mean(agree))
    return Comparison(name, len(found), largest, float(flat.mean()), agreement, tolerance, least_agreement)
