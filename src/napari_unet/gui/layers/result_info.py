"""What the plugin knows of a Labels layer: which image, model and run it comes from; its edits.

It is kept in the layer's metadata, so that it goes where the layer goes.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE
from napari_unet.core.io.ome_zarr import containing_ome_zarr
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.zarr_groups import zarr_path
from napari_unet.gui.layers.convert import read_axes, unwrap
from napari_unet.gui.layers.image_settings import METADATA_KEY, update_image_settings
from napari_unet.gui.layers.live_labels import LIVE_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Image, Labels

    from napari_unet.gui.layers.label_geometry import Placement

RESULT_KEY = METADATA_KEY
"""The key of the layer's metadata under which all of this lies."""
IMAGE = "image"
"""Under `RESULT_KEY`: the id of the image layer that the labels belong to."""

# The fields of `ResultInfo` by their keys in the metadata, which users and older sessions know.
_KEYS = {
    "base": "base", "name": "name", "image": IMAGE, "running": "running", "runs": "runs",
    "provenance": "passport", "checksum": "fingerprint", "grown": "grown", "preview": "preview",
    "journal": "journal",
}  # fmt: skip
_WHOLE_CHECK_BYTES = 1 << 30  # a checksum of 1 GiB takes about a second


@dataclass(frozen=True)
class ResultInfo:
    """What a layer's metadata say of its labels; fields that they lack are None.

    Attributes
    ----------
    base
        The image's and the model's name, by which a run finds the layer of an earlier one. Only
        results have it: labels that Segment made, or that were restored from a journal or a file.
    name
        The layer's name as the run left it: one that was renamed is the user's.
    image
        The `unique_id` of the image layer that the labels belong to.
    running
        True while a run writes into the layer.
    runs
        The provenance of each run that went into the labels.
    provenance
        That of the last run: model, settings, versions.
    checksum
        Of the data as the run left them.
    grown
        Ids of objects that clicks followed through planes.
    preview
        The file that the layer shows while a run in blocks is unfinished.
    journal
        The journal that the labels were restored from.
    """

    base: str | None = None
    name: str | None = None
    image: str | None = None
    running: bool | None = None
    runs: list[dict[str, Any]] | None = None
    provenance: dict[str, Any] | None = None
    checksum: int | None = None
    grown: list[int] | None = None
    preview: str | None = None
    journal: str | None = None

    @classmethod
    def from_layer(cls, layer: Any) -> ResultInfo:
        """Read the metadata of a layer; all fields are None if it is none of the plugin's."""
        stored = layer.metadata.get(RESULT_KEY, {})
        return cls(**{field: stored.get(key) for field, key in _KEYS.items()})

    def to_metadata(self) -> dict[str, Any]:
        """Return the `metadata` of a new layer."""
        found = {key: getattr(self, field) for field, key in _KEYS.items()}
        return {RESULT_KEY: {key: value for key, value in found.items() if value is not None}}

    @property
    def is_result(self) -> bool:
        """Whether a run made the labels, or they were restored or opened as its result."""
        return self.base is not None

    @property
    def model(self) -> str | None:
        """The name of the model that made the labels."""
        return (self.provenance or {}).get("model")


def update_info(layer: Labels, **values: Any) -> None:
    """Set fields of a layer's `ResultInfo`; None removes one."""
    stored = layer.metadata.setdefault(RESULT_KEY, {})
    for field, value in values.items():
        if value is None:
            stored.pop(_KEYS[field], None)
        else:
            stored[_KEYS[field]] = value


def find_source_image(labels: Labels, images: Iterable[Image]) -> Image | None:
    """Return the image that labels were made from; None if it is not among these."""
    source = ResultInfo.from_layer(labels).image
    return next((image for image in images if str(image.unique_id) == source), None)


def get_provenance(layer: Labels) -> dict[str, Any] | None:
    """Return how a layer's labels were made; None if that is unknown.

    The run that made them here says so, else the file that the layer was opened from or made of.
    """
    info = ResultInfo.from_layer(layer)
    if info.provenance is not None:
        return info.provenance
    array = zarr_path(layer.data[0] if layer.multiscale else layer.data)
    with suppress(InputError, *UNREADABLE):
        path = layer.source.path if array is None else containing_ome_zarr(array)
        if path is not None and info == ResultInfo():
            return read_provenance(path)
    return None


