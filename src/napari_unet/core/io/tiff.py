"""TIFF files as lazy arrays, of which only the window that is asked for is read.

Which image of a file is meant is decided here, and what its values stand for; `tiff_checks` looks
whether the file is whole, `tiff_pages` reads the pixels, `tiff_metadata` what is said of them.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_unet.core.errors import InputError
from napari_unet.core.io.array_views import (
    ArrayView,
    InkColours,
    PaletteColours,
    drop_axes,
    turn_upright,
)
from napari_unet.core.io.files import UNREADABLE, Opened
from napari_unet.core.io.tiff_checks import CheckedTiff, check_series, silence_tifffile
from napari_unet.core.io.tiff_metadata import channel_names, voxel_size
from napari_unet.core.io.tiff_pages import DecodedPages, map_pages
from napari_unet.core.text import pluralise

MOST_POSITIONS = 100_000
"""No stage visits more; a damaged file may claim billions."""
_POSITIONS = "RM"
"""Letters of tifffile for axes of positions and mosaics, which are images of their own."""
_SLIDES = ("svs", "ndpi", "qpi", "scn", "bif", "philips", "avs")
"""Series of slide scanners, among which are thumbnails and pictures of the slide's label."""


@dataclass(frozen=True)
class _Choice:
    """One image of a TIFF file: a series, and a position along an axis of positions if it has one.

    Attributes
    ----------
    number
        Of the image among all images of the file, or of the set of files that it belongs to.
    series, index
        The series of pages that tifffile found, and its number.
    letter, position
        The axis of positions ("" for none), and where along it.
    """

    number: int
    series: Any
    index: int
    letter: str = ""
    position: int = 0

    @property
    def size(self) -> int:
        """Number of values."""
        shape = self.series.shape
        along = shape[self.series.axes.index(self.letter)] if self.letter else 1
        return int(math.prod(shape)) // int(along)

    def files(self) -> set[str]:
        """Return the files in which its pages lie."""
        if not self.series.is_multifile:
            return {self.series.keyframe.parent.filehandle.path}
        pages = self.at_position(list(self.series.pages))
        return {page.parent.filehandle.path for page in pages if page is not None}

    def at_position(self, pages: list[Any]) -> list[Any]:
        """Return those of the pages of the series that are of this image."""
        leading = self.series.shape[: len(self.series.shape) - len(self.series.keyframe.shape)]
        if not self.letter or math.prod(leading) != len(pages):
            return pages
        numbers = np.arange(len(pages)).reshape(leading)
        axis = self.series.axes.index(self.letter)
        return [pages[n] for n in numbers.take(self.position, axis).ravel().tolist()]


def read_tiff(path: Path, series: int | None = None, raw: bool = False) -> Opened:
    """Open an image of a TIFF file.

    Parameters
    ----------
    series
        Which one, counted from 0. None: the largest whose pages lie in this file.
    raw
        Whether indices of a palette stay as they are, not turned into colours: for labels.

    Raises
    ------
    InputError
        The file ends too early, claims more than it can hold, needs another file that is missing
        or a package that is not installed, or has no such series.
    tifffile.TiffFileError, ValueError, ...
        Not a TIFF file, or a damaged one; the caller makes an InputError of it.
    """
    # The file stays open only where strips are decoded from it later.
    with silence_tifffile() as notes, ExitStack() as closing:
        file = CheckedTiff(path)
        closing.enter_context(file)
        chosen, remarks = _choose(path, file, series)
        found = chosen.series
        check_series(path, file, chosen.index, notes)
        size_um = voxel_size(file, chosen.index)
        names = channel_names(file, chosen.index)
        data: Any = map_pages(path, found)
        if data is None:
            data = DecodedPages(file, chosen.index)
            closing.pop_all()
        axes = found.axes
        if chosen.letter:
            data, axes = drop_axes(data, axes, {chosen.letter: chosen.position})
        data, missing = _trim(path, chosen, data, axes)
        if not raw:
            data, axes = _as_colours(file, found.keyframe, data, axes)
        orientation = int(found.keyframe.tags.valueof("Orientation") or 1)
        data, upright = turn_upright(data, axes, orientation)
        if upright != axes and size_um is not None:
            size_um = size_um[0], size_um[2], size_um[1]
        files = sorted(map(Path, chosen.files())) if found.is_multifile else []
        number = chosen.number if remarks or series is not None else None
        described = file.described.remarks if file.described else ()
        said = (*remarks, *missing, *described, *_remark_on_pages(path, file, found))
        return Opened(data, upright, size_um, None, said, number, tuple(files), names)


def files_of_image(path: Path) -> tuple[Path, ...]:
    """Return the files over which the image of a TIFF file is spread; empty if it lies in one.

    A file that cannot be read is one without others.
    """
    try:
        with silence_tifffile(), tifffile.TiffFile(path) as file:
            text = file.pages.first.description or ""
            several = any(name in text for name in ("FileName=", "BinaryOnly"))
            several = several or file.is_micromanager
        return read_tiff(path).files if several else ()
    except (*UNREADABLE, InputError):
        return ()


