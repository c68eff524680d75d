"""Images as stacks: lazy data with named axes and a voxel size, whatever file they come from.

`open_stack` opens a file or wraps an array, `Stack.read` reads a window of one plane or volume.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.array_views import ArrayView
from napari_unet.core.io.axes import check_axes, default_axes, idle_axes, resolve_axes
from napari_unet.core.io.blosc_check import check_blosc_chunks
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.files import UNREADABLE, Opened, expand_path, image_stem, unreadable_error
from napari_unet.core.io.lazy_arrays import RetryingArray, cache_chunks
from napari_unet.core.io.ome_zarr import is_address, read_address
from napari_unet.core.io.readers import read_file

NAME_LENGTH = 40
"""Characters of a channel's name, at most."""


@dataclass(frozen=True, eq=False)
class Stack:
    """An image of up to five axes that is read window by window.

    Attributes
    ----------
    data
        Array-like with basic slicing: numpy, dask, Zarr, or a file that is read on demand.
    axes
        One letter of "TCZYX" for each axis of `data`, in any order; Y and X are always there.
    voxel_size_um
        Size of a voxel (z, y, x) in um; None when it is unknown. Without a Z axis, and where a
        file knows y and x only, z is 1.
    rgb
        Whether the channels are red, green, blue (and alpha).
    name
        The file's name without its suffix, or "image".
    path
        Where the data lie, None for arrays.
    address
        Where the data lie, if that is on another computer.
    transform
        World coordinates, with the times between frames; None if nothing but `voxel_size_um` is
        known of them.
    notices
        Remarks that were made on the image already; each is made once for a stack.
    remarks
        What is unusual about how the file was read, in sentences.
    series
        Number of the image, where its file holds several.
    level
        Of a multiscale image; 0 is the full resolution.
    channel_names
        A name for each channel, "" for one without; empty where the file names none.
    """

    data: Any
    axes: str
    voxel_size_um: tuple[float, float, float] | None = None
    rgb: bool = False
    name: str = "image"
    path: Path | None = None
    address: str = ""
    transform: CoordinateTransform | None = None
    notices: set[str] = field(default_factory=set, repr=False)
    remarks: tuple[str, ...] = ()
    series: int | None = None
    level: int = 0
    channel_names: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the computer's byte order."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype.newbyteorder("=")

    @property
    def channels(self) -> int:
        """Number of channels; 1 without a C axis."""
        return self._size("C")

    @property
    def labels_axes(self) -> str:
        """Axes of the labels that belong to the stack: TZYX without what the stack lacks."""
        return "".join(letter for letter in "TZYX" if letter in self.axes)

    @property
    def labels_transform(self) -> CoordinateTransform:
        """World coordinates of the labels, from the image's transform or its voxel size."""
        axes = self.labels_axes
        known = None if self.transform is None else self.transform.select_axes(axes)
        return known or CoordinateTransform.from_voxel_size(axes, self.voxel_size_um)

    @property
    def labels_shape(self) -> tuple[int, ...]:
        """Shape of the labels, in the order of `labels_axes`."""
        return tuple(self._size(letter) for letter in self.labels_axes)

    def indices(self, ndim: int) -> list[tuple[int, ...]]:
        """List the position of every plane (`ndim` 2) or volume (3) along the leading axes."""
        return list(itertools.product(*(range(self._size(a)) for a in self._leading(ndim))))

    def frame_shape(self, ndim: int) -> tuple[int, ...]:
        """Return the shape of a plane (Y, X) or a volume (Z, Y, X), where Z may be 1."""
        return tuple(self._size(letter) for letter in "ZYX"[-ndim:])

    def read(
        self, index: tuple[int, ...], window: tuple[slice, ...], channels: tuple[int, ...]
    ) -> np.ndarray:
        """Read a window of one plane or volume.

        Parameters
        ----------
        index
            Position of the plane or volume, one of `indices(len(window))`.
        window
            Slices along (Y, X) or (Z, Y, X), inside the frame, with step 1.
        channels
            Channels to read, counted from 0; one may be read several times.

        Returns
        -------
        np.ndarray
            Shape (len(channels), [Z,] Y, X), in the stack's type.

        Raises
        ------
        InputError
            The file is damaged, or gone.
        """
        ndim = len(window)
        spans = [s.indices(n) for s, n in zip(window, self.frame_shape(ndim), strict=True)]
        shape = tuple(max(0, stop - start) for start, stop, _ in spans)
        if math.prod(shape) == 0 or not channels:
            return np.zeros((len(channels), *shape), self.dtype)
        selection: dict[str, Any] = dict(zip(self._leading(ndim), index, strict=True))
        for letter, span in zip("ZYX"[-ndim:], spans, strict=True):
            selection[letter] = slice(*span)
        try:
            return self._read(selection, shape, channels)
        except UNREADABLE as error:
            if self.path is None:
                raise
            raise unreadable_error(self.path, error) from error

    def pick_channels(self, wanted: int, channel: int | None = None) -> tuple[int, ...]:
        """Choose the channels that a model with `wanted` input channels is given.

        A named channel is given to every input. Otherwise RGB goes to three inputs as it is, and
        as many channels as there are inputs go in their order; anything else is the first channel,
        given to every input.

        Raises
        ------
        InputError
            A channel that the stack does not have.
        """
        if channel is not None:
            if not 0 <= channel < self.channels:
                choice = f"0 to {self.channels - 1}" if self.channels > 1 else "only 0"
                raise InputError(
                    f"channel {channel} is not in {self.name}, which has {self.channels}; "
                    f"choose {choice}."
                )
            return (channel,) * wanted
        matching = wanted == 3 if self.rgb else wanted == self.channels
        return tuple(range(wanted)) if matching else (0,) * wanted

    def _size(self, letter: str) -> int:
        return int(self.data.shape[self.axes.index(letter)]) if letter in self.axes else 1

    def _leading(self, ndim: int) -> str:
        return "".join(letter for letter in self.labels_axes if letter not in "ZYX"[-ndim:])

    def _read(
        self, selection: dict[str, Any], shape: tuple[int, ...], channels: tuple[int, ...]
    ) -> np.ndarray:
        """Read channels one run at a time and bring the axes into the order (C, [Z,] Y, X)."""
        if "C" not in self.axes:
            values = self._values(selection).reshape((1, *shape))
            return values if channels == (0,) else np.repeat(values, len(channels), axis=0)
        distinct = sorted(set(channels))
        run = distinct[-1] - distinct[0] + 1 == len(distinct)
        # Interleaved channels lie side by side in the file: one pass, even over unwanted ones.
        if run or self.axes.endswith("C"):
            span = slice(distinct[0], distinct[-1] + 1)
            values = self._values({**selection, "C": span}).reshape((-1, *shape))
            order = [channel - distinct[0] for channel in channels]
            return values if order == list(range(len(values))) else values[order]
        parts = [self._values({**selection, "C": slice(c, c + 1)}) for c in distinct]
        values = np.concatenate(parts).reshape((-1, *shape))
        return values[[distinct.index(channel) for channel in channels]]

    def _values(self, selection: dict[str, Any]) -> np.ndarray:
        """Slice the data and put what is left into the order C, Z, Y, X."""
        values = np.asarray(self.data[tuple(selection[letter] for letter in self.axes)])
        left = [letter for letter in self.axes if isinstance(selection[letter], slice)]
        values = values.transpose([left.index(letter) for letter in "CZYX" if letter in left])
        return np.ascontiguousarray(values, self.dtype)


