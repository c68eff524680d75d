"""The rehearsal set: a few training crops kept beside a model's weights against forgetting.

The file `replay.npz` holds crops at the working scale of the network, their normalised intensities
in 8 bits. Nothing in it is pickled. The picture of a model is drawn from its samples, too.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import ModelError
from napari_unet.core.evaluation.overlay import draw_outlines
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.training.samples import Sample, Samples, known_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.instances.heads import InstanceHead, SemanticHead

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
    """Return crops as samples of the group `GROUP`, with the targets of a head."""
    items = []
    for number, crop in enumerate(crops):
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


def unpack_rehearsal(data: bytes) -> list[RehearsalCrop]:
    """Read the crops of a `replay.npz`.

    Raises
    ------
    ModelError
        The bytes are no rehearsal set, or unpack to more than any model keeps.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 8 * LARGEST:
                raise ValueError("it is too large")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            diameters, groups = arrays["diameters"], arrays["groups"]
            return [
                _checked(arrays, number, float(diameters[number]), str(groups[number]))
                for number in range(len(diameters))
            ]
    except (ValueError, KeyError, IndexError, OSError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"The model's replay cannot be read ({error}); import or install the model again."
        ) from error


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


def _checked(arrays: Any, number: int, diameter: float, group: str) -> RehearsalCrop:
    image, labels = arrays[f"image{number}"], arrays[f"labels{number}"]
    known = np.unpackbits(arrays[f"known{number}"], count=labels.size).reshape(labels.shape)
    types = (image.dtype, labels.dtype) == (np.uint8, np.uint16)
    if not types or image.shape[1:] != labels.shape or labels.ndim not in (2, 3):
        raise ValueError(f"crop {number} is damaged")
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
