"""The rehearsal set: a few training crops kept beside a model's weights against forgetting.

The file `replay.npz` holds crops at the working scale of the network, their normalised intensities
in 8 bits. Nothing in it is pickled. The picture of a model is drawn from its samples, too.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import ModelError
from napari_unet.core.evaluation.overlay import draw_outlines
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.io.files import UNREADABLE, first_line
from napari_unet.core.training.known_pixels import known_targets
from napari_unet.core.training.samples import Samples
from napari_unet.core.training.training_sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.instances.heads import InstanceHead

RANGE = (-0.2, 1.35)
"""The normalised intensities that 0 and 255 represent."""
COUNT = 48
"""Number of crops that a model keeps."""
OWN_SHARE = 1 / 3
"""Share of them that a tuned model takes from its own corrections; the rest are its parent's."""
EDGES = {2: 160, 3: 48}
"""Edge length of a crop, for planes and volumes."""
LARGEST = 16 << 20
"""Bytes that a rehearsal set may have; files from elsewhere are not trusted."""
GROUP = "replay"
"""Group of the samples; it is part of the names of scores on cards."""

THUMBNAIL_EDGE = 128
"""Edge length of a model's picture, in pixels."""


@dataclass(frozen=True)
class RehearsalCrop:
    """A crop of a training image.

    Attributes
    ----------
    image
        uint8 (C, [Z,] Y, X): normalised intensities, see `RANGE`; C is 1 if all channels are equal.
    labels
        uint16 ([Z,] Y, X).
    known
        bool of the same shape.
    diameter
        Of the objects, in pixels; 0 without any.
    group
        Group of its sample, over which the choice was balanced.
    """

    image: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    diameter: float
    group: str = ""


def choose_rehearsal_crops(
    samples: Samples, diameter: float | None = None, count: int = COUNT, edge: int | None = None
) -> list[RehearsalCrop]:
    """Choose crops that represent a training set: from every group, with small and large objects.

    Parameters
    ----------
    samples
        The training set.
    diameter
        Working diameter of the network, in pixels; None: images keep their scale.
    count, edge
        Number of crops, at most, and their edge length.
    """
    edge = edge or EDGES[samples.items[0].known.ndim]
    crops = [_crop(samples.items[position], diameter, edge) for position in _choose(samples, count)]
    return [crop for crop in crops if crop.known.any()]


def merge_rehearsal_crops(
    parents: Sequence[RehearsalCrop], own: Sequence[RehearsalCrop], count: int = COUNT
) -> list[RehearsalCrop]:
    """Return the crops that a tuned model keeps: its parent's, and a share of its own."""
    newest = _spread(list(own), round(OWN_SHARE * count) if parents else count)
    return [*_spread(list(parents), count - len(newest)), *newest]


def rehearsal_samples(
    crops: Sequence[RehearsalCrop], head: InstanceHead | SemanticHead, channels: int
) -> Samples:
    """Return crops as samples of the group `GROUP`, with the targets of a head.

    Raises
    ------
    ModelError
        The crops have classes that the head does not know.
    """
    items = []
    for number, crop in enumerate(crops):
        if isinstance(head, SemanticHead) and crop.labels.max(initial=0) >= head.classes:
            raise ModelError(
                f"The model's replay has the class {crop.labels.max()}, the model knows "
                f"{head.classes}; install the model again."
            )
        low, high = RANGE
        image = crop.image.astype(np.float32) * ((high - low) / 255) + low
        if len(image) != channels:
            image = np.repeat(image[:1], channels, 0)
        targets = known_targets(crop.labels, crop.known, head)
        place = (crop.labels, targets, crop.known)
        items.append(Sample(image, *place, GROUP, crop.diameter, f"{GROUP} {number}"))
    return Samples(items, head)


def pack_rehearsal(crops: Sequence[RehearsalCrop]) -> bytes:
    """Write crops as the bytes of a `replay.npz`; equal crops give equal bytes."""
    arrays: dict[str, Any] = {
        "diameters": np.array([crop.diameter for crop in crops], np.float32),
        "groups": np.array([crop.group for crop in crops], str),
    }
    for number, crop in enumerate(crops):
        arrays[f"image{number}"], arrays[f"labels{number}"] = crop.image, crop.labels
        arrays[f"known{number}"] = np.packbits(crop.known)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def unpack_rehearsal(data: bytes, ndim: int | None = None) -> list[RehearsalCrop]:
    """Read the crops of a `replay.npz`.

    Parameters
    ----------
    ndim
        Of the network: 2 for planes, 3 for volumes; None: either, but all alike.

    Raises
    ------
    ModelError
        The bytes are no rehearsal set, or unpack to more than any model keeps.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 8 * LARGEST:
                raise ValueError("it is too large")
            diameters, groups = (_read_array(archive, name) for name in ("diameters", "groups"))
            if diameters.ndim != 1 or diameters.dtype.kind != "f" or groups.dtype.kind != "U":
                raise ValueError("its list of crops is damaged")
            if not (np.isfinite(diameters) & (diameters >= 0)).all():
                raise ValueError("it has diameters that are no sizes")
            crops = [
                _read_crop(archive, number, float(diameters[number]), str(groups[number]))
                for number in range(len(diameters))
            ]
    except (zipfile.BadZipFile, tokenize.TokenError, MemoryError, *UNREADABLE) as error:
        raise ModelError(
            f"The model's replay cannot be read ({first_line(error)}); import or install the model "
            "again."
        ) from error
    found = {crop.labels.ndim for crop in crops}
    if len(found) > 1 or (ndim and found - {ndim}):
        raise ModelError("The model's replay does not fit its network; install the model again.")
    return crops


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an .npz, whose header may claim more than there is.

    Raises
    ------
    ValueError
        It is no array, or not of the size that its header says.
    """
    data = archive.read(f"{name}.npy")
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has another version")
    read = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read[version[0] - 1](stream)
    body = data[stream.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"{name} is not of the size that it claims")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C")