def open_stack(
    source: Any,
    axes: str | None = None,
    voxel_size_um: tuple[float, ...] | float | None = None,
    level: int = 0,
    series: int | None = None,
    *,
    raw: bool = False,
) -> Stack:
    """Open an image file or wrap an array, lazily.

    Parameters
    ----------
    source
        Path of an image file of any kind that `readers` knows; address of a Zarr (http, https,
        s3); a numpy, dask or Zarr array; or a Stack, which is returned as it is.
    axes
        One letter for each axis, such as "TZCYX"; S stands for the samples of an RGB(A) image.
        None takes them from the file, or else by `default_axes`.
    voxel_size_um
        (z, y, x), (y, x) or one size for all, in um. None takes it from the file.
    level
        Of a multiscale OME-Zarr; 0 is the full resolution.
    series
        Which image of a file that holds several, counted from 0. None: of a TIFF the largest whose
        pixels lie in this very file, else the first; `Stack.remarks` says so.
    raw
        Whether indices of a palette stay as they are, not turned into colours: for labels.

    Raises
    ------
    InputError
        A source that cannot be read, axes that do not fit, or values that are no real numbers.
    """
    if isinstance(source, Stack):
        return source
    address = str(source) if is_address(source) else ""
    path = expand_path(source) if isinstance(source, (str, Path)) and not address else None
    opened = _open_source(source, path, address, level, series, raw)
    data, what = opened.data, address or (str(path) if path else "the array")
    dtype = _check_dtype(data.dtype, what)
    if not all(float(n).is_integer() for n in data.shape):
        raise InputError(
            f"{what} has an unknown shape {data.shape}; compute its chunks' sizes first."
        )
    shape = tuple(int(n) for n in data.shape)
    named = opened.axes or ("Q" * len(shape) + "YX")[2:]
    if axes is None and (idle := idle_axes(named, shape)):
        data = ArrayView(data, tuple(0 if n in idle else range(k) for n, k in enumerate(shape)))
        shape = data.shape
        kept = "".join(letter for n, letter in enumerate(opened.axes) if n not in idle)
        opened = opened._replace(axes=kept)
    found = opened.axes or default_axes(shape, dtype, what)
    letters = (
        check_axes(axes, shape, what) if axes is not None else resolve_axes(found, shape, what)
    )
    # C given for what the file calls samples is still a colour image.
    rgb = "S" in letters or ("S" in opened.axes and letters[found.index("S")] == "C")
    letters = letters.replace("S", "C")
    channels = shape[letters.index("C")] if "C" in letters else 1
    rgb = rgb and channels in (3, 4)
    size = _sizes_along(letters, opened)
    if voxel_size_um is not None:
        size = _check_voxel_size(voxel_size_um)
    as_in_file = voxel_size_um is None and letters == opened.axes
    transform = opened.transform if as_in_file else None
    return Stack(
        cache_chunks(data),
        letters,
        size,
        rgb,
        _stack_name(path, address),
        path,
        address,
        transform,
        remarks=opened.remarks,
        series=opened.series,
        level=level,
        channel_names=_short_names(opened.channel_names, channels),
    )


