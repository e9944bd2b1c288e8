"""How tests read a refusal."""

from __future__ import annotations

from bitfit_export.compiler.compilation import Refusal

__all__ = ["reason_of"]


def reason_of(outcome: object) -> str:
    """The reason of a refusal; anything else fails the test."""
    assert isinstance(outcome, Refusal), f"expected a refusal, got {outcome}"
    return outcome.reason
