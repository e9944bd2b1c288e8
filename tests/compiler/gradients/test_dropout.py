"""Dropout drawn in a graph: the rate, masks that know nothing of each other, and the same ones from the same seed."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from bitfit_export.compiler.gradients.dropout import DROPOUT_SEED, draw_dropout

SIDE = 512
#: Standard deviations that a share or a correlation may be off by; the seeds are fixed.
SIGMAS = 4.0


def run(values: list[np.ndarray], rate: float, seed: int) -> list[np.ndarray]:
    """Each array, dropped by a node of its own."""
    graph = gs.Graph(opset=20, ir_version=10)
    for number, each in enumerate(values):
        x = gs.Variable(f"x{number}", np.float32, [None] * each.ndim)
        y = gs.Variable(f"y{number}", np.float32, [None] * each.ndim)
        settings = [
            gs.Constant(f"rate{number}", np.array(rate, np.float32)),
            gs.Constant(f"on{number}", np.array(True)),
        ]
        graph.nodes.append(gs.Node("Dropout", f"drop{number}", {}, [x, *settings], [y]))
        graph.inputs.append(x)
        graph.outputs.append(y)
    assert draw_dropout(graph) == len(values)
    feeds = {f"x{number}": each for number, each in enumerate(values)} | {DROPOUT_SEED: np.array([seed], np.uint32)}
    session = ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_rate_and_the_expectation_stays(rate: float) -> None:
    (found,) = run([ones(SIDE, SIDE)], rate, 7)
    dropped = found == 0
    deviation = (rate * (1 - rate)) ** 0.5
    assert abs(dropped.mean() - rate) < SIGMAS * deviation / SIDE + 2**-16
    assert np.unique(found).tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-3)
    # The entries of a row, or of a column, do not go together.
    for axis in (0, 1):
        assert dropped.mean(axis).std() == pytest.approx(deviation / SIDE**0.5, rel=0.15)


def test_masks_of_places_nodes_and_seeds_are_independent() -> None:
    one, two = (each == 0 for each in run([ones(SIDE, SIDE)] * 2, 0.3, 0))
    other, _ = (each == 0 for each in run([ones(SIDE, SIDE)] * 2, 0.3, 1))
    neighbours = (one[:, 1:], one[:, :-1])
    rows, halves = (one[1:], one[:-1]), (one[: SIDE // 2], one[SIDE // 2 :])
    for a, b in ((one, two), (one, other), neighbours, rows, halves):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < SIGMAS / a.size**0.5


def test_the_same_seed_draws_the_same_masks() -> None:
    first, second = (run([ones(33, 7), ones(5)], 0.4, 2**32 - 1) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 4), (2, 3, 5)])
def test_every_shape_keeps_its_values_where_nothing_is_dropped(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    (found,) = run([values], 0.25, 3)
    assert found.shape == shape
    np.testing.assert_allclose(found, np.where(found == 0, 0, values / 0.75), rtol=1e-4)


def test_a_rate_of_zero_leaves_nothing_to_draw() -> None:
    x, y = gs.Variable("x", np.float32, [2]), gs.Variable("y", np.float32, [2])
    node = gs.Node("Dropout", "drop", {}, [x, gs.Constant("rate", np.array(0, np.float32))], [y])
    graph = gs.Graph([node], inputs=[x], outputs=[y], opset=20)
    assert draw_dropout(graph) == 0
    assert [each.op for each in graph.nodes] == ["Identity"]
    assert [each.name for each in graph.inputs] == ["x"]
