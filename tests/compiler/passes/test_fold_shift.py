"""A shift is a strided view of a vector, and views of it follow numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.passes.fold_biases.shift import Atom, Shift


def materialised(shift: Shift, shape: tuple[int, ...]) -> np.ndarray:
    """Which entry of the vector each element of a tensor of this shape gets, from the shift's strides alone."""
    atoms = []
    for axis, size in zip(shift.axes, shape, strict=True):
        known = math.prod(atom.size for atom in axis if atom.size is not None)
        atoms += [Atom(size // known, atom.stride) if atom.size is None else atom for atom in axis]
    total = np.zeros([atom.size for atom in atoms], np.int64)
    for position, atom in enumerate(atoms):
        steps = np.arange(atom.size) * atom.stride
        total += steps.reshape([-1 if each == position else 1 for each in range(len(atoms))])
    return total.reshape(shape)


def shift_on(shape: tuple[int, ...]) -> Shift:
    """A bias as it is added to a tensor of this shape."""
    return Shift.of_vector(shape[-1]).broadcast(shape)


@st.composite
def factorisations(draw: st.DrawFn, size: int) -> list[int]:
    """Sizes with a given product."""
    sizes = []
    while size > 1:
        factor = draw(st.sampled_from([each for each in range(2, size + 1) if size % each == 0]))
        sizes.append(factor)
        size //= factor
    return sizes or [1]


@given(st.data())
def test_reshapes_and_transposes_follow_numpy(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3)))
    shift = shift_on(shape)
    array = np.broadcast_to(np.arange(shape[-1]), shape)
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            perm = data.draw(st.permutations(range(array.ndim)))
            shift, array = shift.transposed(perm), array.transpose(perm)
        else:
            sizes = data.draw(factorisations(array.size))
            asked: list[Size] = list(sizes)
            if data.draw(st.booleans()):
                asked[data.draw(st.integers(0, len(sizes) - 1))] = None
            reshaped = shift.reshaped(asked)
            if reshaped is None:
                return
            shift, array = reshaped, array.reshape(sizes)
        assert np.array_equal(materialised(shift, array.shape), array)
        assert all(not shift.constant_along(axis) or np.all(np.ptp(array, axis) == 0) for axis in range(array.ndim))


@given(st.data())
def test_a_reshape_with_every_size_known_is_never_refused_while_atoms_divide(data: st.DataObject) -> None:
    batch, heads, size = (data.draw(st.sampled_from([1, 2, 3, 5])) for _ in range(3))
    split = shift_on((batch, 7, heads * size)).reshaped([batch, 7, heads, size])
    assert split is not None
    joined = split.transposed([0, 2, 1, 3]).transposed([0, 2, 1, 3]).reshaped([batch, 7, heads * size])
    assert joined is not None
    assert joined.is_vector(heads * size)


def test_heads_that_share_an_axis_with_the_batch_come_apart_again() -> None:
    split = Shift.of_vector(8).broadcast(["batch", "sequence", 8]).reshaped(["batch", "sequence", 2, 4])
    assert split is not None
    flat = split.transposed([0, 2, 1, 3]).reshaped([None, "sequence", 4])
    assert flat is not None
    assert flat.axes == ((Atom("batch", 0), Atom(2, 4)), (Atom("sequence", 0),), (Atom(4, 1),))
    assert not flat.constant_along(0)
    again = flat.reshaped([None, 2, "sequence", 4])
    assert again is not None
    assert again.transposed([0, 2, 1, 3]).reshaped(["batch", "sequence", None]) == Shift.of_vector(8).broadcast(
        ["batch", "sequence", 8]
    ).reshaped(["batch", "sequence", 2, 4]).reshaped(["batch", "sequence", None])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "sizes",
    [
        ["sequence", "batch", 2, 4],
        ["batch", None, None, 4],
        ["batch", "sequence", 3, None],
        [None, 5],
        ["other", 4],
        [4],
    ],
)
def test_a_reshape_that_can_not_be_followed_is_refused(sizes: list[Size]) -> None:
    flat = Shift.of_vector(8).broadcast(["batch", "sequence", 8]).reshaped(["batch", "sequence", 2, 4])
    assert flat is not None
    mixed = flat.transposed([2, 0, 1, 3])  # heads first: nothing in front of them is constant
    assert mixed.reshaped(sizes) is None


def test_a_vector_is_one_along_the_last_axis_only() -> None:
    shift = Shift.of_vector(6).broadcast(["batch", 6])
    assert shift.is_vector(6)
    assert not shift.is_vector(5)
    assert not shift.transposed([1, 0]).is_vector(6)
    assert not shift.blurred().is_vector(6)
    halves = Shift.of_vector(6).reshaped([2, 3])
    assert halves is not None
    assert not halves.is_vector(3)  # each half of the vector has its own place on the first axis
    mixed = halves.transposed([1, 0]).reshaped([6])
    assert mixed is not None
    assert not mixed.is_vector(6)


def test_blurring_forgets_values_and_keeps_what_is_constant() -> None:
    blurred = Shift.of_vector(6).broadcast(["batch", 6]).blurred()
    assert blurred.constant_along(0)
    assert not blurred.constant_along(1)