def draw_thumbnail(samples: Samples) -> np.ndarray:
    """Draw a part of the sample with the most known objects: a model's picture, uint8 (Y, X, 3)."""
    edge = THUMBNAIL_EDGE
    sample = max(samples.items, key=lambda item: len(np.unique(item.known_labels)))
    image, labels = sample.image, sample.known_labels
    if labels.ndim == 3:
        z = int(np.argmax((labels > 0).sum((1, 2))))
        image, labels = image[:, z], labels[z]
    middle = np.argwhere(labels > 0).mean(0) if labels.any() else np.array(labels.shape) / 2
    low = [
        int(np.clip(m - edge / 2, 0, max(0, n - edge)))
        for m, n in zip(middle, labels.shape, strict=True)
    ]
    place = tuple(slice(start, start + edge) for start in low)
    image = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, 0)
    shown = np.asarray(255 * np.clip(np.moveaxis(image, 0, -1)[place], 0, 1), np.uint8)
    drawn = draw_outlines(shown, labels[place], zoom=1)
    missing = [(0, edge - n) for n in drawn.shape[:2]]
    return np.pad(drawn, [*missing, (0, 0)])


def _read_crop(archive: zipfile.ZipFile, number: int, diameter: float, group: str) -> RehearsalCrop:
    names = (f"{what}{number}" for what in ("image", "labels", "known"))
    image, labels, packed = (_read_array(archive, name) for name in names)
    types = [array.dtype.str for array in (image, labels, packed)] == ["|u1", "<u2", "|u1"]
    fits = image.shape[1:] == labels.shape and packed.shape == (-(-labels.size // 8),)
    if not types or not fits or labels.ndim not in (2, 3) or not image.size:
        raise ValueError(f"crop {number} is damaged")
    known = np.unpackbits(packed, count=labels.size).reshape(labels.shape)
    return RehearsalCrop(image, labels, known.astype(bool), diameter, group)


def _choose(samples: Samples, count: int) -> list[int]:
    """Choose samples: from each group by the root of its size, from small to large objects."""
    groups: dict[str, list[int]] = {}
    for position, item in enumerate(samples.items):
        if item.known.any():
            groups.setdefault(item.group, []).append(position)
    share = {group: len(members) ** 0.5 for group, members in groups.items()}
    chosen: list[int] = []
    for group, members in sorted(groups.items()):
        places = max(1, round(count * share[group] / sum(share.values())))
        by_size = sorted(members, key=lambda position: (samples.items[position].diameter, position))
        chosen += _spread(by_size, places)
    return chosen[:count]


def _spread(items: list[Any], count: int) -> list[Any]:
    """Take `count` items, evenly spread over a list."""
    if count >= len(items):
        return items
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def _crop(sample: Sample, diameter: float | None, edge: int) -> RehearsalCrop:
    """Cut a sample, at the network's scale, where most pixels are known and most are objects."""
    scale = working_scale(sample.diameter, diameter)
    size = tuple(max(1, round(n * scale)) for n in sample.known.shape)
    labels, known = (resize_labels(values, size) for values in (sample.known_labels, sample.known))
    image = resize(sample.image, size)
    merit = known + (labels > 0).astype(np.float32)
    place = tuple(_best_window(merit, axis, edge) for axis in range(merit.ndim))
    image = image[(slice(None), *place)]
    if (image == image[:1]).all():
        image = image[:1]
    low, high = RANGE
    levels = np.round((np.clip(image, low, high) - low) * (255 / (high - low)))
    _, names = np.unique(labels[place], return_inverse=True)
    inside = names.reshape(labels[place].shape) + int(labels[place].min() > 0)
    if sample.diameter == 0:  # classes keep their numbers
        inside = labels[place]
    return RehearsalCrop(
        levels.astype(np.uint8),
        inside.astype(np.uint16),
        known[place],
        sample.diameter * scale,
        sample.group,
    )


def resize_labels(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resample labels or masks to another size by their nearest pixels."""
    for axis, (old, new) in enumerate(zip(values.shape, size, strict=True)):
        if old != new:
            values = values.take(((np.arange(new) + 0.5) * old / new).astype(int), axis)
    return values


def _best_window(merit: np.ndarray, axis: int, edge: int) -> slice:
    """Return the window along one axis that holds most of `merit`."""
    profile = merit.sum(tuple(a for a in range(merit.ndim) if a != axis))
    if len(profile) <= edge:
        return slice(0, len(profile))
    total = np.concatenate([[0], np.cumsum(profile)])
    start = int(np.argmax(total[edge:] - total[:-edge]))
    return slice(start, start + edge)
