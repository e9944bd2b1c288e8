"""The heat map of a delta: each change in its row and column, in a file that is the same every time."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.cli import main
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.delta.change_plot import OUTSIDE, change_grid, draw_change, mean_absolute_change
from bitfit_export.errors import DeltaError, MissingExtraError


def delta_of(changes: dict[str, list[float]]) -> TaskDelta:
    """A delta with these changes and a head of zeros."""
    config = DeltaConfig(
        base_model="some-model",
        base_revision=None,
        base_digest="0" * 64,
        task="rte",
        problem_type="regression",
        labels=(),
        bias_terms=tuple(changes),
        method="bitfit",
        pooling="cls",
        max_length=8,
    )
    head = {"classifier.weight": np.zeros((1, 4), np.float32), "classifier.bias": np.zeros(1, np.float32)}
    return TaskDelta(config, {name: np.array(value, np.float32) for name, value in changes.items()}, head)


BERT = {
    "embeddings.LayerNorm.bias": [0.5, -0.5],
    "encoder.layer.0.attention.self.query.bias": [1.0, -3.0],
    "encoder.layer.0.output.dense.bias": [0.0, 0.5],
    "encoder.layer.1.attention.self.query.bias": [4.0, -4.0],
    "pooler.dense.bias": [0.0, -1.0],
}


def test_the_measure_is_the_mean_of_the_absolute_differences() -> None:
    assert mean_absolute_change(delta_of(BERT)) == dict(zip(BERT, (0.5, 2.0, 0.25, 4.0, 0.5), strict=True))


def test_rows_are_terms_and_columns_are_layers() -> None:
    grid = change_grid(delta_of(BERT))
    assert grid.columns == (OUTSIDE, "0", "1")
    assert grid.rows == ("embeddings.LayerNorm", "attention.self.query", "output.dense", "pooler.dense")
    nan = np.nan
    expected = [[0.5, nan, nan], [nan, 2.0, 4.0], [nan, 0.25, nan], [0.5, nan, nan]]
    np.testing.assert_array_equal(grid.values, expected)


def test_layers_are_ordered_by_number_and_need_no_column_outside() -> None:
    grid = change_grid(delta_of({f"h.{layer}.ln_1.bias": [float(layer)] for layer in (10, 2, 9)}))
    assert (grid.rows, grid.columns) == (("ln_1",), ("2", "9", "10"))
    assert grid.values.tolist() == [[2.0, 9.0, 10.0]]


def test_two_stacks_of_layers_share_no_row() -> None:
    """wav2vec2 has convolutions and transformer layers, both numbered from 0, both with a layer_norm."""
    grid = change_grid(delta_of({"convs.0.layer_norm.bias": [1.0], "encoder.layers.0.layer_norm.bias": [2.0]}))
    assert grid.rows == ("convs.*.layer_norm", "encoder.layers.*.layer_norm")
    assert grid.values.tolist() == [[1.0], [2.0]]


def brightest_column(png: bytes) -> float:
    """Where the pixels in the colour of the largest change are, from 0 at the left to 1 at the right."""
    from matplotlib.image import imread

    pixels = np.round(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)
    colour_of_largest = (253, 231, 36)  # the last of matplotlib's viridis
    places = np.nonzero((pixels == colour_of_largest).all(-1))[1] / pixels.shape[1]
    return float(np.median(places))


def test_the_largest_change_is_the_brightest_cell() -> None:
    pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    query = "encoder.layer.{}.attention.self.query.bias".format
    first = draw_change(delta_of({query(0): [9.0], query(1): [1.0], query(2): [1.0]}), "png")
    last = draw_change(delta_of({query(0): [1.0], query(1): [1.0], query(2): [9.0]}), "png")
    assert brightest_column(first) < brightest_column(last) - 0.1


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_delta_gives_the_same_bytes_whatever_the_users_style_is(kind: str) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    drawn = draw_change(delta_of(BERT), kind)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        assert draw_change(delta_of(BERT), kind) == drawn
        assert matplotlib.rcParams["font.size"] == 30
    assert draw_change(delta_of(BERT | {"pooler.dense.bias": [0.0, -2.0]}), kind) != drawn


def test_a_delta_that_changed_nothing_is_drawn_and_one_without_bias_terms_is_not() -> None:
    pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    assert draw_change(delta_of({"h.0.ln_1.bias": [0.0]}), "svg").startswith(b"<?xml")
    with pytest.raises(DeltaError, match="no bias terms"):
        draw_change(delta_of({}), "svg")


def test_matplotlib_that_is_not_installed_is_an_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"needs the package matplotlib[\s\S]*bitfit-export\[plot\]"):
        draw_change(delta_of(BERT), "png")


@pytest.fixture
def delta_folder(tmp_path: Path) -> Path:
    delta_of(BERT).save(tmp_path / "rte", card="# card\n")
    return tmp_path / "rte"


@pytest.mark.parametrize(("name", "start"), [("rte.png", b"\x89PNG\r\n"), ("RTE.SVG", b"<?xml")])
def test_inspect_writes_the_plot_beside_what_it_says(
    capsys: pytest.CaptureFixture[str], delta_folder: Path, name: str, start: bytes
) -> None:
    pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    plot = delta_folder.parent / name
    assert main(["inspect", str(delta_folder), "--plot", str(plot)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("kind: task delta")
    assert captured.err == f"wrote {plot}\n"
    assert plot.read_bytes().startswith(start)


def test_an_existing_plot_is_replaced_only_when_asked_for(
    capsys: pytest.CaptureFixture[str], delta_folder: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    plot = delta_folder.parent / "rte.png"
    plot.write_text("precious")
    assert main(["inspect", str(delta_folder), "--plot", str(plot)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert plot.read_text() == "precious"
    assert main(["inspect", str(delta_folder), "--plot", str(plot), "--overwrite"]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "plot", "message"),
    [
        ("rte", "rte.pdf", "ends with '.pdf', expected .png or .svg"),
        ("rte", "rte", "ends with '', expected .png or .svg"),
        ("rte", "nowhere/rte.png", "nowhere/rte.png could not be written: No such file"),
        ("rte", "rte/rte.png", "rte/rte.png is inside"),
        (".", "rte.png", "only a delta can be plotted"),
    ],
)
def test_a_plot_that_cannot_be_is_refused_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    delta_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    plot: str,
    message: str,
) -> None:
    pytest.importorskip("matplotlib", reason="needs bitfit-export[plot]")
    monkeypatch.chdir(delta_folder.parent)
    assert main(["inspect", path, "--plot", plot]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert [each.name for each in Path().iterdir()] == ["rte"]