def labels_checksum(data: np.ndarray) -> int:
    """Return a checksum by which a changed array is known.

    Arrays of more than 1 GiB are sampled, plane by plane at equal distances.
    """
    if data.nbytes > _WHOLE_CHECK_BYTES and data.ndim > 2:
        planes = data.reshape(-1, *data.shape[-2:])
        step = -(-data.nbytes // _WHOLE_CHECK_BYTES)
        data = planes[::step]
    check = 0
    for part in data if data.ndim > 2 else (data,):
        check = zlib.crc32(np.ascontiguousarray(part).data, check)
    return check


def may_hold_run(layer: Labels, base: str, data_shape: tuple[int, ...]) -> bool:
    """Return whether a layer is an earlier result that a new run may write into.

    If it was not edited, which its name does not say and `EditCheck` looks at beside the window.
    """
    info = ResultInfo.from_layer(layer)
    if info.base != base or info.name != layer.name or not isinstance(layer.data, np.ndarray):
        return False
    return bool(layer.data.shape == data_shape and layer.data.dtype.kind == "u")


def is_unedited(layer: Labels, info: ResultInfo) -> bool:
    """Return whether the voxels of a layer are what its last run left; a second for 1 GiB."""
    return bool(info.running or info.checksum == labels_checksum(layer.data))


def reuse_result(layer: Labels, image: Image, placement: Placement) -> np.ndarray:
    """Begin to write into an earlier result; return its array in the order T, Z, Y, X.

    The layer cannot be edited until `seal_result`, for the run would write over the edits.
    """
    update_info(layer, running=True, image=str(image.unique_id))
    update_image_settings(layer, axes=placement.shown if read_axes(image).certain else None)
    layer.editable = False  # napari forgets the history of undone edits, too
    for name, value in placement.geometry(image).items():
        setattr(layer, name, value)
    return placement.from_layer(layer.data)


def empty_labels(labels_shape: tuple[int, ...]) -> np.ndarray:
    """Return the array of a new result, in the order T, Z, Y, X.

    Raises
    ------
    InputError
        The labels do not fit into memory.
    """
    try:
        return np.zeros(labels_shape, LIVE_DTYPE)  # memory is taken page by page, when written
    except (MemoryError, ValueError) as error:
        size = " x ".join(map(str, labels_shape))
        raise InputError(
            f"Labels of {size} pixels do not fit into memory; run `napari-unet segment` in a "
            "terminal, which writes them to a file."
        ) from error


def add_result(
    viewer: Any,
    data: Any,
    image: Image,
    base: str,
    placement: Placement,
    *,
    running: bool | None = None,
    **options: Any,
) -> Labels:
    """Add labels over their image, as the result of a run.

    Parameters
    ----------
    data
        In the layer's own order of axes; a list of levels with `multiscale=True`.
    base
        The layer's name, to which the viewer may add a number.
    running
        True if a run is about to write into it.
    options
        Other arguments of the layer.
    """
    info = ResultInfo(base=base, runs=[], running=running)
    layer = add_labels(viewer, data, image, base, placement, info, **options)
    update_info(layer, name=layer.name)
    return layer


def add_labels(
    viewer: Any,
    data: Any,
    image: Image,
    name: str,
    placement: Placement,
    info: ResultInfo,
    **options: Any,
) -> Labels:
    """Add labels over their image; the arguments are those of `add_result`."""
    metadata = replace(info, image=str(image.unique_id)).to_metadata()
    if read_axes(image).certain:  # what the image's file names, the labels would not know
        metadata[RESULT_KEY]["axes"] = placement.shown
    place = placement.geometry(image)
    layer: Labels = unwrap(
        viewer.add_labels(data, name=name, metadata=metadata, **options, **place)
    )
    return layer


def seal_result(
    layer: Labels, provenance: dict[str, Any] | None, whole: bool, checksum: int | None = None
) -> None:
    """Finish a result: editable again, with the provenance of the run in its metadata.

    Parameters
    ----------
    provenance
        None if the run did not come to its end.
    whole
        The run covered the whole stack, so that nothing of earlier runs is left.
    checksum
        That of the layer's data, if it is known: for a stack it takes a tenth of a second.
    """
    checksum = labels_checksum(layer.data) if checksum is None else checksum
    update_info(layer, running=None, checksum=checksum)
    if provenance is not None:
        earlier = [] if whole else ResultInfo.from_layer(layer).runs or []
        update_info(layer, runs=[*earlier, provenance], provenance=provenance)
    layer.editable = True
    layer.refresh()
