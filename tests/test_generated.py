"""What spec/generate.py makes is what is committed, and what it makes are the numbers that the code uses."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "spec" / "generate.py"))


def test_no_generated_file_is_stale(generator: dict[str, Any]) -> None:
    assert list(generator["stale_files"]()) == [], "run: make generate"


def test_a_changed_file_is_stale(generator: dict[str, Any], tmp_path: Path) -> None:
    made = generator["generated"]()
    for path in made:
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / path).read_text(encoding="utf-8"), encoding="utf-8")
    generator["main"].__globals__["ROOT"] = tmp_path
    changed = ["bitfit_export/bundle/row_format.py", "docs/bias_row.md"]
    for path in changed:
        (tmp_path / path).write_text(
            made[path].replace("| 448 |", "| 449 |").replace("_AT = 12\n", "_AT = 13\n"), encoding="utf-8"
        )
    assert sorted(generator["stale_files"]()) == changed
    assert generator["main"](["--check"]) == 1
    assert sorted(generator["stale_files"]()) == changed
    assert generator["main"]([]) == 0
    assert generator["stale_files"]() == {}
    assert {path: (tmp_path / path).read_text(encoding="utf-8") for path in made} == made
    generator["main"].__globals__["ROOT"] = ROOT


def test_fields_with_a_gap_are_refused(generator: dict[str, Any]) -> None:
    row = generator["read_spec"]("row.toml")
    row["fields"][3]["offset"] += 4
    with pytest.raises(ValueError, match="the field flags is at 20, expected 16"):
        generator["_check_fields"](row)


def test_the_standard_library_is_all_that_the_generator_needs() -> None:
    text = (ROOT / "spec" / "generate.py").read_text(encoding="utf-8")
    assert "bitfit_export import" not in text
