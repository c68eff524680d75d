"""A file of labels of any kind as an array of objects' ids, with what was noticed on the way.

Images of colours and masks, in which the ids are not written down, are taken as labels only if the
user says how (`LABELS_AS`). Files whose compression changes values are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.io.axes import check_axes, resolve_axes
from napari_unet.core.io.files import (
    TIFF_SUFFIXES,
    UNREADABLE,
    check_exists,
    expand_path,
    unreadable_error,
)
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.labels.object_check import (
    background_below_zero,
    connected_components,
    doubt_objects,
    whole_numbers,
)
from napari_unet.core.settings.tasks import COLOURS, COMPONENTS, IDS, LABELS_AS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JUDGED = 2**26
"""Larger stacks of labels, in pixels, are not read only to look for masks."""

_ADVICE = "if each connected piece is an object, say so: --labels-as components"


@dataclass(frozen=True, eq=False)
class LabelData:
    """Labels read from a file.

    Attributes
    ----------
    values
        Integers from 0 on, axes in the order of "TZYX".
    axes
        A letter for each axis.
    known
        bool of the same shape: False where the value was the one to ignore; None if there was none.
    remarks
        What was noticed, a sentence each.
    doubt
        Why the values look as if they were no objects; "" if they look like objects.
    """

    values: np.ndarray
    axes: str
    known: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class LabelReading:
    """How label files are read.

    Attributes
    ----------
    labels_as
        One of `LABELS_AS`; None: ids, of which a doubt is raised where they look like a mask.
    axes
        A letter for each axis of the file; None: the file's own.
    ignore
        A value that stands for "not looked at"; None: there is none.
    classes
        Whether the values are classes and not objects: no doubts are raised, none are below 0.
    ndim
        Whether objects end with their plane (2) or go through z (3).
    """

    labels_as: str | None = None
    axes: str | None = None
    ignore: int | None = None
    classes: bool = False
    ndim: int = 3
    remarks: list[str] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        if self.labels_as not in (None, *LABELS_AS):
            raise SettingsError(
                f"labels-as is {self.labels_as!r}; choose one of: {', '.join(LABELS_AS)}."
            )


def read_label_file(path: str | Path, how: LabelReading | None = None) -> LabelData:
    """Read a label file whole.

    Raises
    ------
    InputError
        It cannot be read, or holds no labels: several channels, colours without `labels_as`,
        numbers that are not whole, or values that its compression has changed.
    """
    path, how = expand_path(path), how or LabelReading()
    check_exists(path)
    check_lossless(path)
    values, axes, coloured = _read_values(path, how)
    remarks: list[str] = []
    if coloured:
        values, remark = colours_to_ids(values, str(path), how.labels_as)
        remarks.append(f"{path}: {remark}")
    values = whole_numbers(values, str(path))
    known = None
    if how.ignore is not None:
        known = np.asarray(values != how.ignore)
        values = np.where(known, values, 0)
    if how.classes:
        if values.min(initial=0) < 0:
            raise InputError(
                f"{path} holds classes below 0; give classes from 0 on, or name the value that "
                "stands for the unknown (--ignore-label)."
            )
        return LabelData(values, axes, known, tuple(remarks))
    values, remark = background_below_zero(values)
    if remark:
        remarks.append(f"{path}: {remark}")
    if how.labels_as == COMPONENTS:
        values = connected_components(values, axes, how.ndim)
    doubt = ""
    if how.labels_as in (None, COLOURS):
        doubt = doubt_objects(values, axes, how.ndim)
    return LabelData(values, axes, known, tuple(remarks), doubt)


def judge_stack(stack: Stack, ndim: int = 3) -> str:
    """Say why labels look as if they were no objects; "" if they do not, or if they are large.

    Parameters
    ----------
    stack
        Labels of a file or layer.
    ndim
        Whether objects end with their plane (2) or go through z (3).
    """
    if stack.channels > 1 or math.prod(stack.data.shape) > JUDGED:
        return ""
    window = tuple(slice(0, size) for size in stack.frame_shape(2))
    planes = [stack.read(index, window, (0,))[0] for index in stack.indices(2)]
    values = np.array(planes).reshape(stack.labels_shape)
    return doubt_objects(np.maximum(values, 0), stack.labels_axes, ndim)


def doubt_sentence(path: Path | None, doubt: str) -> str:
    """Return what to say of labels that look as if they were no objects."""
    return f"{path}: {doubt}; {_ADVICE}, else --labels-as ids"


def _read_values(path: Path, how: LabelReading) -> tuple[np.ndarray, str, bool]:
    """Return values in the order of "TZYX", their axes, and whether they are colours (…, S)."""
    indices = None if how.labels_as == COLOURS else _palette_indices(path, how)
    if indices is not None:
        return indices
    axes = how.axes
    stack = open_stack(path, axes)
    if stack.rgb and stack.axes == "CYX":  # tifffile writes 3 or 4 planes as if they were colours
        stack = open_stack(path, "ZYX")
    colours = stack.rgb and how.labels_as in (COLOURS, COMPONENTS)
    if stack.channels > 1 and not colours:
        raise InputError(_channels_problem(path, stack))
    try:
        values = np.asarray(stack.data[(slice(None),) * len(stack.axes)])
    except UNREADABLE as error:
        raise unreadable_error(path, error) from error
    if colours:
        order = [stack.axes.index(letter) for letter in (*stack.labels_axes, "C")]
        return values.transpose(order), stack.labels_axes, True
    order = [stack.axes.index(letter) for letter in ("C" * ("C" in stack.axes)) + stack.labels_axes]
    return values.transpose(order).reshape(stack.labels_shape), stack.labels_axes, False


def _channels_problem(path: Path, stack: Stack) -> str:
    if stack.rgb:
        return (
            f"{path} has {stack.channels} channels: it is a picture in colours, not labels; if "
            "each colour is an object, say so (--labels-as colours), or each connected piece "
            "(--labels-as components)."
        )
    return f"{path} has {stack.channels} channels; give labels, which have none."


def _palette_indices(path: Path, how: LabelReading) -> tuple[np.ndarray, str, bool] | None:
    """Return the indices of a file whose colours stand in a palette; None for other files.

    Programs such as ImageJ write labels so that other programs show each object in a colour. In a
    TIFF, the indices are the labels; a PNG may as well be a picture with few colours.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in TIFF_SUFFIXES and path.is_file():
            return _tiff_indices(path, how.axes)
        if suffix == ".png" and how.labels_as == IDS and path.is_file():
            from PIL import PngImagePlugin

            with PngImagePlugin.PngImageFile(path) as picture:
                return (np.asarray(picture), "YX", False) if picture.mode == "P" else None
    except UNREADABLE:  # whoever opens it as an image says what is wrong
        return None
    return None


