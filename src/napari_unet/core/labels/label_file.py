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
from napari_unet.core.io.files import (
    UNREADABLE,
    check_exists,
    expand_path,
    image_stem,
    unreadable_error,
)
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.labels.encodings import (
    check_lossless,
    colours_to_ids,
    palette_indices,
)
from napari_unet.core.labels.foreign import foreign_kind, read_foreign
from napari_unet.core.labels.lazy_labels import WholeNumbers
from napari_unet.core.labels.object_check import (
    background_below_zero,
    connected_components,
    doubt_objects,
    remark_on_inversion,
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
    image
        Shape and axes of the labels, for files that hold outlines alone; None: not known.
    name
        The image's file name, to find it in a file with the labels of many.
    """

    labels_as: str | None = None
    axes: str | None = None
    ignore: int | None = None
    classes: bool = False
    ndim: int = 3
    image: tuple[tuple[int, ...], str] | None = None
    name: str | None = None
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
    remarks: list[str] = []
    if kind := foreign_kind(path):
        values, axes, found = read_foreign(path, kind, how.image, how.name)
        remarks += [f"{path}: {remark}" for remark in found]
        coloured = False
    else:
        values, axes, coloured = _read_values(path, how)
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
    remarks += [f"{path}: {said}" for said in (remark, remark_on_inversion(values)) if said]
    if how.labels_as == COMPONENTS:
        values = connected_components(values, axes, how.ndim)
    doubt = ""
    if how.labels_as in (None, COLOURS):
        doubt = doubt_objects(values, axes, how.ndim)
    return LabelData(values, axes, known, tuple(remarks), doubt)


def judge_stack(stack: Stack, ndim: int = 3) -> tuple[str, str]:
    """Look at labels that are read window by window; those larger than `JUDGED` are not looked at.

    Parameters
    ----------
    stack
        Labels of a file or layer.
    ndim
        Whether objects end with their plane (2) or go through z (3).

    Returns
    -------
    doubt, remark
        Why they look as if they were no objects, and that some lie below 0; each "" if not so.
    """
    if stack.channels > 1 or math.prod(stack.data.shape) > JUDGED:
        return "", ""
    window = tuple(slice(0, size) for size in stack.frame_shape(2))
    planes = [stack.read(index, window, (0,))[0] for index in stack.indices(2)]
    values, remark = background_below_zero(np.array(planes).reshape(stack.labels_shape))
    return doubt_objects(values, stack.labels_axes, ndim), remark


def doubt_sentence(path: Path | None, doubt: str) -> str:
    """Return what to say of labels that look as if they were no objects."""
    return f"{path}: {doubt}; {_ADVICE}, else --labels-as ids"


def _read_values(path: Path, how: LabelReading) -> tuple[np.ndarray, str, bool]:
    """Return values in the order of "TZYX", their axes, and whether they are colours (…, S)."""
    indices = palette_indices(path, how.axes, how.labels_as)
    if indices is not None:
        return (*indices, False)
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
        indexed = stack.path is not None and palette_indices(stack.path, None, IDS) is not None
        ids = "the numbers in its palette are the objects' ids (--labels-as ids), " * indexed
        return (
            f"{path} has {stack.channels} channels: it is a picture in colours, not labels; say so "
            f"if {ids}each colour is an object (--labels-as colours), or each connected piece "
            "(--labels-as components)."
        )
    return f"{path} has {stack.channels} channels; give labels, which have none."


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


def _is_encoded(path: Path, how: LabelReading) -> bool:
    """Return whether all of a file has to be read to know the ids in it."""
    if how.labels_as is not None or foreign_kind(path):
        return True
    return palette_indices(path, how.axes, None) is not None


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
    if path is not None and _is_encoded(path, how):
        read = read_label_file(path, how)
        how.remarks.extend(read.remarks)
        name, size_um = image_stem(path), voxel_size_um
        if not foreign_kind(path):
            opened = open_stack(path, how.axes, voxel_size_um)
            name, size_um = opened.name, opened.voxel_size_um
        stack = open_stack(read.values, read.axes, size_um)
        return replace(stack, name=name, path=path)
    stack = open_stack(source, how.axes, voxel_size_um)
    if stack.channels > 1:
        raise InputError(_channels_problem(stack.path or stack.name, stack))  # type: ignore[arg-type]
    if stack.dtype.kind == "f" or stack.dtype == np.uint64:
        data = WholeNumbers(stack.data, str(stack.path or f"The array {stack.name!r}"))
        stack = replace(stack, data=data)
    return stack
