"""The report of an experiment: a table in Markdown, the same as JSON, and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfit_export.delta.plots import PLOT_FORMATS
from bitfit_export.files import canonical_json, write_bytes

__all__ = ["Report", "markdown_table", "write_report"]


@dataclass(frozen=True)
class Report:
    """An experiment's outcome.

    Attributes:
        text: Markdown.
        data: the figures of the text and more, for programs. Its keys stay what they are, for those that read it.
        plots: the end of a file's name, after the experiment's, and what draws it in a format; none where there is
            nothing to draw yet.
    """

    text: str
    data: Mapping[str, Any]
    plots: Mapping[str, Callable[[str], bytes]] = field(default_factory=dict)


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def write_report(folder: Path, experiment: str, report: Report, *, plots: bool) -> list[Path]:
    """Write a report's files, atomically each; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{experiment}.md": report.text.encode(), f"{experiment}.json": canonical_json(report.data)}
    if plots:
        for end, draw in report.plots.items():
            files |= {f"{experiment}{end}.{kind}": draw(kind) for kind in PLOT_FORMATS}
    for name, data in files.items():
        write_bytes(folder / name, data)
    return [folder / name for name in files]
