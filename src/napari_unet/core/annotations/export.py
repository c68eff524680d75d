"""Corrections to look at and to take along: thumbnails, and pairs of TIFF files."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_unet.core.annotations.header import identify
from napari_unet.core.annotations.image_source import ImageSource
from napari_unet.core.annotations.mask import frame_annotation_mask
from napari_unet.core.annotations.reader import JournalReader
from napari_unet.core.annotations.training_set import Correction, list_patches
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.evaluation.overlay import draw_outlines, to_rgb
from napari_unet.core.io.files import atomic_file, expand_path, make_folder
from napari_unet.core.io.tiff import silence_tifffile
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from napari_unet.core.annotations.patches import Patch
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index


LAYOUTS = ("cellpose", "stardist")
"""Cellpose: ``name.tif`` and ``name_masks.tif`` side by side. StarDist: ``images/name.tif`` and
``masks/name.tif``. Both with ``known/name.tif`` beside, 255 where the labels are known."""


def thumbnail(
    correction: Correction,
    index: Index | None = None,
    *,
    size: int = 128,
    opened: Iterable[Stack] = (),
) -> np.ndarray:
    """Draw what a correction (or one frame of it) teaches, the labels outlined.

    Shown is the part of the plane that is known, or of the middle one of a volume; where the image
    is not at hand, the labels alone.

    Returns
    -------
    np.ndarray
        uint8 (height, width, 3), neither more than `size`.

    Raises
    ------
    InputError
        Nothing is known there.
    """
    begin, folder = correction.place.begin, correction.place.path.parent
    frame = correction.frames[0] if index is None and correction.frames else index or ()
    with JournalReader(correction.place.path) as journal:
        planes = [place for place in journal.frames(2) if place[: len(frame)] == frame]
        truths = ((place, frame_annotation_mask(journal, place)) for place in _from_middle(planes))
        place, truth = next(((p, t) for p, t in truths if t.seen.any()), (None, None))
    if place is None or truth is None:
        raise InputError(f"Nothing is known of {correction.name} there.")
    window = _box(truth.seen)
    step = max(1, math.ceil(max(s.stop - s.start for s in window) / size))
    labels = truth.labels[window]
    try:
        stacks = {identify(stack): stack for stack in opened}
        found = ImageSource(begin, folder, correction.path, stacks).frame(place, 2)
    except UnetError:
        found = None
    ground = np.zeros((*labels.shape, 3), np.uint8)
    if found is not None:
        stack, where = found
        values = stack.read(where, window, stack.pick_channels(3 if stack.rgb else 1))
        ground = to_rgb(np.moveaxis(values, 0, -1) if stack.rgb else values[0])
    return draw_outlines(ground[::step, ::step], labels[::step, ::step], zoom=1)


def export(
    corrections: Sequence[Correction],
    folder: str | os.PathLike[str],
    *,
    layout: str = "cellpose",
    ndim: int = 2,
    touched: bool = True,
    opened: Iterable[Stack] = (),
) -> Generator[Progress, None, list[str]]:
    """Write corrections as pairs of TIFF files that other programs train on.

    A pair is a part of a frame around what is known, with the image's own values and all of its
    channels. Labels that nobody looked at are in it as the model predicted them: programs without
    known masks could only take them for background otherwise.

    Parameters
    ----------
    corrections
        Of `list_corrections`.
    folder
        Made if need be; files of the same names are replaced.
    layout
        One of `LAYOUTS`.
    ndim
        2 to write planes, 3 to write volumes.
    touched, opened
        As for `to_samples`.

    Returns
    -------
    list of str
        A sentence for each image that was left out.

    Raises
    ------
    InputError
        Another layout, or nothing to export.
    OutputError
        The folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; choose one of: {', '.join(LAYOUTS)}.")
    folder, remarks, count = expand_path(folder), list[str](), 0
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        for owner, cut in list_patches([correction], ndim, remarks, touched=touched, opened=opened):
            _write_pair(folder, layout, _name(owner, cut), cut)
            count += 1
    yield Progress(len(corrections), len(corrections), "images")
    if not count:
        raise InputError(" ".join(["There are no corrections to export.", *remarks[:1]]))
    return remarks


def _write_pair(folder: Path, layout: str, name: str, cut: Patch) -> None:
    image = cut.image(tuple(range(cut.stack.channels)))
    truth = cut.truth
    colour = cut.stack.rgb and image.ndim == 3
    image = np.moveaxis(image, 0, -1) if cut.stack.rgb else image[0] if len(image) == 1 else image
    apart = layout == "stardist"
    image_path = folder / "images" / f"{name}.tif" if apart else folder / f"{name}.tif"
    masks_path = folder / "masks" / f"{name}.tif" if apart else folder / f"{name}_masks.tif"
    _write(image_path, image, "rgb" if colour else "minisblack")
    _write(masks_path, truth.labels, "minisblack")
    _write(folder / "known" / f"{name}.tif", truth.known.astype(np.uint8) * 255, "minisblack")


def _write(path: Path, values: np.ndarray, photometric: str) -> None:
    make_folder(path.parent)
    with atomic_file(path) as partial, silence_tifffile():
        tifffile.imwrite(partial, values, photometric=photometric, compression="zlib")


def _name(owner: Correction, cut: Patch) -> str:
    """Return a file's name: image, journal, frame and place, so that no two are the same."""
    frame = [f"f{'-'.join(map(str, cut.index))}"] if cut.index else []
    corner = "-".join(str(span.start) for span in cut.window)
    plain = re.sub(r"[^\w .+-]", "_", owner.name)[:60]  # a layer may be called anything
    return "_".join([plain, owner.place.path.stem[-6:], *frame, f"at{corner}"])


def _from_middle(planes: list[Index]) -> list[Index]:
    middle = len(planes) // 2
    return [planes[n] for n in sorted(range(len(planes)), key=lambda n: abs(n - middle))]


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
