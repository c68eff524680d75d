"""TIFF files as lazy arrays, of which only the window that is asked for is read.

Uncompressed pages are mapped into memory for the length of one read only, so that the pages of a
huge file do not pile up in the resident set. All others are decoded strip by strip (tile by tile)
through tifffile's Zarr store, behind a bounded cache, since neighbouring windows need the same
strips again.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import weakref
from collections import OrderedDict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr
from zarr.storage import WrapperStore

from napari_unet.core.errors import InputError
from napari_unet.core.io.array_views import (
    ArrayView,
    InkColours,
    PaletteColours,
    drop_axes,
    turn_upright,
)
from napari_unet.core.io.coordinate_transform import plausible_voxel_size, to_um
from napari_unet.core.io.files import UNREADABLE, Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.ome_xml import OmeDescription, ome_voxel_size, read_ome_xml
from napari_unet.core.io.size_claims import check_claim, count_pages
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_BYTES = 256 * 2**20
"""Decoded strips or tiles that one compressed file keeps in memory, at most."""

_INCOMPLETE = (
    "invalid or corrupted",
    "corrupted tag list",
    "invalid page offset",
    "invalid offset to page",
    "failed to reshape",
    "incorrect strip",
)
"""What tifffile logs of files that are cut short, while it goes on with the pages it has."""
_MISSING = ("is missing", "missing data", "are zeroed")
"""What it logs of pages that are not there; `_trim` looks after those that OME-XML names."""
_POSITIONS = "RM"
"""Letters of tifffile for axes of positions and mosaics, which are images of their own."""
_SLIDES = ("svs", "ndpi", "qpi", "scn", "bif", "philips", "avs")
"""Series of slide scanners, among which are thumbnails and pictures of the slide's label."""
_PACKED = {1: "bmp", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate"}
"""Compressions of TIFF in the terms of `size_claims.RATIO`; uncompressed bits are packed, too."""

_LOGGER = logging.getLogger("tifffile")


class _Notes(logging.Handler):
    """Collects log messages and keeps them from standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def silence_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile logs; without a handler Python would print it on standard error."""
    notes = _Notes()
    _LOGGER.addHandler(notes)
    try:
        yield notes.messages
    finally:
        _LOGGER.removeHandler(notes)


class MappedPages(LazyArray):
    """Uncompressed pages of one or more TIFF files as one lazy array.

    Parameters
    ----------
    pages
        File and offset in bytes of each page, in the order of the leading axes; None is a page
        that the file leaves out, which reads as zeros.
    leading, page_shape
        Shape of the axes that count pages, and of one page.
    dtype
        Type of the values, in the file's byte order.
    """

    def __init__(
        self,
        pages: list[tuple[str, int] | None],
        leading: tuple[int, ...],
        page_shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(leading + page_shape, dtype)
        self.pages, self.leading, self.page_shape = pages, leading, page_shape

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        out = np.zeros([len(span) for span in spans], self.dtype)
        count = len(self.leading)
        window = tuple(
            slice(s.start, None if s.stop < 0 else s.stop, s.step) for s in spans[count:]
        )
        for steps in itertools.product(*(enumerate(span) for span in spans[:count])):
            position = tuple(p for _, p in steps)
            page = self.pages[int(np.ravel_multi_index(position, self.leading)) if count else 0]
            if page is not None and out.size:
                path, offset = page
                mapped = np.memmap(path, self.dtype, "r", offset, self.page_shape)
                out[tuple(n for n, _ in steps)] = mapped[window]
        result: np.ndarray = out[drop]
        return result


class CheckedTiff(tifffile.TiffFile):  # type: ignore[misc]
    """A TIFF file whose OME-XML is held against its pages before tifffile believes it.

    Attributes
    ----------
    described
        The OME-XML; None if the file has none.
    is_whole
        Whether the chain of pages ends as it should.
    """

    def __init__(self, path: Path) -> None:
        # NDPI has offsets of its own, by which tifffile finds the pages.
        pages, self.is_whole = (1, True) if path.suffix.lower() == ".ndpi" else count_pages(path)
        self.described: OmeDescription | None = None
        super().__init__(path)
        try:
            with suppress(IndexError):  # of a file without a page
                if self.is_ome:
                    self.described = read_ome_xml(path, self.pages.first.description, pages)
            for other in self.described.files if self.described else ():
                with suppress(OSError):
                    count_pages(other)  # refuses loops
        except BaseException:
            self.close()
            raise

    @property
    def ome_metadata(self) -> str | None:
        """The OME-XML, checked."""
        return self.described.text if self.described else super().ome_metadata


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
        _check_files(path, file, chosen)
        _check_complete(path, file, found, notes)
        _check_codec(path, found.keyframe)
        _check_sizes(path, found.keyframe)
        if found.dtype is None:
            raise InputError(f"{path} holds values of an unknown type; save it as 8 or 16 bit.")
        size_um = _voxel_size(file, chosen.index)
        data: Any = _mapped(path, found)
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
        return Opened(data, upright, size_um, None, (*remarks, *missing), number, tuple(files))


def files_of_image(path: Path) -> tuple[Path, ...]:
    """Return the files over which the image of a TIFF file is spread; empty if it lies in one.

    A file that cannot be read is one without others.
    """
    try:
        with silence_tifffile(), tifffile.TiffFile(path) as file:
            several = "FileName=" in (file.pages.first.description or "") or file.is_micromanager
        return read_tiff(path).files if several else ()
    except (*UNREADABLE, InputError):
        return ()


def _choose(path: Path, file: CheckedTiff, wanted: int | None) -> tuple[_Choice, tuple[str, ...]]:
    """Return the image that is asked for, or the largest in this file, and what to remark on."""
    choices: list[_Choice] = []
    for index, series in enumerate(file.series):
        letters = _POSITIONS + "P" * bool(file.is_lsm)
        letter = next((a for a in series.axes if a in letters), "")
        for position in range(series.shape[series.axes.index(letter)] if letter else 1):
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


def _check_files(path: Path, file: CheckedTiff, chosen: _Choice) -> None:
    """Raise InputError if the image goes on in a file that is missing."""
    described = file.described
    if chosen.series.kind != "ome" or described is None or not any(described.missing):
        return
    if len(described.images) == len(file.series):
        missing = described.missing[chosen.index]
    else:
        missing = tuple(name for names in described.missing for name in names)
    if missing and any(page is None for page in chosen.series.pages):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{path} is one of several files of an image, of which {missing[0]}{more} is missing; "
            "put it beside the others, or save the image in one file."
        )


def _check_complete(path: Path, file: CheckedTiff, series: Any, notes: list[str]) -> None:
    """Raise InputError if the first or the last page lies beyond the end of its file."""
    logged = " ".join(notes).lower()
    # Tag 270 holds the axes; tags of vendors may point anywhere without harm.
    cut = any(phrase in logged for phrase in _INCOMPLETE) or "tifftag 270 " in logged
    if series.kind not in ("ome", "mmstack") or not file.is_whole:
        cut |= any(phrase in logged for phrase in _MISSING)
    for page in (series.pages[0], series.pages[-1]):
        if page is None or page.parent.filehandle.path != file.filehandle.path:
            continue
        ends = [o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=False)]
        cut |= bool(ends) and max(ends) > file.filehandle.size
        # A width that was damaged asks for tiles that the file does not list.
        cut |= page.keyframe.is_tiled and len(ends) not in (1, math.prod(page.keyframe.chunked))
    if series.dataoffset is not None:
        cut |= series.dataoffset + series.nbytes > file.filehandle.size
    if cut:
        raise _cut_short(path)


