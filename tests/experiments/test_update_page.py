"""The tables of docs/results.md are what `bitfit reproduce` wrote."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "examples/reproduce/update_page.py"
MAIN = runpy.run_path(str(ROOT / SCRIPT))["main"]
PAGE = f"before\n<!-- {{0}}: written by {SCRIPT} -->\nold\n<!-- {{0}}: to here -->\nafter\n"


def test_a_report_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("table3") + PAGE.format("gap"))
    (tmp_path / "table3.md").write_text("| new |\n")
    for _ in range(2):
        MAIN([str(page), "--results", str(tmp_path)])
        assert page.read_text() == PAGE.format("table3").replace("old\n", "\n| new |\n\n") + PAGE.format("gap")


def test_what_another_script_writes_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other = PAGE.format("speed").replace(SCRIPT, "benchmarks/report.py")
    page.write_text(PAGE.format("gap") + other)
    (tmp_path / "gap.md").write_text("| new |\n")
    MAIN([str(page), "--results", str(tmp_path)])
    assert page.read_text().endswith(other)


@pytest.mark.parametrize("text", ["no marks\n", PAGE.format("table9")])
def test_a_page_without_known_marks_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(SystemExit, match="expected some of table2"):
        MAIN([str(tmp_path / "page.md"), "--results", str(tmp_path)])


def test_the_tables_of_the_results_are_the_committed_ones(tmp_path: Path) -> None:
    page = (ROOT / "docs/results.md").read_text()
    (tmp_path / "results.md").write_text(page)
    MAIN([str(tmp_path / "results.md"), "--results", str(ROOT / "results/reproduce/minilm-l6")])
    assert (tmp_path / "results.md").read_text() == page
