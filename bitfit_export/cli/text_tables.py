"""Plain tables on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from bitfit_export.errors import shown

if TYPE_CHECKING:
    from bitfit_export.verification.comparison import VerifyReport

__all__ = ["print_comparisons", "print_table", "size_text"]

#: Characters of a cell, which can be a name out of a file.
_LONGEST_CELL = 300


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]], *, stream: TextIO | None = None) -> None:
    """Columns padded to their widest cell, the first one left-aligned, the others right-aligned."""
    cells = [[shown(cell, _LONGEST_CELL) for cell in line] for line in (header, *lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for number, line in enumerate(cells):
        padded = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *padded]).rstrip(), file=stream or sys.stderr)
        if number == 0:
            print("  ".join("-" * width for width in widths), file=stream or sys.stderr)


def print_comparisons(report: VerifyReport) -> None:
    """Prints the comparisons, one line per task."""
    print_table(
        ("task", "items", "largest difference", "mean difference", "same argmax"),
        [
            (
                each.name,
                str(each.items),
                f"{each.max_difference:.2e}",
                f"{each.mean_difference:.2e}",
                f"{each.argmax_agreement:.1%}",
            )
            for each in report.comparisons
        ],
    )


def size_text(size: int) -> str:
    """A size in bytes as people read it: 1 KB = 1,000 bytes."""
    if size >= 1_000_000:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e3:.1f} KB"
