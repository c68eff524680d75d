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
import weakref
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr
from zarr.storage import WrapperStore

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import plausible_voxel_size, to_um
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CACHE_BYTES = 256 * 2**20
"""Decoded strips or tiles that one compressed file keeps in memory, at most."""

_INCOMPLETE = (
    "invalid or corrupted",
    "corrupted tag list",
    "invalid page offset",
    "invalid offset to page",
    "failed to reshape",
    "is missing",
    "missing data",
    "are zeroed",
    "incorrect strip",
)
"""What tifffile logs of files that are cut short, while it goes on with the pages it has."""

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


def read_tiff(path: Path) -> Opened:
    """Open the largest series of a TIFF file.

    Raises
    ------
    InputError
        The file ends too early, or its compression needs a package that is not installed.
    tifffile.TiffFileError, ValueError, ...
        Not a TIFF file, or a damaged one; the caller makes an InputError of it.
    """
    # The file stays open only where strips are decoded from it later.
    with silence_tifffile() as notes, ExitStack() as closing:
        file = closing.enter_context(tifffile.TiffFile(path))
        sizes = [math.prod(series.shape) for series in file.series]
        if not sizes:
            raise InputError(f"{path} holds no image; give a TIFF with at least one page.")
        number = sizes.index(max(sizes))
        series = file.series[number]
        _check_complete(path, file, series, notes)
        _check_codec(path, series.keyframe)
        if series.dtype is None:
            raise InputError(f"{path} holds values of an unknown type; save it as 8 or 16 bit.")
        axes, voxel_size_um = series.axes, _voxel_size(file, number)
        mapped = _mapped(series)
        if mapped is not None:
            return Opened(mapped, axes, voxel_size_um)
        decoded = DecodedPages(file, number)
        closing.pop_all()
        return Opened(decoded, axes, voxel_size_um)


def _check_complete(path: Path, file: Any, series: Any, notes: list[str]) -> None:
    """Raise InputError if the first or the last page lies beyond the end of its file."""
    logged = " ".join(notes).lower()
    # Tag 270 holds the axes; tags of vendors may point anywhere without harm.
    cut = any(phrase in logged for phrase in _INCOMPLETE) or "tifftag 270 " in logged
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
        raise InputError(f"{path} is cut short or damaged; copy or export it once more.")


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


def _mapped(series: Any) -> MappedPages | None:
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
    return MappedPages(pages, leading, keyframe.shape, dtype)


def _voxel_size(file: Any, series: int) -> tuple[float, float, float] | None:
    if file.is_ome:
        return _ome_voxel_size(file.ome_metadata, series)
    page = file.pages.first
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


def _ome_voxel_size(text: str, series: int) -> tuple[float, float, float] | None:
    """Read PhysicalSizeZ, Y and X of one image; sizes without a unit are in micrometres."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    found = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if not found:
        return None
    pixels = found[series if series < len(found) else 0]
    sizes: list[float | None] = []
    for letter in "ZYX":
        factor = to_um(pixels.get(f"PhysicalSize{letter}Unit", "um"))
        value = pixels.get(f"PhysicalSize{letter}")
        known = factor is not None and value is not None and 0 < float(value) < math.inf
        sizes.append(float(value) * factor if known else None)  # type: ignore[operator,arg-type]
    z, y, x = sizes
    if y is None or x is None:
        return None
    return z or 1.0, y, x


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

    def __init__(self, file: tifffile.TiffFile, series: int) -> None:
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
        return DecodedPages(tifffile.TiffFile(path), series)
