"""The Labels layer that a run fills: where it lies, what it is called, whether it was edited."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE
from napari_unet.core.io.ome_zarr import containing_ome_zarr, zarr_path
from napari_unet.core.io.provenance import read_provenance
from napari_unet.gui.layers.live_labels import LIVE_DTYPE

if TYPE_CHECKING:
    from napari.layers import Image, Labels

RESULT_KEY = "napari-unet"
"""Under this name in the layer's metadata: name, fingerprint, and the provenance of its runs."""
IMAGE = "image"
"""Under `RESULT_KEY`: the id of the image layer that the labels belong to."""

_ALL_BYTES = 1 << 30


@dataclass(frozen=True)
class Placement:
    """How labels, in the order T, Z, Y, X, lie in the layer that shows them over an image.

    The layer has the image's axes in the image's order, so that napari lines both up. A channel
    axis in front is dropped. One further in stays, with the length 1 and a step as long as all
    channels together: the labels show in every channel.
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
        """Return a view of the labels in the layer's order."""
        order = [self.labels_axes.index(letter) for letter in self.shown if letter != "C"]
        view = array.transpose(order)
        return view if "C" not in self.shown else np.expand_dims(view, self.shown.index("C"))

    def from_layer(self, data: np.ndarray) -> np.ndarray:
        """Return a view of the layer's data in the order T, Z, Y, X."""
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
        """Return the layer's place in the world, as arguments of `add_labels`."""
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


def _without_first(shear: np.ndarray, ndim: int, first: int) -> np.ndarray:
    """Drop the first axes from a shear given as the upper triangle of a matrix, row by row."""
    if not first:
        return shear
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = shear
    kept = matrix[first:, first:]
    return kept[np.triu_indices(ndim - first, 1)]


def fingerprint(data: np.ndarray) -> int:
    """Return a checksum by which a changed array is known.

    Arrays of more than 1 GiB are sampled, plane by plane at equal distances.
    """
    if data.nbytes > _ALL_BYTES and data.ndim > 2:
        planes = data.reshape(-1, *data.shape[-2:])
        step = -(-data.nbytes // _ALL_BYTES)
        data = planes[::step]
    check = 0
    for part in data if data.ndim > 2 else (data,):
        check = zlib.crc32(np.ascontiguousarray(part).data, check)
    return check


def get_provenance(layer: Labels) -> dict[str, Any] | None:
    """Return how a layer's labels were made; None if nobody knows.

    The run that made them here says so, else the file that the layer was opened from or made of.
    """
    mark: dict[str, Any] = layer.metadata.get(RESULT_KEY, {})
    if (known := mark.get("passport")) is not None:
        found: dict[str, Any] = known
        return found
    array = zarr_path(layer.data[0] if layer.multiscale else layer.data)
    with suppress(InputError, *UNREADABLE):
        path = layer.source.path if array is None else containing_ome_zarr(array)
        if path is not None and not mark:
            return read_provenance(path)
    return None


def is_unedited(layer: Labels, data_shape: tuple[int, ...]) -> bool:
    """Tell whether a layer still is what the last run left, name included."""
    mark = layer.metadata.get(RESULT_KEY, {})
    if mark.get("name") != layer.name or not isinstance(layer.data, np.ndarray):
        return False
    if layer.data.shape != data_shape or layer.data.dtype.kind != "u":
        return False
    return bool(mark.get("running") or mark.get("fingerprint") == fingerprint(layer.data))


def previous_result(viewer: Any, base: str, data_shape: tuple[int, ...]) -> Labels | None:
    """Find the layer that a new run may write into: an earlier result, unedited, not renamed."""
    for layer in reversed(list(viewer.layers)):
        mark = layer.metadata.get(RESULT_KEY, {})
        if mark.get("base") == base and is_unedited(layer, data_shape):
            found: Labels = layer
            return found
    return None


def open_result(
    viewer: Any, image: Image, model_name: str, placement: Placement, labels_shape: tuple[int, ...]
) -> tuple[Labels, np.ndarray, bool]:
    """Return the layer to fill, its array in the order T, Z, Y, X, and whether the layer is new.

    The layer cannot be edited until `seal_result`, for the run would write over the edits.

    Raises
    ------
    InputError
        The labels do not fit into memory.
    """
    base = f"{image.name} {model_name}"
    try:
        fresh = np.zeros(labels_shape, LIVE_DTYPE)  # memory is taken page by page, when written
    except (MemoryError, ValueError) as error:
        size = " x ".join(map(str, labels_shape))
        raise InputError(
            f"Labels of {size} pixels do not fit into memory; run `napari-unet segment` in a "
            "terminal, which writes them to a file."
        ) from error
    shown = placement.to_layer(fresh)
    layer = previous_result(viewer, base, shown.shape)
    if layer is None:
        mark = {"base": base, IMAGE: str(image.unique_id), "runs": [], "running": True}
        layer = viewer.add_labels(
            shown, name=base, metadata={RESULT_KEY: mark}, **placement.geometry(image)
        )
        layer.metadata[RESULT_KEY]["name"] = layer.name  # the viewer may have added a number
        layer.editable = False
        return layer, fresh, True
    layer.metadata[RESULT_KEY].update({"running": True, IMAGE: str(image.unique_id)})
    layer.editable = False  # forgets the history of undone edits, too
    for name, value in placement.geometry(image).items():
        setattr(layer, name, value)
    return layer, placement.from_layer(layer.data), False


def seal_result(layer: Labels, provenance: dict[str, Any] | None, whole: bool) -> None:
    """Make the layer the user's: editable, with the provenance of the run in its metadata.

    Parameters
    ----------
    provenance
        None if the run did not come to its end.
    whole
        The run covered the whole stack, so that nothing of earlier runs is left.
    """
    mark = layer.metadata.setdefault(RESULT_KEY, {})
    mark.pop("running", None)
    mark["fingerprint"] = fingerprint(layer.data)
    if provenance is not None:
        earlier = [] if whole else mark.get("runs", [])
        mark["runs"] = [*earlier, provenance]
        mark["passport"] = provenance
    layer.editable = True
    layer.refresh()


def draw_part(viewer: Any, layer: Labels, place: tuple[slice, ...]) -> bool:
    """Draw one part of a layer, as little of it as possible; return whether that was possible.

    A part that is not in the plane on view needs no drawing.
    """
    shown = list(viewer.dims.displayed)
    first = viewer.dims.ndim - layer.ndim
    if len(shown) != 2 or layer.data.dtype.itemsize > 2 or layer.contour:
        return False
    axes = [axis - first for axis in shown]
    if min(axes) < 0 or axes != [layer.ndim - 2, layer.ndim - 1] or not layer.visible:
        return not layer.visible
    here = np.round(layer.world_to_data(viewer.dims.point)).astype(int)
    for axis in range(layer.ndim - 2):
        if not place[axis].start <= here[axis] < place[axis].stop:
            return True
    plane = layer.data[tuple(int(i) for i in here[:-2])]
    part = plane[place[-2:]]
    layer.events.labels_update(data=part, offset=[place[-2].start, place[-1].start])
    return True
