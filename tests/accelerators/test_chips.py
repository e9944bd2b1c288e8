"""Chips are known by name, others by number; what is wrong is said before anything is compiled."""

from __future__ import annotations

import pytest

from bitfit_export.accelerators.qnn import CHIPS, Chip, find_chip
from bitfit_export.compiler import CompileOptions
from bitfit_export.errors import UsageError


def test_a_chip_is_found_by_name_by_arch_and_by_number() -> None:
    assert find_chip() == find_chip("sm8550") == Chip("sm8550", 43, 73)
    assert find_chip(arch=73) == find_chip()
    assert find_chip(arch=75).name == "sm8650"
    assert find_chip("sm8650", 73) == Chip("sm8650", 57, 73)
    assert find_chip("77", 73) == Chip("77", 77, 73)
    assert all(find_chip(name) == chip for name, chip in CHIPS.items())


@pytest.mark.parametrize(
    ("soc", "arch", "message"),
    [
        ("sm9999", None, r"--soc is 'sm9999', expected one of sm8450, .*, or a number"),
        ("77", None, "--soc is the number 77, which does not say which HTP it has"),
        ("-1", 73, "--soc is '-1', expected one of"),
        (None, 68, "--htp-arch is 68, expected one of 69, 73, 75, 79, 81"),
    ],
)
def test_an_unknown_chip_is_refused(soc: str | None, arch: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_chip(soc, arch)


@pytest.mark.parametrize("option", [{"soc": "sm8550"}, {"htp_arch": 73}, {"keep_onnx": True}])
def test_other_targets_have_no_chip(option: dict[str, object]) -> None:
    (name,) = option
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} goes with --target qnn, not with --target ort"):
        CompileOptions(**option)  # type: ignore[arg-type]
