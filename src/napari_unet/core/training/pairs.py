"""Labelled images from files: what `napari-unet train` learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import check_exists, images_by_name, is_image_folder
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.labels.label_file import (
    LabelData,
    LabelReading,
    doubt_sentence,
    fit_to_shape,
    read_label_file,
)
from napari_unet.core.labels.object_check import count_pieces
from napari_unet.core.labels.pairing import PairedFiles, find_layout, pair_images
from napari_unet.core.settings.tasks import IDS
from napari_unet.core.training.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    remarks
        What was noticed in the files, a sentence each.
    doubt
        Why the labels look as if they were no objects; "" if they look like objects.
    """

    name: str
    stack: Stack
    labels: np.ndarray
    known: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    doubt: str = ""


def pair_paths(
    images: Path,
    labels: Path | None = None,
    known: Path | None = None,
    image_pattern: str | None = None,
    label_pattern: str | None = None,
) -> tuple[dict[str, tuple[PairedFiles, Path | None]], str]:
    """Match images with labels and masks: files, or those that belong together in folders.

    Parameters
    ----------
    images, labels, image_pattern, label_pattern
        As for `pair_images`; without `labels`, `images` is a data set in a known layout.
    known
        Masks: a file, or a folder with the names of the images.

    Returns
    -------
    dict, str
        The files and the mask by the image's name, and a remark on the layout. Images without
        labels are left out.

    Raises
    ------
    InputError
        A path that does not exist, files and folders mixed, no name in common, an image without
        its mask, or images that are given as their own labels.
    """
    remark = ""
    if labels is None:
        images, labels, remark = find_layout(images)
    check_exists(*([known] if known is not None else []))
    if known is not None and is_image_folder(known) != is_image_folder(images):
        raise InputError(
            f"{images} and {labels} and {known} are files and folders; give all of one kind."
        )
    pairs = pair_images(images, labels, image_pattern, label_pattern)
    masks: dict[str, Path] = {}
    if known is not None:
        folder = is_image_folder(known)
        masks = images_by_name(known) if folder else dict.fromkeys(pairs, known)
    if known and (bare := [name for name in pairs if name not in masks]):
        raise InputError(f"{known} has no mask for {bare[0]}; add one, or remove the image.")
    for pair in pairs.values():
        if any(image.samefile(pair.labels) for image in pair.images):
            raise InputError(
                f"{pair.labels} is given as image and as its own labels; give the labels of it."
            )
    return {name: (pair, masks.get(name)) for name, pair in pairs.items()}, remark


def read_labelled(
    name: str,
    image: Path | Sequence[Path],
    labels: Path,
    known: Path | None = None,
    *,
    plane: int | None = None,
    axes: str | None = None,
    ignore: int | None = None,
    how: LabelReading | None = None,
) -> Labelled:
    """Read one image with its labels and mask.

    Parameters
    ----------
    image
        Its file, or the files of its channels.
    plane
        The only plane along z that the labels are of; None: they are of the whole image.
    axes
        A letter for each axis of the image; None: the file's own.
    ignore
        A value of the labels that stands for "not looked at".
    how
        How the labels are read.

    Raises
    ------
    InputError
        A file cannot be read, the shapes differ, or the labels are the image itself.
    """
    paths = [image] if isinstance(image, Path) else list(image)
    stack = _open_channels(paths, axes)
    how = replace(
        how or LabelReading(),
        ignore=ignore,
        image=(stack.labels_shape, stack.labels_axes),
        name=paths[0].name,
    )
    read = read_label_file(labels, how)
    if plane is not None:
        read = _in_plane(read, plane, stack, labels)
    values = _fit(read.values, read.axes, stack, labels, "labels")
    if read.known is None and is_the_image(stack, values):
        raise InputError(f"{labels} holds the values of its image {paths[0]}; give its labels.")
    mask = None
    if known is not None:
        drawn = read_label_file(known, LabelReading(axes=how.axes, labels_as=IDS))
        mask = _fit(drawn.values != 0, drawn.axes, stack, known, "known pixels")
    if read.known is not None:
        seen = read.known.reshape(values.shape)
        mask = seen if mask is None else mask & seen
    doubt = doubt_sentence(labels, read.doubt) if read.doubt else ""
    return Labelled(name, stack, values, mask, read.remarks, doubt)


