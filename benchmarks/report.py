"""What was measured, beside the targets.

    python benchmarks/report.py               # the targets: at most, measured, pass or shortfall
    python benchmarks/report.py --markdown    # all tables, as Markdown
    python benchmarks/report.py --update docs/performance.md    # write these into a page, and draw its figure

It reads results/benchmarks/*.json and measures nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common import make_parser, say
from speed_plot import FORMATS, draw_speed
from tables import detail_tables, target_table
from targets import Report, read_results

from bitfit_export.cli.text_tables import print_table
from bitfit_export.files import write_bytes

#: The lines between which a page has what this script writes.
BEGIN, END = "<!-- written by benchmarks/report.py -->", "<!-- to here -->"


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--markdown", action="store_true", help="all tables, as Markdown")
    parser.add_argument("--update", type=Path, metavar="PAGE.md", help="write them into this page, and a figure")
    arguments = parser.parse_args(words)
    report = read_results(arguments.results)
    if arguments.update is not None:
        update_page(arguments.update, report)
    elif arguments.markdown:
        print(markdown(report))
    else:
        table = target_table(report.measured)
        print_table(table.header, table.rows, stream=sys.stdout)
        print("", *report.circumstances, sep="\n")


def markdown(report: Report) -> str:
    """Where it was measured, and all tables."""
    tables = (target_table(report.measured), *detail_tables(report.measured))
    measured_on = "\n".join(f"- {line}" for line in report.circumstances)
    return "\n".join([f"Measured on\n\n{measured_on}\n", *(table.markdown() for table in tables)])


def update_page(page: Path, report: Report) -> None:
    """Write the tables between the page's two marks, and the figure beside the page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page} has no lines {BEGIN!r} and {END!r}, expected both")
    picture = ""
    for kind in FORMATS:
        drawn = draw_speed(report.measured, kind)
        if drawn is not None:
            write_bytes(page.with_suffix(f".{kind}"), drawn)
            picture = f"![Time of bundles by that of the fastest baseline]({page.stem}.svg)\n\n"
    write_bytes(page, f"{before}{BEGIN}\n\n{picture}{markdown(report)}\n{END}{after}".encode())
    say(f"wrote {page}")


if __name__ == "__main__":
    main()
