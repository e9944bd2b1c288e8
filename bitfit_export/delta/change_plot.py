"""How much each bias term changed, as numbers and as the heat map of the BitFit paper's figure 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitfit_export.delta import TaskDelta
from bitfit_export.delta.plots import PLOT_FORMATS, render
from bitfit_export.errors import DeltaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PLOT_FORMATS",
    "ChangeGrid",
    "change_grid",
    "draw_change",
    "draw_grid",
    "lay_out",
    "mean_absolute_change",
]

#: The column of the terms that belong to no numbered layer, such as the embeddings' and the pooler's.
OUTSIDE = "outside"

_INCHES_A_COLUMN, _INCHES_A_ROW = 0.42, 0.3


@dataclass(frozen=True)
class ChangeGrid:
    """The changes of a delta's bias terms, laid out by layer.

    Attributes:
        rows: what a term is called within its layer, in the model's order.
        columns: `OUTSIDE` where a term is outside the layers, then the numbers of the layers.
        values: float64 [rows, columns], NaN where the delta has no such term.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray


def mean_absolute_change(delta: TaskDelta) -> dict[str, float]:
    """Bias term -> 1/dim(b) * |b_0 - b_F|_1, the paper's measure (section 4), in the model's order."""
    return {name: float(np.abs(delta.biases[name]).mean()) for name in delta.config.bias_terms}


def change_grid(delta: TaskDelta) -> ChangeGrid:
    """Lay a delta's changes out: a row for each kind of term, a column for each layer."""
    return lay_out(mean_absolute_change(delta))


def lay_out(changes: Mapping[str, float]) -> ChangeGrid:
    """Lay out what `mean_absolute_change` gives, or means of it."""
    places = {name: _split(name) for name in changes}
    stacks = {stack for stack, layer, _ in places.values() if layer is not None}
    layers = sorted({layer for _, layer, _ in places.values() if layer is not None})
    outside = any(layer is None for _, layer, _ in places.values())
    columns = ([OUTSIDE] if outside else []) + [str(layer) for layer in layers]

    def row_name(name: str) -> str:
        stack, layer, term = places[name]
        # wav2vec2 has two stacks of layers; their terms must not share a row.
        return f"{stack}.*.{term}" if layer is not None and len(stacks) > 1 else term

    rows = list(dict.fromkeys(row_name(name) for name in places))
    values = np.full((len(rows), len(columns)), np.nan)
    for name, change in changes.items():
        layer = places[name][1]
        values[rows.index(row_name(name)), columns.index(OUTSIDE if layer is None else str(layer))] = change
    return ChangeGrid(tuple(rows), tuple(columns), values)


def draw_change(delta: TaskDelta, kind: str) -> bytes:
    """The heat map of `change_grid` as the bytes of a file; the same delta gives the same bytes.

    Args:
        kind: one of `PLOT_FORMATS`.

    Raises:
        DeltaError: the delta has no bias terms.
        MissingExtraError: matplotlib is not installed.
    """
    if not delta.biases:
        raise DeltaError(f"the delta {delta.config.task} has a head and no bias terms, so there is no change to draw")
    return draw_grid(change_grid(delta), f"{delta.config.task} on {delta.config.base_model}", kind)


def draw_grid(grid: ChangeGrid, title: str, kind: str) -> bytes:
    """The heat map of a grid as the bytes of a file; see `render`."""
    return render(lambda: _figure(grid, title), kind)


def _split(name: str) -> tuple[str, int | None, str]:
    """(stack, layer, term): `encoder.layer.3.output.dense.bias` is ("encoder.layer", 3, "output.dense")."""
    components = name.removesuffix(".bias").split(".")
    for place, component in enumerate(components):
        if component.isdecimal():
            return ".".join(components[:place]), int(component), ".".join(components[place + 1 :])
    return "", None, ".".join(components)


def _figure(grid: ChangeGrid, title: str) -> Figure:
    # Figure alone, without pyplot: no window system, no figure that stays open.
    from matplotlib.figure import Figure

    width = 4.5 + _INCHES_A_COLUMN * len(grid.columns)
    figure = Figure(figsize=(width, 1.3 + _INCHES_A_ROW * len(grid.rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.9")
    image = axes.imshow(grid.values, aspect="auto", cmap="viridis", vmin=0.0)
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.tick_params(length=0)
    axes.set_xlabel("layer")
    axes.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axes, label="mean absolute change")
    return figure