def _open_channels(paths: Sequence[Path], axes: str | None) -> Stack:
    """Open an image, or join one of several channels that lie in a file each."""
    stacks = [open_stack(path, axes) for path in paths]
    if len(stacks) == 1:
        return stacks[0]
    if len({(stack.labels_shape, stack.channels) for stack in stacks}) > 1 or stacks[0].rgb:
        raise InputError(f"{paths[0]} and the files of its other channels differ in shape.")
    planes = [np.asarray(s.data[(slice(None),) * len(s.axes)]) for s in stacks]
    return replace(stacks[0], data=np.stack(planes), axes=f"C{stacks[0].axes}", transform=None)


def _in_plane(read: LabelData, plane: int, stack: Stack, path: Path) -> LabelData:
    """Return labels of one plane as those of its volume, of which nothing else is known."""
    depth = stack.frame_shape(3)[0]
    if read.values.shape != stack.frame_shape(2) or not 0 <= plane < depth:
        raise InputError(
            f"The labels {path} have shape {read.values.shape} for the plane {plane} of an image "
            f"of shape {stack.labels_shape}; give labels of one of its planes."
        )
    values = np.zeros((depth, *read.values.shape), read.values.dtype)
    values[plane] = read.values
    known = np.zeros(values.shape, bool)
    known[plane] = True if read.known is None else read.known
    return replace(read, values=values, axes="ZYX", known=known)


def is_the_image(stack: Stack, labels: np.ndarray) -> bool:
    """Return whether labels are an image's own values, and those are no objects.

    A picture of one object after the other may be its own labels.
    """
    if stack.channels > 1 or labels.max(initial=0) < 2:
        return False
    window = tuple(slice(0, size) for size in stack.frame_shape(2))
    equal = all(
        np.array_equal(stack.read(index, window, (0,))[0], labels[index])
        for index in stack.indices(2)
    )
    if not equal or len(np.unique(labels)) <= 2:
        return False
    pieces, objects = count_pieces(labels)
    return pieces > objects


def check_objects(images: Sequence[Labelled]) -> list[str]:
    """Return what is to be said of labels that look as if they were no objects.

    Raises
    ------
    InputError
        All of them do: nothing could be learned about objects.
    """
    doubts = [image.doubt for image in images if image.doubt]
    with_objects = sum(bool(image.labels.any()) for image in images)
    if doubts and len(doubts) == with_objects:
        raise InputError(f"{doubts[0]}.")
    return doubts


def samples_of(
    images: list[Labelled],
    ndim: int,
    channels: int,
    head: InstanceHead | SemanticHead,
    channel: int | None = None,
) -> Samples:
    """Turn images into samples, one for each plane (`ndim` 2) or volume (3).

    Planes of a stack without any label are taken for such that nobody looked at, also in a volume
    that has labels in others, unless a mask says otherwise. Frames of one file stay together when
    some are held out.

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
        if known is None and ndim == 3 and labels.any():
            labelled = labels.any((1, 2))
            known = np.broadcast_to(labelled[:, None, None], labels.shape)
        values = stack.read(index, window, channels)
        rgb = stack.rgb and channel is None
        axes = "CYX" if ndim == 2 else "CZYX"
        frame = Stack(values, axes, stack.voxel_size_um, rgb, image.name)
        yield (frame, labels), known, image.name


def _fit(values: np.ndarray, axes: str, stack: Stack, path: Path, what: str) -> np.ndarray:
    """Return labels or a mask in their image's shape; single time points and planes do not count.

    Raises
    ------
    InputError
        The shapes differ.
    """
    fitted = fit_to_shape(values, axes, stack.labels_shape)
    if fitted is None:
        raise InputError(
            f"The {what} in {path} are of shape {values.shape}, their image of "
            f"{stack.labels_shape}; give {what} of the image's shape."
        )
    return fitted