def _open_source(
    source: Any, path: Path | None, address: str, level: int, series: int | None, raw: bool
) -> Opened:
    """Open what lies at a path or an address, or take an array as it is."""
    if address:
        return read_address(address, level, series)
    if path is not None:
        return read_file(path, level, series, raw)
    if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise InputError(f"A {type(source).__name__} is no image; give a path or an array.")
    if "zarr" in sys.modules:  # a layer of napari, say
        check_blosc_chunks()
    return Opened(source, "", None)


def _stack_name(path: Path | None, address: str) -> str:
    if address:
        return image_stem(Path(address.rstrip("/").rpartition("/")[2]))
    return re.sub(r"\.ome$", "", path.absolute().stem, flags=re.IGNORECASE) if path else "image"


def _short_names(names: tuple[str, ...], channels: int) -> tuple[str, ...]:
    """Return the names of the channels, in one line and short; () if they are those of others."""
    if len(names) != channels:
        return ()
    return tuple(" ".join(name.split())[:NAME_LENGTH] for name in names)


def _check_dtype(dtype: Any, what: str) -> np.dtype[Any]:
    try:
        known: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise InputError(f"{what} holds {dtype}; give a numpy, dask or Zarr array.") from None
    if known.kind not in "biuf":
        raise InputError(f"{what} holds {known}; give integers, floating-point numbers or bool.")
    return known


def _sizes_along(letters: str, opened: Opened) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) of a file whose axes got other names: each keeps its own."""
    if opened.voxel_size_um is None:
        return None
    known = dict(zip("ZYX", opened.voxel_size_um, strict=True))
    renamed = zip(letters, opened.axes, strict=False)
    sizes = known | {letter: known[before] for letter, before in renamed if before in known}
    return sizes["Z"], sizes["Y"], sizes["X"]


def _check_voxel_size(size: tuple[float, ...] | float) -> tuple[float, float, float]:
    try:
        values = np.atleast_1d(np.asarray(size, float))
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape not in ((1,), (2,), (3,)) or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"voxel_size_um is {size!r}; give (z, y, x) in um, each above 0.")
    if values.size == 1:
        values = np.repeat(values, 3)
    z, y, x = (1.0, *values.tolist()) if values.size == 2 else values.tolist()
    return z, y, x


def with_retries(stack: Stack, lenient: bool = False) -> Stack:
    """Return a stack whose data are a `RetryingArray`.

    Its path is dropped: `Stack.read` would blame the file for errors that are `UnreadableError`s.
    """
    return replace(stack, data=RetryingArray(stack.data, lenient), path=None)