def _cut_short(path: Path) -> InputError:
    return InputError(f"{path} is cut short or damaged; copy or export it once more.")


def _check_sizes(path: Path, page: Any) -> None:
    """Check that each strip or tile can be as large as the page says."""
    if page.dtype is None or not page.databytecounts:
        return
    decoded = math.prod(page.chunks) * page.dtype.itemsize
    check_claim(path, decoded, max(page.databytecounts), _PACKED.get(int(page.compression), ""))


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


def _check_codec(path: Path, page: Any) -> None:
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError:
        name = getattr(page.compression, "name", str(page.compression))
        raise InputError(
            f"{path} is compressed with {name}, which needs one more package: "
            "pip install imagecodecs, or save the image uncompressed."
        ) from None


def _mapped(path: Path, series: Any) -> MappedPages | None:
    """Return the series as mapped pages, or None when its pages have to be decoded."""
    keyframe = series.keyframe
    if series.transform is not None or not keyframe.is_memmappable:
        return None
    dtype = series.dtype.newbyteorder(keyframe.parent.byteorder)
    if series.dataoffset is not None:
        page = (keyframe.parent.filehandle.path, series.dataoffset)
        return MappedPages([page], (), series.shape, dtype)
    count = len(series.pages)
    leading = series.shape[: len(series.shape) - len(keyframe.shape)]
    if series.shape != leading + keyframe.shape or math.prod(leading) != count:
        return None
    pages = [
        None
        if page is None or not page.dataoffsets or not page.dataoffsets[0]
        else (page.parent.filehandle.path, page.dataoffsets[0])
        for page in series.pages
    ]
    ends = {
        page.parent: page.dataoffsets[0]
        for page in series.pages
        if page is not None and page.dataoffsets
    }
    for parent, offset in ends.items():  # of the last page in each file
        if offset + math.prod(keyframe.shape) * dtype.itemsize > parent.filehandle.size:
            raise _cut_short(path)
    return MappedPages(pages, leading, keyframe.shape, dtype)


