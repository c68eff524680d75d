"""Corrections as thumbnails, and as pairs of TIFF files for other programs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_unet.core.annotations.header import image_fingerprint
from napari_unet.core.annotations.image_source import ImageSource
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.annotations.training_set import list_patches
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.evaluation.overlay import draw_outlines, to_rgb
from napari_unet.core.io.files import atomic_file, expand_path, make_folder
from napari_unet.core.io.tiff_checks import silence_tifffile
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from napari_unet.core.annotations.corrections import Correction
    from napari_unet.core.annotations.patches import Patch
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index


LAYOUTS = ("cellpose", "stardist")
"""Cellpose: ``name.tif`` and ``name_masks.tif`` side by side. StarDist: ``images/name.tif`` and
``masks/name.tif``. Both with ``known/name.tif`` beside, 255 where the labels are known."""


def draw_correction(
    correction: Correction,
    index: Index | None = None,
    *,
    size: int = 128,
    opened: Iterable[Stack] = (),
) -> np.ndarray:
    """Draw the annotated part of a correction (or of one of its frames), the labels outlined.

    Of a volume, the annotated plane nearest to the middle is shown; without the image, the labels
    alone.

    Returns
    -------
    np.ndarray
        uint8 (height, width, 3), neither longer than `size`.

    Raises
    ------
    InputError
        Nothing is known there.
    """
    header, folder = correction.journal.header, correction.journal.path.parent
    frame = correction.frames[0] if index is None and correction.frames else index or ()
    with JournalReader(correction.journal.path) as journal:
        planes = [place for place in journal.frames(2) if place[: len(frame)] == frame]
        masks = ((place, read_annotation_mask(journal, place)) for place in _from_middle(planes))
        place, mask = next(((p, m) for p, m in masks if m.annotated.any()), (None, None))
    if place is None or mask is None:
        raise InputError(f"Nothing is known of {correction.name} there.")
    window = _bounding_box(mask.annotated)
    step = max(1, math.ceil(max(s.stop - s.start for s in window) / size))
    labels = mask.labels[window]
    try:
        stacks = {image_fingerprint(stack): stack for stack in opened}
        found = ImageSource(header, folder, correction.path, stacks).frame(place, 2)
    except UnetError:
        found = None
    background = np.zeros((*labels.shape, 3), np.uint8)
    if found is not None:
        stack, where = found
        values = stack.read(where, window, stack.pick_channels(3 if stack.rgb else 1))
        background = to_rgb(np.moveaxis(values, 0, -1) if stack.rgb else values[0])
    return draw_outlines(background[::step, ::step], labels[::step, ::step], zoom=1)


def export_corrections(
    corrections: Sequence[Correction],
    folder: str | os.PathLike[str],
    *,
    layout: str = "cellpose",
    ndim: int = 2,
    touched: bool = True,
    opened: Iterable[Stack] = (),
) -> Generator[Progress, None, list[str]]:
    """Write corrections as pairs of TIFF files that other programs train on.

    A pair is a patch of a frame, with the image's own values and all of its channels. Labels that
    nobody looked at are written as the model predicted them: programs without known masks would
    take them for background otherwise.

    Parameters
    ----------
    corrections
        Of `list_corrections`.
    folder
        Created if needed; files of the same names are replaced.
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
        The layout is unknown, or there is nothing to export.
    OutputError
        The folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; choose one of: {', '.join(LAYOUTS)}.")
    folder, remarks, count = expand_path(folder), list[str](), 0
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        for owner, patch in list_patches(
            [correction], ndim, remarks, touched=touched, opened=opened
        ):
            _write_pair(folder, layout, _name(owner, patch), patch)
            count += 1
    yield Progress(len(corrections), len(corrections), "images")
    if not count:
        raise InputError(" ".join(["There are no corrections to export.", *remarks[:1]]))
    return remarks


def _write_pair(folder: Path, layout: str, name: str, patch: Patch) -> None:
    image = patch.image(tuple(range(patch.stack.channels)))
    mask = patch.mask
    colour = patch.stack.rgb and image.ndim == 3
    image = np.moveaxis(image, 0, -1) if patch.stack.rgb else image[0] if len(image) == 1 else image
    apart = layout == "stardist"
    image_path = folder / "images" / f"{name}.tif" if apart else folder / f"{name}.tif"
    masks_path = folder / "masks" / f"{name}.tif" if apart else folder / f"{name}_masks.tif"
    _write(image_path, image, "rgb" if colour else "minisblack")
    _write(masks_path, mask.labels, "minisblack")
    _write(folder / "known" / f"{name}.tif", mask.known.astype(np.uint8) * 255, "minisblack")


def _write(path: Path, values: np.ndarray, photometric: str) -> None:
    make_folder(path.parent)
    with atomic_file(path) as partial, silence_tifffile():
        tifffile.imwrite(partial, values, photometric=photometric, compression="zlib")


def _name(owner: Correction, patch: Patch) -> str:
    """Return a unique file name: image, journal, frame and position."""
    frame = [f"f{'-'.join(map(str, patch.index))}"] if patch.index else []
    corner = "-".join(str(span.start) for span in patch.window)
    plain = re.sub(r"[^\w .+-]", "_", owner.name)[:60]  # a layer may have any name
    return "_".join([plain, owner.journal.path.stem[-6:], *frame, f"at{corner}"])


def _from_middle(planes: list[Index]) -> list[Index]:
    middle = len(planes) // 2
    return [planes[n] for n in sorted(range(len(planes)), key=lambda n: abs(n - middle))]


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