def _tiff_indices(path: Path, axes: str | None) -> tuple[np.ndarray, str, bool] | None:
    import tifffile

    from napari_unet.core.io.tiff import silence_tifffile

    with silence_tifffile(), tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.photometric != tifffile.PHOTOMETRIC.PALETTE:
            return None
        series = file.series[0]
        shape, found = series.shape, series.axes
        values = series.asarray()
    what = str(path)
    letters = check_axes(axes, shape, what) if axes else resolve_axes(found, shape, what)
    if "S" in letters or ("C" in letters and shape[letters.index("C")] > 1):
        return None
    left = [letter for letter in "TZYX" if letter in letters]
    order = [letters.index(letter) for letter in ("C" * ("C" in letters), *left) if letter]
    sizes = [shape[letters.index(letter)] for letter in left]
    return values.transpose(order).reshape(sizes), "".join(left), False


def colours_to_ids(
    values: np.ndarray, what: str, labels_as: str | None = COLOURS
) -> tuple[np.ndarray, str]:
    """Return a picture's colours as ids, from 1 on in the order of the colours, and a remark.

    Parameters
    ----------
    values
        Integers (..., Y, X, S) with 3 or 4 samples; what is fully transparent is background.

    Returns
    -------
    np.ndarray, str
        Integers (..., Y, X). Black is background, or where there is none the colour of most pixels.

    Raises
    ------
    InputError
        The samples are no integers.
    """
    if values.dtype.kind not in "ui" or values.shape[-1] not in (3, 4):
        raise InputError(f"{what} holds {values.dtype}; give colours of 8 or 16 bits.")
    code = np.zeros(values.shape[:-1], np.uint64)
    for sample in range(3):
        code = code * np.uint64(2**16) + values[..., sample].astype(np.uint64)
    if values.shape[-1] == 4:
        code[values[..., 3] == 0] = 0
    colours, place, counts = np.unique(code, return_inverse=True, return_counts=True)
    ground = 0 if colours[0] == 0 else int(np.argmax(counts))
    ids = np.zeros(len(colours), np.uint32)
    ids[np.arange(len(colours)) != ground] = np.arange(1, len(colours))
    name = "black"
    if colours[ground]:
        name = f"{_rgb(colours[ground])}, the colour of most pixels,"
    whole = labels_as == COLOURS
    kind = "each colour is an object" if whole else "connected pieces of one colour are objects"
    remark = f"{kind} ({len(colours) - 1:,} colours); {name} is background"
    return ids[place].reshape(code.shape), remark


def _rgb(code: Any) -> str:
    parts = (int(code) >> 32, (int(code) >> 16) & 0xFFFF, int(code) & 0xFFFF)
    return "#" + "".join(f"{part if part < 256 else part >> 8:02x}" for part in parts)