def _choose(path: Path, file: CheckedTiff, wanted: int | None) -> tuple[_Choice, tuple[str, ...]]:
    """Return the image that is asked for, or the largest in this file, and what to remark on."""
    choices: list[_Choice] = []
    for index, series in enumerate(file.series):
        letters = _POSITIONS + "P" * bool(file.is_lsm)
        letter = next((a for a in series.axes if a in letters), "")
        count = series.shape[series.axes.index(letter)] if letter else 1
        if count > MOST_POSITIONS:
            raise InputError(f"{path} claims {count:,} positions; it is damaged.")
        for position in range(count):
            choices.append(_Choice(len(choices), series, index, letter, position))
    if not choices:
        raise InputError(f"{path} holds no image; give a TIFF with at least one page.")
    if wanted is not None:
        if not 0 <= wanted < len(choices):
            choice = f"0 to {len(choices) - 1}" if len(choices) > 1 else "only 0"
            raise InputError(f"{path} has no series {wanted}; choose {choice}.")
        return choices[wanted], ()
    ours = [choice for choice in choices if file.filehandle.path in choice.files()] or choices
    full = [choice for choice in ours if not choice.series.keyframe.is_reduced] or ours
    chosen = max(full, key=lambda choice: choice.size)
    if len(full) == 1 or chosen.series.kind in _SLIDES:
        return chosen, ()
    which = "the largest" if chosen.size > min(c.size for c in full) else "the first"
    return chosen, (
        f"{path.name} holds {len(full)} images; number {chosen.number}, {which}, is read. "
        f"Choose another with --series ({full[0].number} to {full[-1].number}).",
    )


def _trim(path: Path, chosen: _Choice, data: Any, axes: str) -> tuple[Any, tuple[str, ...]]:
    """Return what is there of an image whose metadata name more frames than the file has."""
    series = chosen.series
    inside = len(series.keyframe.shape)
    leading = data.shape[: len(data.shape) - inside]
    if series.kind not in ("ome", "mmstack") or not leading:
        return data, ()
    pages = chosen.at_position(list(series.pages))
    there = np.array([page is not None for page in pages])
    if there.all() or there.size != math.prod(leading):
        return data, ()
    outer = there.reshape(leading[0], -1)
    whole = np.logical_and.accumulate(outer.all(axis=1)).sum()
    count = int(whole or np.flatnonzero(outer.any(axis=1))[-1] + 1)
    remarks = []
    if count < leading[0]:
        word = {"T": "time point", "Z": "plane", "C": "channel"}.get(axes[0], "frame")
        remarks.append(
            f"{path.name} names {pluralise(leading[0], word)} in its metadata and holds {count}; "
            "those are read."
        )
        data = ArrayView(data, (range(count), *map(range, data.shape[1:])))
    if holes := int(np.count_nonzero(~outer[:count])):
        remarks.append(f"{path.name} lacks {pluralise(holes, 'plane')}, read as zeros.")
    return data, tuple(remarks)


def _remark_on_pages(path: Path, file: CheckedTiff, series: Any) -> tuple[str, ...]:
    """Return a remark if the file has more planes like those of an image than its metadata name."""
    if series.kind not in ("ome", "imagej", "mmstack") or not file.page_count:
        return ()
    named = 0
    for each in file.series:
        if each.kind == "ome":  # whose planes may lie in other files
            here = (page for page in each.pages if page is not None)
            named += sum(page.parent.filehandle.path == file.filehandle.path for page in here)
        else:
            named += math.prod(each.shape[: len(each.shape) - len(each.keyframe.shape)])
    if named >= file.page_count:
        return ()
    last = file.pages.get(file.page_count - 1)
    if (last.shape, last.dtype) != (series.keyframe.shape, series.keyframe.dtype):
        return ()
    return (
        f"{path.name} holds {pluralise(file.page_count, 'plane')} and names {named} in its "
        "metadata; the others are not read.",
    )


def _as_colours(file: CheckedTiff, page: Any, data: Any, axes: str) -> tuple[Any, str]:
    """Return indices of a palette, and inks, as red, green and blue."""
    if page.photometric == 3 and page.colormap is not None and "S" not in axes:
        table = np.asarray(page.colormap).T
        ramp = bool((np.diff(table.astype(np.int64), axis=0) >= 0).all())
        # ImageJ's palettes, and ramps from dark to light, only show intensities in colour.
        if not file.is_imagej and not ramp and table.ndim == 2:
            shift = 8 if table.max() > 255 else 0
            return PaletteColours(data, (table >> shift).astype(np.uint8)), axes + "S"
    inks = page.photometric == 5 and axes.endswith("S") and data.shape[-1] == 4
    if inks and data.dtype.kind == "u":
        return InkColours(data), axes
    return data, axes
