"""Whether a TIFF file is whole and can be what it says, before its pixels are read."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import tifffile

from napari_unet.core.errors import InputError
from napari_unet.core.io.ome_xml import OmeDescription, read_ome_xml
from napari_unet.core.io.size_claims import check_claim, count_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
"""What it logs of pages that are not there; `tiff` looks after those that OME-XML names."""
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


class CheckedTiff(tifffile.TiffFile):  # type: ignore[misc]
    """A TIFF file whose OME-XML is held against its pages before tifffile believes it.

    Parameters
    ----------
    count
        Whether all pages are counted first, and loops of them refused. That reads a little of each
        page, which takes long for very many on a slow disk.

    Attributes
    ----------
    described
        The OME-XML; None if the file has none.
    page_count
        How many pages it has; 0 if they were not counted.
    is_whole
        Whether the chain of pages ends as it should.
    """

    def __init__(self, path: Path, count: bool = True) -> None:
        self.page_count, self.is_whole = count_pages(path) if count else (0, True)
        self.described: OmeDescription | None = None
        super().__init__(path)
        try:
            with suppress(IndexError):  # of a file without a page
                if self.is_ome:
                    self.described = read_ome_xml(
                        path, self.pages.first.description, self.page_count or 1
                    )
            for other in self.described.files if self.described and count else ():
                with suppress(OSError):
                    count_pages(other)  # refuses loops
        except BaseException:
            self.close()
            raise

    @property
    def ome_metadata(self) -> str | None:
        """The OME-XML, checked."""
        return self.described.text if self.described else super().ome_metadata


def check_series(path: Path, file: CheckedTiff, index: int, notes: list[str]) -> None:
    """Check that an image of a file can be read.

    Parameters
    ----------
    index
        Number of the series.
    notes
        What tifffile has logged of the file.

    Raises
    ------
    InputError
        The file ends too early, claims more than it can hold, or needs another file that is missing
        or a package that is not installed.
    """
    series = file.series[index]
    _check_files(path, file, index)
    _check_complete(path, file, series, notes)
    _check_codec(path, series.keyframe)
    _check_sizes(path, series.keyframe)
    if series.dtype is None:
        raise InputError(f"{path} holds values of an unknown type; save it as 8 or 16 bit.")


def _check_files(path: Path, file: CheckedTiff, index: int) -> None:
    """Raise InputError if the image goes on in a file that is missing."""
    described = file.described
    series = file.series[index]
    if series.kind != "ome" or described is None or not any(described.missing):
        return
    if len(described.images) == len(file.series):
        missing = described.missing[index]
    else:
        missing = tuple(name for names in described.missing for name in names)
    if missing and any(page is None for page in series.pages):
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
        raise cut_short(path)


def cut_short(path: Path) -> InputError:
    """Return the error of a file that ends too early."""
    return InputError(f"{path} is cut short or damaged; copy or export it once more.")


def _check_sizes(path: Path, page: Any) -> None:
    """Check that each strip or tile can be as large as the page says."""
    if page.dtype is None or not page.databytecounts:
        return
    decoded = math.prod(page.chunks) * page.dtype.itemsize
    check_claim(path, decoded, max(page.databytecounts), _PACKED.get(int(page.compression), ""))


def _check_codec(path: Path, page: Any) -> None:
    """Raise InputError for a compression that tifffile and imagecodecs do not decode."""
    for known, found in (
        (tifffile.TIFF.DECOMPRESSORS, page.compression),
        (tifffile.TIFF.UNPREDICTORS, page.predictor),
    ):
        try:
            known[found]
        except KeyError:
            name = getattr(found, "name", str(found))
            raise InputError(
                f"{path} is compressed with {name}, which cannot be read here; save the image "
                "uncompressed, or with LZW or Deflate."
            ) from None
