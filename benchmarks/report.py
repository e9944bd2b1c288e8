"""What was measured, beside the targets.

    python benchmarks/report.py               # the targets: at most, measured, pass or shortfall
    python benchmarks/report.py --markdown    # all tables, as Markdown
    python benchmarks/report.py --update docs/performance.md    # write these into a page, and draw its figure
    python benchmarks/report.py --update docs/results.md        # write the tables in short that the page has marks for

It reads results/benchmarks/*.json and measures nothing. A folder in there has what was measured on another kind of
processor as well (`--results results/benchmarks/avx2`); its tables follow under its name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import make_parser, say
from speed_plot import FORMATS, draw_speed
from tables import SUMMARIES, detail_tables, target_table
from targets import Report, read_results

from bitfit_export.cli.text_tables import print_table
from bitfit_export.files import write_bytes

#: The lines between which a page has what this script writes; the end of a table in short repeats its word.
BEGIN, END = "<!-- written by benchmarks/report.py -->", "<!-- to here -->"
_MARKED = re.compile(
    rf"(?P<begin>{re.escape(BEGIN)}|<!-- (?P<word>\w+): written by benchmarks/report\.py -->)\n.*?"
    rf"(?P<end>(?(word)<!-- (?P=word): to here -->|{re.escape(END)}))",
    re.DOTALL,
)


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
    """Where it was measured, and all tables; then those of each other kind of processor."""
    parts = [_measured_on(report), target_table(report.measured).markdown()]
    parts += [table.markdown() for table in detail_tables(report.measured)]
    for name, other in report.elsewhere.items():
        parts += [f"## Measured again: {name}\n", _measured_on(other)]
        targets = target_table(other.measured, measured_only=True)
        parts += [
            replace(table, title=f"{table.title} ({name})").markdown()
            for table in (targets, *detail_tables(other.measured))
        ]
    return "\n".join(parts)


def _measured_on(report: Report) -> str:
    lines = "\n".join(f"- {line}" for line in report.circumstances)
    return f"Measured on\n\n{lines}\n"


def update_page(page: Path, report: Report) -> None:
    """Write the tables between the page's marks, and the figure beside a page that has all of them."""
    text = page.read_text()
    words = [match["word"] for match in _MARKED.finditer(text)]
    if not words or not {word for word in words if word} <= set(SUMMARIES):
        marks = [BEGIN, *(f"<!-- {word}: written by benchmarks/report.py -->" for word in SUMMARIES)]
        sys.exit(f"{page} has marks for {words or 'nothing'}, expected both lines of some of {', '.join(marks)}")

    def filled(match: re.Match[str]) -> str:
        content = _summary(match["word"], report) if match["word"] else _everything(page, report)
        return f"{match['begin']}\n\n{content}\n{match['end']}"

    write_bytes(page, _MARKED.sub(filled, text).encode())
    say(f"wrote {page}")


def _summary(word: str, report: Report) -> str:
    table = SUMMARIES[word](report.measured)
    return table.markdown() if table.rows else "Not measured yet.\n"


def _everything(page: Path, report: Report) -> str:
    """The tables under the figure, which lies beside the page."""
    picture = ""
    for kind in FORMATS:
        drawn = draw_speed(report.measured, kind)
        if drawn is not None:
            write_bytes(page.with_suffix(f".{kind}"), drawn)
            picture = f"![Time of bundles by that of the fastest baseline]({page.stem}.svg)\n\n"
    return f"{picture}{markdown(report)}"


if __name__ == "__main__":
    main()
