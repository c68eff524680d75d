"""How labels lie on their image: the order of their axes, their shape, their transform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.file_axes import file_of

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unet.core.annotations.edits import Box
    from napari_unet.core.io.stack import Stack


@dataclass(frozen=True)
class Placement:
    """How the axes of a labels layer follow from those of its image.

    The layer has the image's axes in the image's order: napari aligns layers by their last axes. A
    channel axis in front is dropped. One further in stays, with the length 1 and a scale as long as
    all channels together, so that the labels show in every channel.

    Attributes
    ----------
    axes, sizes
        The image's axes, such as "TCZYX", and their lengths.
    labels_axes
        Those of the labels in the order T, Z, Y, X.
    """

    axes: str
    labels_axes: str
    sizes: tuple[int, ...]

    @property
    def dropped(self) -> int:
        """How many of the image's axes the labels lack, in front."""
        return int(self.axes.startswith("C"))

    @property
    def shown(self) -> str:
        """The axes of the layer."""
        return self.axes[self.dropped :]

    def to_layer(self, array: np.ndarray) -> np.ndarray:
        """Return labels in the order T, Z, Y, X as a view in the layer's order."""
        order = [self.labels_axes.index(letter) for letter in self.shown if letter != "C"]
        view = array.transpose(order)
        return view if "C" not in self.shown else np.expand_dims(view, self.shown.index("C"))

    def from_layer(self, data: np.ndarray) -> np.ndarray:
        """Return the layer's data as a view in the order T, Z, Y, X."""
        letters = self.shown
        if "C" in letters:
            data = data.squeeze(letters.index("C"))
            letters = letters.replace("C", "")
        return data.transpose([letters.index(letter) for letter in self.labels_axes])

    def at(self, index: tuple[int, ...], window: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return a window of a frame as slices of the layer's data."""
        parts = [slice(i, i + 1) for i in index] + list(window)
        found = dict(zip(self.labels_axes, parts, strict=True))
        return tuple(found.get(letter, slice(0, 1)) for letter in self.shown)

    def geometry(self, image: Image) -> dict[str, Any]:
        """Return the layer's scale, translation and so on, as arguments of `add_labels`."""
        first = self.dropped
        scale, translate = np.array(image.scale[first:]), np.array(image.translate[first:])
        if "C" in self.shown:
            at = self.shown.index("C")
            count = self.sizes[first + at]
            translate[at] += scale[at] * (count - 1) / 2
            scale[at] *= count
        matrix = np.asarray(image.affine.affine_matrix)
        return {
            "scale": scale,
            "translate": translate,
            "rotate": np.asarray(image.rotate)[first:, first:],
            "shear": _without_first(np.asarray(image.shear), image.ndim, first),
            "affine": np.delete(np.delete(matrix, slice(0, first), 0), slice(0, first), 1),
            "units": tuple(image.units[first:]),
            "axis_labels": tuple(image.axis_labels[first:]),
        }


@dataclass(frozen=True, eq=False)
class LabelGeometry:
    """An image, and how labels of it lie in their layer.

    Attributes
    ----------
    stack
        The image; with its file's path, if the layer was read from one.
    placement
        From the layer's axes to T, Z, Y, X, the order of the journal.
    """

    stack: Stack
    placement: Placement

    @property
    def order(self) -> list[int]:
        """The layer's axis for each of T, Z, Y, X."""
        return [self.placement.shown.index(letter) for letter in self.placement.labels_axes]

    def array(self, data: Any) -> Any:
        """Return a layer's data in the order T, Z, Y, X, without a copy.

        Raises
        ------
        InputError
            The axes have another order, and the data are no numpy array.
        """
        if self.order == list(range(len(data.shape))):
            return data
        if not isinstance(data, np.ndarray):
            raise InputError(
                f"The labels' axes are {self.placement.shown}, not {self.placement.labels_axes}, "
                "and they do not lie in memory; convert them to a plain array to record "
                "corrections."
            )
        return self.placement.from_layer(data)

    def to_journal(self, where: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Turn index arrays of the layer into those of the journal."""
        return tuple(where[axis] for axis in self.order)

    def to_layer(self, where: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Turn index arrays of the journal into those of the layer."""
        found = dict(zip(self.placement.labels_axes, where, strict=True))
        nothing = np.zeros_like(where[0])
        return tuple(found.get(letter, nothing) for letter in self.placement.shown)

    def place(self, box: Box) -> tuple[slice, ...]:
        """Return a box of the journal's labels as slices of the layer's data."""
        return self.placement.at((), tuple(slice(start, stop) for start, stop in box))

    def plane(self, point: np.ndarray) -> tuple[int, ...]:
        """Return the index of the plane (Y, X) at a point in the layer's data coordinates."""
        sizes = dict(zip(self.placement.axes, self.placement.sizes, strict=True))
        here = dict(zip(self.placement.shown, point, strict=True))
        return tuple(
            int(np.clip(np.round(here[letter]), 0, sizes[letter] - 1))
            for letter in self.placement.labels_axes[:-2]
        )


def get_label_geometry(image: Image) -> LabelGeometry:
    """Return the geometry of new labels for an image.

    Raises
    ------
    InputError
        The image cannot be used.
    """
    axes, stack = layer_axes(image), layer_stack(image)
    path = file_of(image)
    if path is not None and Path(path).exists():
        stack = replace(stack, path=Path(path))
    sizes = tuple(int(n) for n in full_resolution(image).shape[: len(axes)])
    return LabelGeometry(stack, Placement(axes, stack.labels_axes, sizes))


def find_label_geometry(image: Image, labels: Labels) -> LabelGeometry:
    """Return the geometry of existing labels, also of those from another program.

    Raises
    ------
    InputError
        The labels do not fit the image, or one of them cannot be used.
    """
    geometry = get_label_geometry(image)
    placement = geometry.placement
    if "C" in placement.shown and labels.ndim < len(placement.shown):
        pairs = zip(placement.axes, placement.sizes, strict=True)
        sizes = tuple(size for letter, size in pairs if letter != "C")
        placement = replace(placement, axes=placement.axes.replace("C", ""), sizes=sizes)
    pairs = zip(placement.axes, placement.sizes, strict=True)
    wanted = tuple(1 if letter == "C" else size for letter, size in pairs)[placement.dropped :]
    shape = tuple(int(n) for n in full_resolution(labels).shape)
    if labels.multiscale:
        raise InputError(
            f"The labels {labels.name!r} have several resolutions, as large results on the disk "
            "do: they can be looked at and measured, but not edited. Choose others."
        )
    if shape != wanted:
        raise InputError(
            f"The labels {labels.name!r} are {_size(shape)}, the image {image.name!r} needs "
            f"{_size(wanted)}; choose the image that they belong to."
        )
    return replace(geometry, placement=placement)


def fits(image: Image, labels: Labels) -> bool:
    """Return whether labels can belong to an image."""
    try:
        find_label_geometry(image, labels)
    except InputError:
        return False
    return True


def _without_first(shear: np.ndarray, ndim: int, first: int) -> np.ndarray:
    """Drop the first axes from a shear given as the upper triangle of a matrix, row by row."""
    if not first:
        return shear
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = shear
    kept = matrix[first:, first:]
    return kept[np.triu_indices(ndim - first, 1)]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
