"""What the manifest says of a model in integers: ranges of activations that are constants, and what stays in floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bitfit_export.bundle.fields import Record, check_text
from bitfit_export.errors import BundleError, quoted, shown

__all__ = ["LAST_STEP_16", "QuantizationRecord", "RangeRecord", "quantization_from_record"]

#: The least and the largest normal float32. With a smaller scale, a bias cannot be counted in steps.
_LEAST_SCALE, _MOST_SCALE = 2.0**-126, 2.0**128 - 2.0**104

#: Of uint8 and of uint16, which is that of `w8a16`.
_LAST_STEP, LAST_STEP_16 = 255, 65535


@dataclass(frozen=True)
class RangeRecord:
    """How the activations that one product reads become integers: round(x / scale) + zero_point, saturating.

    They are uint8, and uint16 in the precision `w8a16`.

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
        if type(self.zero_point) is not int or not 0 <= self.zero_point <= LAST_STEP_16:
            raise BundleError(f"quantization: a zero_point is {quoted(self.zero_point)}, expected 0 to {LAST_STEP_16}")
        if not (math.isfinite(self.used) and self.used >= 0):
            raise BundleError(f"quantization: used is {self.used}, expected a finite number of at least 0")

    @property
    def largest(self) -> tuple[float, float]:
        """The least and the greatest activation that uint8 can represent."""
        return -self.zero_point * self.scale, (_LAST_STEP - self.zero_point) * self.scale


@dataclass(frozen=True)
class QuantizationRecord:
    """How a model was quantised.

    Attributes:
        ranges: of the activations whose range is a constant, by the name of the product that reads them.
        not_quantized: products that stay in float32 though integers were asked for, by name -> why.
        bias_scales: of bias inputs that are int32, by name: for each value its scale; the zero point is 0.

    Raises:
        BundleError: a name or a reason that is none, or a product that is in both.
    """

    ranges: Mapping[str, RangeRecord] = field(default_factory=dict)
    not_quantized: Mapping[str, str] = field(default_factory=dict)
    bias_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.ranges, *self.not_quantized):
            check_text(name, "quantization: a product's name")
        for name, reason in self.not_quantized.items():
            check_text(reason, f"quantization: the reason of {shown(name)}")
        both = self.ranges.keys() & self.not_quantized.keys()
        for name, scales in self.bias_scales.items():
            check_text(name, "quantization: a bias's name")
            if not all(_LEAST_SCALE <= scale <= _MOST_SCALE for scale in scales):
                raise BundleError(f"quantization: a scale of {shown(name)} is out of range, expected a normal float32")
        if both:
            raise BundleError(f"quantization has {quoted(min(both))} in ranges and in not_quantized, expected one")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts."""
        biases = {name: list(each) for name, each in self.bias_scales.items()}
        return ({"bias_scales": biases} if biases else {}) | {
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
        record.named_numbers("bias_scales") if record.has("bias_scales") else {},
    )
