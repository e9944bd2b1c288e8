"""What the manifest says of a program that was compiled ahead of time for an accelerator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bitfit_export.bundle.fields import Record, check_text
from bitfit_export.errors import BundleError, quoted

__all__ = ["AcceleratorRecord", "accelerator_from_record"]

_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True)
class AcceleratorRecord:
    """How a program was compiled ahead of time.

    Attributes:
        binary: the path in the bundle of what the accelerator loads.
        sdk: the version of the maker's SDK that made it.
        soc: the chip, by name or number.
        soc_model: the maker's number of the chip.
        arch: the version of the accelerator's architecture.
        nodes: how many nodes of the graph it computes; none is left to the CPU.
        source: the path in the bundle of the graph before it was compiled; None where that was not kept.

    Raises:
        BundleError: a value that is malformed or out of its range.
    """

    binary: str
    sdk: str
    soc: str
    soc_model: int
    arch: int
    nodes: int
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("binary", "sdk", "soc"):
            check_text(getattr(self, name), f"accelerator: {name}")
        if self.source is not None:
            check_text(self.source, "accelerator: source")
        for name in ("soc_model", "arch", "nodes"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= _UINT32_MAX:
                raise BundleError(f"accelerator: {name} is {quoted(value)}, expected 0 to {_UINT32_MAX}")

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files that it names."""
        return (self.binary,) if self.source is None else (self.binary, self.source)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def accelerator_from_record(record: Record) -> AcceleratorRecord:
    """Read what `to_json` wrote, and check all of it."""
    return AcceleratorRecord(
        binary=record.text("binary"),
        sdk=record.text("sdk"),
        soc=record.text("soc"),
        soc_model=record.integer("soc_model"),
        arch=record.integer("arch"),
        nodes=record.integer("nodes"),
        source=record.text_or_none("source"),
    )
