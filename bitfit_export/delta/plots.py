"""Figures as the bytes of a file: the same data give the same bytes, whatever style the user has set."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from bitfit_export.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOT_FORMATS", "render", "require_matplotlib"]

PLOT_FORMATS = ("png", "svg")
# What a file would record about the time and the library, left out: the same figure gives the same bytes.
_NO_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def require_matplotlib() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error


def render(make_figure: Callable[[], Figure], kind: str) -> bytes:
    """The figure that `make_figure` makes, as the bytes of a file.

    Args:
        make_figure: is called with matplotlib's own defaults in force.
        kind: one of `PLOT_FORMATS`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context():
        # The user's own style would change the bytes, and so would the random names inside an SVG.
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "bitfit-export"
        make_figure().savefig(data, format=kind, dpi=150, metadata=_NO_METADATA[kind])
    return data.getvalue()
