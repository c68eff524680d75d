"""How a journal begins: which image, which labels, which model; and where journals lie."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import Record, first_header
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.provenance import hash_stack
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDING = ".journal"


@dataclass(frozen=True)
class JournalHeader:
    """What a journal says of its image, its labels and its model.

    Attributes
    ----------
    image
        The image's `hash_stack`; the journal's folder is named by it.
    name, path
        The image's name, and the file that it can be read from again; "" if there is none, as for
        an array in memory: the journal then keeps the frames that were worked on.
    image_axes
        Axes of the image, as `Stack.axes`.
    shape, axes, dtype
        Of the labels; `dtype` as "<u2".
    ndim
        2: a frame is a plane (Y, X); 3: it is a volume (Z, Y, X).
    whole
        The labels as they were at the beginning are in the journal, all of them. Otherwise those
        of a frame are put there when it is first worked on.
    labels_hash
        `hash_stack` of the labels as they were at the beginning.
    model, model_hash
        Name and hash of the model that made the labels, or that is to learn from the corrections.
    head
        "instance": labels are objects; "semantic": they are classes.
    date
        Seconds since 1970.
    """

    image: str
    name: str
    path: str
    image_axes: str
    shape: tuple[int, ...]
    axes: str
    dtype: str
    ndim: int
    whole: bool
    labels_hash: str = ""
    model: str = ""
    model_hash: str = ""
    head: str = "instance"
    date: float = field(default_factory=time.time)

    def record(self) -> Record:
        """Return what is written of it."""
        return Record({"kind": "begin", **dataclasses.asdict(self)})

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> JournalHeader:
        """Return the beginning that a record's header says.

        Raises
        ------
        InputError
            It says something else.
        """
        values = {key: value for key, value in header.items() if key != "kind"}
        try:
            return cls(**{**values, "shape": tuple(values["shape"])})
        except (TypeError, KeyError) as error:
            raise InputError(
                f"A journal begins in a way that this version does not know ({error}); "
                "update napari-unet."
            ) from error

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the axes that count frames."""
        return self.shape[: len(self.shape) - self.ndim]

    @property
    def frame_planes(self) -> int:
        """Planes (Y, X) of a frame."""
        return math.prod(self.shape[len(self.leading) : -2])


@dataclass(frozen=True)
class JournalFile:
    """A journal on the disk, and how it begins."""

    path: Path
    begin: JournalHeader

    @property
    def modified(self) -> float:
        """When it was last written to, in seconds since 1970; 0 if it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def identify(stack: Stack) -> str:
    """Return what an image is known by, wherever its file lies: its `hash_stack`.

    Raises
    ------
    InputError
        A part of the image cannot be read.
    """
    found = hash_stack(stack)
    if found is None:
        raise InputError(
            f"{stack.name} cannot be read in full, so that corrections could not be told from "
            "those of another image; repair the file."
        )
    return found


def journal_folder(image: str) -> Path:
    """Return the folder of an image's journals, by its fingerprint; it need not exist."""
    return home() / "journal" / image.rpartition(":")[2][:32]


def new_path(image: str) -> Path:
    """Return a path for a new journal; its name is the time."""
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    return journal_folder(image) / f"{now}-{uuid.uuid4().hex[:6]}{ENDING}"


def sweep(folder: Path) -> None:
    """Remove what is left of journals whose process was killed while it began them, a day ago."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > 24 * 3600:
                partial.unlink()


def find_journals(image: Stack | None = None) -> list[JournalFile]:
    """List an image's journals, or those of all images, the last one written to first.

    The image's content counts, not its path: a file that was moved has its journals, one that was
    changed has none.
    """
    folder = home() / "journal" if image is None else journal_folder(identify(image))
    paths = folder.glob(f"{'*/' if image is None else ''}*{ENDING}")
    return sorted(_places(paths), key=lambda place: (-place.modified, place.path.name))


def read_header(stack: Stack, labels: Any, ndim: int, whole_bytes: int) -> JournalHeader:
    """Describe the labels of an image, before the first correction.

    Raises
    ------
    InputError
        Labels of another shape than the image's or of another type, or an image that cannot be
        read.
    """
    shape = tuple(int(n) for n in labels.shape)
    dtype = np.dtype(labels.dtype)
    if shape != stack.labels_shape or dtype.kind not in "ui" or not 2 <= ndim <= 3:
        raise InputError(
            f"The labels of {stack.name} are {dtype} of shape {shape}; give integers of shape "
            f"{stack.labels_shape}."
        )
    ndim = ndim if "Z" in stack.axes else 2
    image = identify(stack)
    return JournalHeader(
        image=image,
        name=stack.name,
        path=same_file(stack, stack.path, image),
        image_axes=stack.axes,
        shape=shape,
        axes=stack.labels_axes,
        dtype=dtype.newbyteorder("<").str,
        ndim=ndim,
        whole=math.prod(shape) * dtype.itemsize <= whole_bytes,
        labels_hash=hash_stack(Stack(labels, stack.labels_axes)) or "",
    )


def same_file(stack: Stack, path: Path | None, image: str) -> str:
    """Return the path as text if the very same image is read from it, otherwise ""."""
    if path is None:
        return ""
    try:
        again = open_stack(path, stack.axes)
        return str(path.absolute()) if hash_stack(again) == image else ""
    except UnetError:
        return ""


def _places(paths: Iterator[Path]) -> Iterator[JournalFile]:
    for path in paths:
        header = first_header(path)
        if header is not None and header.get("kind") == "begin":
            try:
                yield JournalFile(path, JournalHeader.from_header(header))
            except InputError:  # of a newer version: to open it says so
                continue
