"""What follows from the shapes that a graph declares, and what stays unknown."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.graph.edit import Operand, emit
from bitfit_export.compiler.graph.shapes import integers_in, known_integers, sizes_of

GRAPH = gs.Graph()


def made(op: str, *inputs: Operand, **attrs: object) -> gs.Variable:
    return emit(GRAPH, op, op, inputs, **attrs)


def shaped(*sizes: Size) -> gs.Variable:
    return gs.Variable("x", np.float32, list(sizes))


@pytest.mark.parametrize(
    ("left", "right", "sizes"),
    [
        (("batch", "sequence", 4), (4, 6), ["batch", "sequence", 6]),
        (("batch", 2, "sequence", 4), ("batch", 2, 4, "sequence"), ["batch", 2, "sequence", "sequence"]),
        ((1, 2, 5, 4), ("batch", 1, 4, 6), ["batch", 2, 5, 6]),
        ((5, 4), ("batch", 4, 6), ["batch", 5, 6]),
        (("rows", 5, 4), ("batch", 4, 6), [None, 5, 6]),
        (("batch", 5, 4), (3, 4, 6), [3, 5, 6]),
        ((4,), (4, 6), None),
    ],
)
def test_the_leading_dimensions_of_a_product_broadcast(
    left: tuple[Size, ...], right: tuple[Size, ...], sizes: list[Size] | None
) -> None:
    assert sizes_of(made("MatMul", shaped(*left), shaped(*right))) == sizes


def test_a_product_with_a_tensor_of_unknown_rank_has_none() -> None:
    assert sizes_of(made("MatMul", gs.Variable("x", np.float32), shaped(4, 6))) is None


@pytest.mark.parametrize(
    ("tensor", "integers"),
    [
        (int64s("sizes", [1, -1]), [1, -1]),
        (made("Shape", shaped("batch", 4)), ["batch", 4]),
        (made("Shape", shaped("batch", 4, 5), start=1, end=2), [4]),
        (made("Concat", made("Shape", shaped("batch")), [4, -1], axis=0), ["batch", 4, -1]),
        (made("Slice", made("Shape", shaped("batch", 4, 5)), [1], [3]), [4, 5]),
        (made("Size", shaped(2, 3)), [6]),
        (made("Size", shaped("batch", 3)), None),
        (made("Sub", 5, 2), [3]),
        (made("Sub", made("Shape", shaped("batch")), [1]), [None]),
        # The axes of a GroupNormalization that the exporter wrote out.
        (made("Range", 1, made("Sub", made("Size", int64s("shape", [7, 7, 7])), 1), 1), [1]),
        (made("Range", 1, gs.Variable("end", np.int64, []), 1), None),
        (gs.Variable("number", np.int64, []), [None]),
    ],
)
def test_integers_are_computed_as_far_as_shapes_are_known(tensor: gs.Tensor, integers: list[Size] | None) -> None:
    assert integers_in(tensor) == integers
    is_known = integers is not None and all(isinstance(each, int) for each in integers)
    assert known_integers(tensor) == (integers if is_known else None)
