"""Labelled images from files: what `napari-unet train` learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import match_by_name
from napari_unet.core.io.stack import Stack, fit_labels, open_stack, read_labels
from napari_unet.core.training.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.instances.heads import InstanceHead, SemanticHead


@dataclass(frozen=True)
class Labelled:
    """One image with its labels.

    Attributes
    ----------
    name
        The file's, without its ending.
    stack
        The image.
    labels
        Integers in the order of `Stack.labels_axes`.
    known
        bool of the labels' shape: what was looked at; None where all was.
    """

    name: str
    stack: Stack
    labels: np.ndarray
    known: np.ndarray | None = None


def pair_paths(
    images: Path, labels: Path, known: Path | None = None
) -> dict[str, tuple[Path, Path, Path | None]]:
    """Match images with labels and masks: files, or those of equal name in folders.

    Names are equal without their endings. Images without labels are left out.

    Raises
    ------
    InputError
        A path that does not exist, files and folders mixed, no name in common, or an image without
        its mask.
    """
    mixed = "are files and folders; give all of one kind"
    seen, drawn, masks = match_by_name(images, labels, known, mixed=mixed)
    both = [name for name in seen if name in drawn]
    if not both:
        raise InputError(f"{images} and {labels} have no file name in common.")
    if known and (bare := [name for name in both if name not in masks]):
        raise InputError(f"{known} has no mask for {bare[0]}; add one, or remove the image.")
    return {name: (seen[name], drawn[name], masks.get(name)) for name in both}


def read_labelled(
    name: str,
    image: Path,
    labels: Path,
    known: Path | None = None,
    *,
    axes: str | None = None,
    labels_axes: str | None = None,
    ignore: int | None = None,
) -> Labelled:
    """Read one image with its labels and mask.

    Parameters
    ----------
    axes
        A letter for each axis of the image; None: the file's own.
    labels_axes
        A letter for each axis of the labels and the mask; None: their files' own.
    ignore
        A value of the labels that stands for "not looked at".

    Raises
    ------
    InputError
        A file cannot be read, or the shapes differ.
    """
    stack = open_stack(image, axes)
    values = fit_labels(read_labels(labels, labels_axes), stack.labels_shape)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    _check_shape(values, stack, labels, "labels")
    if values.dtype.kind not in "ui":
        raise InputError(f"{labels} holds {values.dtype}; give labels, which are integers.")
    mask = None
    if known is not None:
        mask = fit_labels(read_labels(known, labels_axes), stack.labels_shape) != 0
        _check_shape(mask, stack, known, "mask")
    if ignore is not None:
        seen = values != ignore
        values = np.where(seen, values, 0)
        mask = seen if mask is None else mask & seen
    if values.size and values.min() < 0:
        raise InputError(
            f"{labels} holds labels below 0; give labels from 0 on, or name the value that stands "
            "for the unknown (--ignore-label)."
        )
    return Labelled(name, stack, values, mask)


def samples_of(
    images: list[Labelled],
    ndim: int,
    channels: int,
    head: InstanceHead | SemanticHead,
    channel: int | None = None,
) -> Samples:
    """Turn images into samples, one for each plane (`ndim` 2) or volume (3).

    Planes of a stack without any label are taken for such that nobody looked at, unless a mask
    says otherwise. Frames of one file stay together when some are held out.

    Raises
    ------
    InputError
        The images have no volumes, or nothing is known of any.
    """
    frames = [frame for image in images for frame in _frames(image, ndim, channel)]
    if not frames:
        raise InputError("Nothing is labelled in these images; label some objects, then train.")
    pairs, known, sources = zip(*frames, strict=True)
    return Samples.from_labels(pairs, known, sources=sources, head=head, channels=channels)


def _frames(
    image: Labelled, ndim: int, channel: int | None
) -> Iterator[tuple[tuple[Stack, np.ndarray], np.ndarray | None, str]]:
    """Yield what a network sees at once, with its labels, mask and source."""
    stack = image.stack
    if ndim == 3 and "Z" not in stack.axes:
        raise InputError(
            f"{image.name} has axes {stack.axes}, but a 3D network needs volumes; give axes with a "
            "Z, or train a 2D network."
        )
    indices = stack.indices(ndim)
    window = tuple(slice(0, size) for size in stack.frame_shape(ndim))
    channels = tuple(range(stack.channels)) if channel is None else stack.pick_channels(1, channel)
    for index in indices:
        labels: Any = image.labels[index]
        known = None if image.known is None else image.known[index]
        if len(indices) > 1 and not (labels.any() if known is None else known.any()):
            continue
        values = stack.read(index, window, channels)
        rgb = stack.rgb and channel is None
        axes = "CYX" if ndim == 2 else "CZYX"
        frame = Stack(values, axes, stack.voxel_size_um, rgb, image.name)
        yield (frame, labels), known, image.name


def _check_shape(values: np.ndarray, stack: Stack, path: Path, what: str) -> None:
    if values.shape != stack.labels_shape:
        raise InputError(
            f"The {what} {path} have shape {values.shape}, their image {stack.labels_shape}; give "
            f"{what} of the image's shape."
        )
