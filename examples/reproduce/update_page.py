"""Write the reports of `bitfit reproduce` into a page, each between its two marks.

    python examples/reproduce/update_page.py docs/results.md [--results results/reproduce/minilm-l6]

A mark is a line `<!-- table3: written by examples/reproduce/update_page.py -->`, and the end of what it has
`<!-- table3: to here -->`. A report that is not there yet leaves its place as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bitfit_export.experiments.reproduce import EXPERIMENTS
from bitfit_export.files import write_bytes

_SCRIPT = re.escape("examples/reproduce/update_page.py")
_MARKED = re.compile(rf"(<!-- ([\w-]+): written by {_SCRIPT} -->\n).*?(<!-- \2: to here -->)", re.DOTALL)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results/reproduce/minilm-l6"))
    arguments = parser.parse_args(words)
    text = arguments.page.read_text(encoding="utf-8")
    names = [match[1] for match in _MARKED.findall(text)]
    if not names or not set(names) <= set(EXPERIMENTS):
        sys.exit(f"{arguments.page} has marks for {names or 'nothing'}, expected some of {', '.join(EXPERIMENTS)}")
    write_bytes(arguments.page, _MARKED.sub(lambda match: _filled(match, arguments.results), text).encode())


def _filled(match: re.Match[str], results: Path) -> str:
    """The marks with the report between them."""
    begin, name, end = match.groups()
    report = results / f"{name}.md"
    if not report.is_file():
        print(f"{report} is not there; its place stays as it was", file=sys.stderr)
        return match[0]
    return f"{begin}\n{report.read_text(encoding='utf-8')}\n{end}"


if __name__ == "__main__":
    main()
