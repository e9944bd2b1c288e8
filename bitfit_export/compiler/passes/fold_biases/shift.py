"""What a bias adds to a tensor: a vector, laid over the tensor's axes by strides.

A tensor that a bias reaches is  t = t' + s,  where t' is what it would be without the bias. The shift s repeats the
vector v = W_k^T ... W_1^T b along most axes. It is a strided view of v, as numpy has them: a stride of 0 repeats. Heads
are split off and joined again by Reshape and Transpose, so an axis is a product of finer ones, its atoms, and only
these have strides:

    b_v on [batch, sequence, 8]          (batch: 0) (sequence: 0) (8: 1)
    Reshape to [batch, sequence, 2, 4]   (batch: 0) (sequence: 0) (2: 4) (4: 1)
    Transpose to [batch, 2, sequence, 4] (batch: 0) (2: 4) (sequence: 0) (4: 1)
    Reshape to [-1, sequence, 4]         (batch: 0, 2: 4) (sequence: 0) (4: 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.graph.weights import Weight

__all__ = ["Atom", "Axis", "Shift", "product_of"]


class Atom(NamedTuple):
    """A part of an axis. A stride of 0 says that s is constant along it, None that it varies in an unknown way."""

    size: Size
    stride: int | None


Axis = tuple[Atom, ...]


def product_of(factors: Sequence[Weight]) -> np.ndarray | None:
    """Returns W_k^T @ ... @ W_1^T for weights in the order in which the vector met them; None is the identity."""
    if not factors:
        return None
    product = factors[0].values.T
    for factor in factors[1:]:
        product = factor.values.T.astype(np.float64) @ product
    return product


@dataclass(frozen=True)
class Shift:
    """A strided view of v, `product_of(factors)` @ bias, with one entry of `axes` for each axis of the tensor.

    Atoms of size 1 are left out: an axis of size 1 is the empty tuple.
    """

    axes: tuple[Axis, ...]
    factors: tuple[Weight, ...] = ()

    @staticmethod
    def of_vector(size: int) -> Shift:
        """The bias itself, [size]."""
        return Shift((_axis(size, 1),))

    @property
    def rank(self) -> int:
        return len(self.axes)

    def constant_along(self, axis: int) -> bool:
        """Returns whether s has the same value everywhere along an axis."""
        return _constant(self.axes[axis])

    def is_vector(self, size: int) -> bool:
        """Returns whether s is v, of this size, along the last axis, and constant along all others."""
        if not all(self.constant_along(axis) for axis in range(self.rank - 1)):
            return False
        covered = 1
        for atom in reversed(self.axes[-1]):
            if atom.stride != covered or not isinstance(atom.size, int):
                return False
            covered *= atom.size
        return covered == size

    def blurred(self) -> Shift:
        """s with its values forgotten; where it is constant is still known."""
        axes = (tuple(Atom(a.size, 0 if a.stride == 0 else None) for a in axis) for axis in self.axes)
        return replace(self, axes=tuple(axes))

    def times(self, weight: Weight) -> Shift:
        """Returns the shift after a product of the last axis with a weight: v becomes W^T v."""
        return Shift((*self.axes[:-1], _axis(weight.shape[1], 1)), (*self.factors, weight))

    def transposed(self, perm: Sequence[int]) -> Shift:
        return replace(self, axes=tuple(self.axes[axis] for axis in perm))

    def without_axis(self, axis: int) -> Shift:
        """After one index was taken from an axis."""
        axis %= self.rank
        return replace(self, axes=self.axes[:axis] + self.axes[axis + 1 :])

    def with_axis(self, axis: int) -> Shift:
        """With a new axis of size 1."""
        axis %= self.rank + 1
        return replace(self, axes=(*self.axes[:axis], (), *self.axes[axis:]))

    def resized(self, axis: int, size: Size) -> Shift:
        """With another size of an axis along which s is constant."""
        axes = list(self.axes)
        axes[axis] = _axis(size, 0)
        return replace(self, axes=tuple(axes))

    def broadcast(self, sizes: Sequence[Size]) -> Shift:
        """s on a tensor that it is added to, or on the sum with a tensor, of these sizes."""
        axes = ((),) * (len(sizes) - self.rank) + self.axes
        first = len(axes) - len(sizes)
        widened = [axis or _axis(size, 0) for axis, size in zip(axes[first:], sizes, strict=True)]
        return replace(self, axes=(*axes[:first], *widened))

    def reshaped(self, sizes: Sequence[Size]) -> Shift | None:
        """After a Reshape to these sizes, None for unknown ones; None where the atoms don't fit them."""
        atoms = [atom for axis in self.axes for atom in axis]
        axes = _cut(list(atoms), sizes)
        if axes is None:
            axes = _cut_behind_constants(atoms, sizes)
        return None if axes is None else replace(self, axes=tuple(axes))


def _cut(atoms: list[Atom], sizes: Sequence[Size]) -> list[Axis] | None:
    """Cut a row of atoms into axes of these sizes, of which one may be unknown."""
    if list(sizes).count(None) > 1:
        return None
    split = list(sizes).index(None) if None in sizes else len(sizes)
    front = [_take(atoms, size, first=True) for size in sizes[:split]]
    back = [_take(atoms, size, first=False) for size in reversed(sizes[split + 1 :])]
    rest = [tuple(atoms)] if split < len(sizes) else []
    axes = [axis for axis in (*front, *rest, *reversed(back)) if axis is not None]
    return axes if len(axes) == len(sizes) and (rest or not atoms) else None


def _cut_behind_constants(atoms: list[Atom], sizes: Sequence[Size]) -> list[Axis] | None:
    """Cut axes off the end until s is constant along all that is left: that may be arranged in any way."""
    left, back = list(sizes), list[Axis]()
    while left and not _constant(atoms):
        axis = None if left[-1] is None else _take(atoms, left.pop(), first=False)
        if axis is None:
            return None
        back.insert(0, axis)
    return [*(_axis(size, 0) for size in left), *back] if _constant(atoms) else None


def _constant(atoms: Sequence[Atom]) -> bool:
    return all(atom.stride == 0 for atom in atoms)


def _axis(size: Size, stride: int) -> Axis:
    return () if size == 1 else (Atom(size, stride),)


def _take(atoms: list[Atom], size: Size, *, first: bool) -> Axis | None:
    """Take atoms of a product of `size` off the front or the back of a list, splitting one where needed."""
    if isinstance(size, str):
        # A symbol is never a product here: sizes that the graph computes from several are unknown.
        if not atoms or atoms[0 if first else -1].size != size:
            return None
        return (atoms.pop(0 if first else -1),)
    taken: list[Atom] = []
    left = size or 0
    while left > 1:
        atom = atoms.pop(0 if first else -1) if atoms else Atom(None, None)
        if not isinstance(atom.size, int):
            return None
        if left % atom.size == 0:
            left //= atom.size
            taken.append(atom)
        elif atom.size % left == 0:
            outer, inner = _split(atom, left if first else atom.size // left)
            taken.append(outer if first else inner)
            atoms.insert(0 if first else len(atoms), inner if first else outer)
            left = 1
        else:
            return None
    return None if left < 1 else tuple(taken if first else reversed(taken))


def _split(atom: Atom, outer: int) -> tuple[Atom, Atom]:
    """An atom as `outer` runs of the rest."""
    assert isinstance(atom.size, int)
    run = atom.size // outer
    return Atom(outer, None if atom.stride is None else atom.stride * run), Atom(run, atom.stride)
