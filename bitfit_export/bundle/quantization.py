"""What the manifest says of a model in integers: ranges of activations that are constants, and what stays in floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bitfit_export.bundle.fields import Record, check_text
from bitfit_export.errors import BundleError, quoted, shown

__all__ = ["QuantizationRecord", "RangeRecord", "quantization_from_record"]

_LAST_STEP = 255


@dataclass(frozen=True)
class RangeRecord:
    """How the activations that one product reads become uint8: round(x / scale) + zero_point, from 0 to 255.

    Attributes:
        used: the largest activation that the bundle's tasks were seen to have, by the largest that can be represented.
            More than 1 where it saturates.

    Raises:
        BundleError: a value out of its range.
    """

    scale: float
    zero_point: int
    used: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise BundleError(f"quantization: a scale is {self.scale}, expected a finite number above 0")
        if type(self.zero_point) is not int or not 0 <= self.zero_point <= _LAST_STEP:
            raise BundleError(f"quantization: a zero_point is {quoted(self.zero_point)}, expected 0 to {_LAST_STEP}")
        if not (math.isfinite(self.used) and self.used >= 0):
            raise BundleError(f"quantization: used is {self.used}, expected a finite number of at least 0")

    @property
    def largest(self) -> tuple[float, float]:
        """The least and the greatest activation that can be represented."""
        return -self.zero_point * self.scale, (_LAST_STEP - self.zero_point) * self.scale


@dataclass(frozen=True)
class QuantizationRecord:
    """How a model was quantised.

    Attributes:
        ranges: of the activations whose range is a constant, by the name of the product that reads them.
        not_quantized: products that stay in float32 though integers were asked for, by name -> why.

    Raises:
        BundleError: a name or a reason that is none, or a product that is in both.
    """

    ranges: Mapping[str, RangeRecord] = field(default_factory=dict)
    not_quantized: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.ranges, *self.not_quantized):
            check_text(name, "quantization: a product's name")
        for name, reason in self.not_quantized.items():
            check_text(reason, f"quantization: the reason of {shown(name)}")
        both = self.ranges.keys() & self.not_quantized.keys()
        if both:
            raise BundleError(f"quantization has {quoted(min(both))} in ranges and in not_quantized, expected one")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts."""
        return {
            "not_quantized": dict(self.not_quantized),
            "ranges": {name: asdict(each) for name, each in self.ranges.items()},
        }


def quantization_from_record(record: Record) -> QuantizationRecord:
    """Read what `to_json` wrote, and check all of it."""
    return QuantizationRecord(
        {
            name: RangeRecord(each.number("scale"), each.integer("zero_point"), each.number("used"))
            for name, each in record.named_records("ranges").items()
        },
        record.named_texts("not_quantized"),
    )
