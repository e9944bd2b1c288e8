"""The figure of docs/performance.md: BERT-base on one thread, time by the fastest baseline's at each shape."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from contenders import MIXED, PACKED, TABLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from targets import find, shapes_of

__all__ = ["FORMATS", "draw_panels", "draw_speed"]

FORMATS = ("png", "svg")
_RESULT = "speed-bert-base-1"
_PRECISIONS = ("fp32", "int8")
_BARS = {TABLE: "#0072b2", MIXED: "#56b4e9", PACKED: "#e69f00", "OpenVINO: portable bundle": "#999999"}
_BAR_WIDTH = 0.2
# Left out, so that the same results give the same bytes.
_NO_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw_speed(results: Mapping[str, Any], kind: str) -> bytes | None:
    """The figure as the bytes of a file; None where BERT-base was not measured.

    Args:
        kind: one of `FORMATS`.
    """
    found = {each: shapes_of(results.get(_RESULT, {}), each) for each in _PRECISIONS}
    panels = {precision: shapes for precision, shapes in found.items() if shapes}
    if not panels:
        return None
    data = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "bitfit-export"
        figure = draw_panels(panels)
        figure.savefig(data, format=kind, dpi=120, metadata=_NO_METADATA[kind])
    return data.getvalue()


def draw_panels(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel for each precision, and below them one legend, where it hides no bar."""
    figure = Figure(figsize=(9, 3.1 * len(panels) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for one, (precision, shapes) in zip(axes, panels.items(), strict=True):
        _draw_panel(one, precision, shapes)
    named = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), fontsize=8, ncols=3, loc="outside lower center")
    return figure


def _draw_panel(axes: Axes, precision: str, shapes: Mapping[str, Any]) -> None:
    for number, (name, colour) in enumerate(_BARS.items()):
        offset = (number - (len(_BARS) - 1) / 2) * _BAR_WIDTH
        ratios = {place: find(shape, ("contenders", name, "ratio")) for place, shape in enumerate(shapes.values())}
        bars = {place: ratio for place, ratio in ratios.items() if ratio is not None}
        places = [place + offset for place in bars]
        axes.bar(places, list(bars.values()), _BAR_WIDTH, color=colour, label=name)
    axes.axhline(1.0, color="black", linewidth=1, label="fastest baseline of the same precision")
    axes.set_xticks(range(len(shapes)), list(shapes))
    axes.set_title(f"BERT-base, {precision}, one thread")
    axes.set_ylabel("time / baseline")
