"""From what napari tells of a stroke to the pixels that changed.

The `paint` event of a Labels layer carries a list of atoms, one for each dab of the brush: a fill
or polygon is one atom, and so is a call of `data_setitem`. An atom of painting says a box, a mask
in it and the values before; one of `data_setitem` says index arrays and the values before and
after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Pixels(NamedTuple):
    """Pixels that changed: index arrays, one an axis, and the values before and after."""

    where: tuple[np.ndarray, ...]
    old: np.ndarray
    new: np.ndarray


def pixels_of(atoms: Iterable[Any], shape: Sequence[int]) -> Pixels:
    """Return the pixels of a stroke, dab by dab, those of several dabs more than once.

    Parameters
    ----------
    atoms
        Value of the layer's `paint` event.
    shape
        Of the layer's data; the indices are along its axes.
    """
    parts = [_painted(atom) if hasattr(atom, "slice_key") else _set(atom, shape) for atom in atoms]
    if not parts:
        return Pixels((np.zeros(0, np.int64),) * len(shape), np.zeros(0, int), np.zeros(0, int))
    where = tuple(
        np.concatenate([part.where[axis] for part in parts]) for axis in range(len(shape))
    )
    old, new = (np.concatenate([part[side] for part in parts]) for side in (1, 2))
    return Pixels(where, old, new)


def source_of(atoms: Iterable[Any], mode: str) -> str:
    """Return what made a stroke, in a word: the layer's mode, or "set" for `data_setitem`."""
    return mode if all(hasattr(atom, "slice_key") for atom in atoms) else "set"


def _painted(atom: Any) -> Pixels:
    corner = [span.start for span in atom.slice_key]
    if atom.mask is None:
        where = np.indices(atom.old_values.shape).reshape(len(corner), -1)
    else:
        where = np.asarray(np.nonzero(atom.mask))
    old = np.ravel(atom.old_values)
    moved = tuple(axis + start for axis, start in zip(where, corner, strict=True))
    return Pixels(moved, old, np.full(old.shape, atom.new_value, np.int64))


def _set(atom: Any, shape: Sequence[int]) -> Pixels:
    indices, old, new = atom
    flat = [np.ravel(np.asarray(axis)) for axis in indices]
    where = tuple(
        np.where(axis < 0, axis + size, axis) for axis, size in zip(flat, shape, strict=True)
    )
    old = np.ravel(old)
    return Pixels(where, old, np.broadcast_to(np.ravel(new), old.shape).astype(np.int64))