def check_lossless(path: Path) -> None:
    """Refuse a file whose compression changes values: JPEG, and lossy WebP, JPEG 2000 and TIFF.

    The content counts, not the name.

    Raises
    ------
    InputError
        Values of such a file are not the labels that were written.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        kind = _lossy_kind(head)
        if not kind and head[:2] in (b"II", b"MM"):
            kind = _lossy_tiff(path)
    except UNREADABLE:  # whoever opens it as an image says what is wrong
        return
    if kind:
        raise InputError(
            f"{path} is compressed as {kind}, which changes values: its labels are not those that "
            "were drawn. Export them as TIFF or PNG from the program that made them."
        )


def _lossy_kind(head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8 ":
        return "WebP"
    if head[4:8] == b"jP  " or head.startswith(b"\xff\x4f\xff\x51"):
        style = head.find(b"\xff\x52")  # coding style: its last byte but precincts is the wavelet
        if 0 <= style and head[style + 13 : style + 14] == b"\0":
            return "JPEG 2000"
    return ""


def _lossy_tiff(path: Path) -> str:
    import tifffile

    from napari_unet.core.io.tiff import silence_tifffile

    with silence_tifffile(), tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.compression in (6, 7, 33007) and page.dtype == np.uint8:
            return "JPEG inside a TIFF"
        if page.compression in (33003, 33005, 34712, 50001) and page.dataoffsets[0]:
            file.filehandle.seek(page.dataoffsets[0])
            kind = _lossy_kind(file.filehandle.read(4096))
            return f"{kind} inside a TIFF" if kind else ""
    return ""


def fit_to_shape(values: np.ndarray, axes: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return labels in a shape that differs in axes of one time point or plane only, else None.

    Parameters
    ----------
    values, axes
        Labels, and a letter for each axis, in the order of "TZYX".
    shape
        The shape that they should have, in the same order.
    """
    if values.shape == shape:
        return values
    if _core_shape(values.shape) == _core_shape(shape):
        return values.reshape(shape)
    return None


def _core_shape(shape: Iterable[int]) -> tuple[int, ...]:
    *leading, height, width = shape
    return (*(size for size in leading if size != 1), height, width)


def without_single_axes(stack: Stack) -> Stack:
    """Return a stack without its T and Z axes of length 1."""
    single = [a for a, n in zip(stack.axes, stack.data.shape, strict=True) if a in "TZ" and n == 1]
    if not single:
        return stack
    keep = tuple(0 if letter in single else slice(None) for letter in stack.axes)
    axes = "".join(letter for letter in stack.axes if letter not in single)
    return replace(stack, data=PickedAxes(stack.data, keep), axes=axes, transform=None)


class PickedAxes(LazyArray):
    """An array at a fixed place along some axes, read when it is sliced.

    Parameters
    ----------
    data
        Array with basic slicing.
    keep
        For each axis of it a place, or a full slice if the axis stays.
    """

    def __init__(self, data: Any, keep: tuple[int | slice, ...]) -> None:
        self.data, self.keep = data, keep
        pairs = zip(data.shape, keep, strict=True)
        shape = tuple(int(size) for size, at in pairs if isinstance(at, slice))
        super().__init__(shape, data.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        left = iter(slice(span.start, span.stop, span.step) for span in spans)
        picked = tuple(next(left) if isinstance(at, slice) else at for at in self.keep)
        result: np.ndarray = np.asarray(self.data[picked])[drop]
        return result


class WholeNumbers(LazyArray):
    """Labels of a floating-point type as integers, each window checked when it is read."""

    def __init__(self, data: Any, what: str) -> None:
        super().__init__(tuple(int(n) for n in data.shape), np.dtype(np.int64))
        self.data, self.what = data, what

    def __getitem__(self, key: Any) -> np.ndarray:
        return whole_numbers(np.asarray(self.data[key]), self.what).astype(np.int64, copy=False)


def open_labels(source: Any, how: LabelReading | None = None, voxel_size_um: Any = None) -> Stack:
    """Open labels as a stack of whole numbers, lazily unless `labels_as` asks for all of them.

    Parameters
    ----------
    source
        A label file, an array, or a Stack.

    Raises
    ------
    InputError
        It cannot be read or holds no labels.
    """
    how = how or LabelReading()
    is_path = not hasattr(source, "shape") and not isinstance(source, Stack)
    path = expand_path(source) if is_path and "://" not in str(source) else None
    if path is not None:
        check_exists(path)
        check_lossless(path)
    if path is not None and (how.labels_as is not None or _palette_indices(path, how) is not None):
        read = read_label_file(path, how)
        how.remarks.extend(read.remarks)
        opened = open_stack(path, how.axes, voxel_size_um)
        return Stack(read.values, read.axes, opened.voxel_size_um, name=opened.name, path=path)
    stack = open_stack(source, how.axes, voxel_size_um)
    if stack.channels > 1:
        raise InputError(_channels_problem(stack.path or stack.name, stack))  # type: ignore[arg-type]
    if stack.dtype.kind == "f":
        data = WholeNumbers(stack.data, str(stack.path or f"The array {stack.name!r}"))
        stack = replace(stack, data=data)
    return stack