def _voxel_size(file: CheckedTiff, series: int) -> tuple[float, float, float] | None:
    if file.is_ome and file.described is not None:
        images = file.described.images
        same = len(images) == len(file.series)
        return ome_voxel_size(images[series if same else 0]) if images else None
    page = file.pages.first
    if file.is_svs and (found := re.search(r"MPP\s*=\s*([\d.]+)", page.description)):
        with suppress(ValueError):
            size = float(found[1])
            return plausible_voxel_size(size, size)
    steps = []
    for tag in ("YResolution", "XResolution"):
        value = page.tags.valueof(tag) or (0, 1)
        top, bottom = value if isinstance(value, tuple) else (value, 1)
        steps.append(bottom / top if top else math.nan)
    if file.is_imagej:
        meta = file.imagej_metadata or {}
        unit = to_um(meta.get("unit"))
        if unit is None or not all(0 < step < math.inf for step in steps):
            return None
        # ImageJ leaves `spacing` out when it is 1.
        return abs(float(meta.get("spacing", 1.0))) * unit or 1.0, steps[0] * unit, steps[1] * unit
    # Tag 296: inch, centimetre; tifffile adds millimetre and micrometre.
    factor = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}.get(int(page.resolutionunit or 1))
    if factor is None:
        return None
    return plausible_voxel_size(steps[0] * factor, steps[1] * factor)


class _CachedStore(WrapperStore[Any]):
    """Keeps the chunks read last, up to `CACHE_BYTES`; at least one."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        chunk = await super().get(key, prototype, byte_range)
        if chunk is not None and key not in self._kept:
            self._kept[key] = chunk
            self._bytes += len(chunk)
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return chunk


class DecodedPages(LazyArray):
    """A TIFF series whose strips or tiles are decoded when they are read."""

    def __init__(self, file: CheckedTiff, series: int) -> None:
        self.path, self.series = file.filehandle.path, series
        self._close = weakref.finalize(self, file.close)
        store = _CachedStore(file.series[series].aszarr(level=0))
        self._array = zarr.open_array(store, mode="r")  # of format 2 or 3, by tifffile's version
        super().__init__(self._array.shape, self._array.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        with silence_tifffile():
            return np.asarray(self._array[key])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.series)


def _reopen(path: str, series: int) -> DecodedPages:
    with silence_tifffile():
        return DecodedPages(CheckedTiff(Path(path)), series)
