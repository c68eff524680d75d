"""The beginning of a journal (image, model, initial labels), and where journals lie.

Journals are found by the content of their image, so that an image file may be moved.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
import uuid
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import Header, Record, RecordFile, first_header
from napari_unet.core.annotations.edits import is_count, is_moment, is_readable
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.provenance import hash_stack
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.annotations.edits import Edit


ENDING = ".journal"
WHOLE_BYTES = 512 * 2**20
"""Labels of up to this size are copied into a new journal as a whole."""
REACH = 16
"""Of a frame larger than `WHOLE_BYTES`, this many planes on either side of an edit are copied."""
LARGEST_LABELS = 2**48
"""Pixels of the labels of a journal, at most."""
_LABEL_TYPES = {
    np.dtype(f"{kind}{size}").newbyteorder("<").str for kind in "ui" for size in (1, 2, 4, 8)
}
_BLOCK = 2**22  # pixels in a record: a few MB, so that reading a plane needs little memory


@dataclass(frozen=True)
class JournalHeader:
    """The image, the labels and the model that a journal belongs to.

    Attributes
    ----------
    image
        The image's `hash_stack`; the journal's folder is named by it.
    name, path
        The image's name, and the file that it can be read from again; "" for an image in memory
        only, of which the journal keeps snapshots of the frames that were worked on.
    image_axes
        Axes of the image, as `Stack.axes`.
    shape, axes, dtype
        Of the labels; `dtype` as "<u2".
    ndim
        2: a frame is a plane (Y, X); 3: it is a volume (Z, Y, X).
    whole
        Whether all initial labels are in the journal. Otherwise those of a frame are added when it
        is first worked on.
    labels_hash
        `hash_stack` of the initial labels.
    model, model_hash
        Name and hash of the model that made the labels, or that is to learn from the corrections.
    head
        "instance": labels are objects; "semantic": they are classes.
    date
        Seconds since 1970.
    channel
        Which channel of the image the labels are of, counted from 0; None: as a model takes them.
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
    channel: int | None = None

    def record(self) -> Record:
        """Return the header as a journal's first record; its keys are the names of the fields.

        A channel that nobody chose is left out, so that earlier versions read the journal, too.
        """
        values = dataclasses.asdict(self)
        if self.channel is None:
            del values["channel"]
        return Record({"kind": "begin", **values})

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> JournalHeader:
        """Build the header from the first record of a journal.

        Raises
        ------
        InputError
            Fields are missing or unknown, or hold what no journal can be about.
        """
        values = {key: value for key, value in header.items() if key != "kind"}
        try:
            found = cls(**{**values, "shape": tuple(values["shape"])})
        except (TypeError, KeyError) as error:
            raise InputError(
                f"A journal begins in a way that this version does not know ({error}); "
                "update napari-unet."
            ) from error
        if problem := _header_problem(found):
            raise InputError(f"A journal's beginning is damaged: {problem}; move the file away.")
        return found

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the axes before those of a frame."""
        return self.shape[: len(self.shape) - self.ndim]

    @property
    def frame_planes(self) -> int:
        """Number of planes (Y, X) in a frame."""
        return math.prod(self.shape[len(self.leading) : -2])


def _header_problem(header: JournalHeader) -> str:
    """Say which field holds what no journal can be about; "" if all are as they should be."""
    texts = ("image", "name", "path", "image_axes", "axes", "dtype", "labels_hash", "model")
    for name in (*texts, "model_hash", "head"):
        value = getattr(header, name)
        if not isinstance(value, str) or not is_readable(value):
            return f"{name} is {value!a:.60}"
    shape, axes = header.shape, header.axes
    sizes = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
    if not sizes or len(shape) > 4 or math.prod(shape) > LARGEST_LABELS:
        return f"shape is {shape!a:.60}"
    if len(axes) != len(shape) or "".join(a for a in "TZYX" if a in axes) != axes:
        return f"axes are {axes!a:.60} for a shape of {len(shape)}"
    checks = {
        "axes": axes.endswith("YX"),
        "dtype": header.dtype in _LABEL_TYPES,
        "ndim": header.ndim in (2, 3) and header.ndim <= len(shape),
        "whole": isinstance(header.whole, bool),
        "head": header.head in ("instance", "semantic"),
        "date": is_moment(header.date),
        "channel": header.channel is None or is_count(header.channel, LARGEST_LABELS),
    }
    return next(
        (f"{n} is {getattr(header, n)!a:.60}" for n, good in checks.items() if not good), ""
    )


@dataclass(frozen=True)
class JournalFile:
    """A journal on the disk, and its header."""

    path: Path
    header: JournalHeader

    @property
    def modified(self) -> float:
        """Time of the last write, in seconds since 1970; 0 if the file is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def image_fingerprint(stack: Stack) -> str:
    """Return the `hash_stack` of an image's content, by which its journals are found.

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
    # 128 bits of the hash identify an image; paths on Windows must stay short.
    return home() / "journal" / image.rpartition(":")[2][:32]


def new_path(image: str) -> Path:
    """Return a path for a new journal, named by the time."""
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    return journal_folder(image) / f"{now}-{uuid.uuid4().hex[:6]}{ENDING}"


def sweep_unfinished(folder: Path) -> None:
    """Remove unfinished files of journals whose process was killed, if they are a day old."""
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > 24 * 3600:
                partial.unlink()


def find_journals(image: Stack | None = None) -> list[JournalFile]:
    """List an image's journals, or those of all images, the last one written to first.

    The image's content counts, not its path: a file that was moved has its journals, one that was
    changed has none.
    """
    folder = home() / "journal" if image is None else journal_folder(image_fingerprint(image))
    paths = folder.glob(f"{'*/' if image is None else ''}*{ENDING}")
    return sorted(_read_files(paths), key=lambda place: (-place.modified, place.path.name))


def make_header(stack: Stack, labels: Any, ndim: int) -> JournalHeader:
    """Build the header of a new journal.

    Raises
    ------
    InputError
        The labels are not integers of the image's shape, or the image cannot be read.
    """
    shape = tuple(int(n) for n in labels.shape)
    dtype = np.dtype(labels.dtype)
    if shape != stack.labels_shape or dtype.kind not in "ui" or not 2 <= ndim <= 3:
        raise InputError(
            f"The labels of {stack.name} are {dtype} of shape {shape}; give integers of shape "
            f"{stack.labels_shape}."
        )
    ndim = ndim if "Z" in stack.axes else 2
    image = image_fingerprint(stack)
    return JournalHeader(
        image=image,
        name=stack.name,
        path=same_file(stack, stack.path, image),
        image_axes=stack.axes,
        shape=shape,
        axes=stack.labels_axes,
        dtype=dtype.newbyteorder("<").str,
        ndim=ndim,
        whole=math.prod(shape) * dtype.itemsize <= WHOLE_BYTES,
        labels_hash=hash_stack(Stack(labels, stack.labels_axes)) or "",
    )


def same_file(stack: Stack, path: Path | None, image: str) -> str:
    """Return the absolute path if the very same image is read from it, otherwise ""."""
    if path is None:
        return ""
    try:
        again = open_stack(path, stack.axes)
        return str(path.absolute()) if hash_stack(again) == image else ""
    except UnetError:
        return ""


def _read_files(paths: Iterator[Path]) -> Iterator[JournalFile]:
    for path in paths:
        header = first_header(path)
        if header is not None and header.get("kind") == "begin":
            try:
                yield JournalFile(path, JournalHeader.from_header(header))
            except InputError:  # from a newer version; opening it will say so
                continue


class InitialLabels:
    """The initial labels in a journal: which planes (Y, X) it holds, and at which offsets.

    Planes are counted in C order over the axes before Y and X.
    """

    def __init__(self, header: JournalHeader) -> None:
        self.header = header
        self.planes = math.prod(header.shape[:-2])
        self._rows = max(1, _BLOCK // max(1, header.shape[-1]))
        self._blocks = max(1, -(-header.shape[-2] // self._rows))
        self._offsets: dict[int, list[tuple[int, int]]] = {}  # first row, and where it lies

    def take(self, offset: int, header: Header) -> None:
        """Note a record of kind "base"; raises ValueError for a place outside the labels."""
        plane, row = header["plane"], header["row"]
        if not is_count(plane, self.planes) or not is_count(row, self.header.shape[-2]):
            raise ValueError("it is of a plane outside the labels")
        self._offsets.setdefault(plane, []).append((row, offset))

    def __contains__(self, plane: int) -> bool:
        return len(self._offsets.get(plane, ())) >= self._blocks

    def stored(self) -> list[int]:
        """List the planes that the journal holds."""
        return sorted(plane for plane in self._offsets if plane in self)

    def read(self, file: RecordFile, plane: int, rows: slice | None = None) -> np.ndarray:
        """Return some rows of a plane, or all (Y, X); zeros if the journal does not hold them."""
        height, width = self.header.shape[-2:]
        wanted = slice(0, height) if rows is None else rows
        out = np.zeros((wanted.stop - wanted.start, width), self.header.dtype)
        records = self._offsets.get(plane, ())
        starts = sorted({row for row, _ in records} | {height})
        for row, offset in records:
            if row >= wanted.stop or starts[bisect_right(starts, row)] <= wanted.start:
                continue
            _, payload = file.read(offset)
            try:
                values = np.frombuffer(payload, self.header.dtype).reshape(-1, width)
                if len(values) > height - row:
                    raise ValueError("it holds more rows than the plane")
            except ValueError as error:
                raise InputError(f"{file.path} is damaged at byte {offset}: {error}.") from error
            stop = min(row + len(values), wanted.stop)
            start = max(row, wanted.start)
            if start < stop:
                out[start - wanted.start : stop - wanted.start] = values[start - row : stop - row]
        return out

    def records(self, plane: int, values: np.ndarray) -> Iterator[Record]:
        """Yield the records of a plane (Y, X), a block of rows each.

        Raises
        ------
        InputError
            Negative labels.
        """
        if values.min(initial=0) < 0:
            raise InputError("The labels are negative in places; give labels of 0 and above.")
        for row in range(0, max(1, len(values)), self._rows):
            block = np.ascontiguousarray(values[row : row + self._rows], self.header.dtype)
            yield Record({"kind": "base", "plane": plane, "row": row}, block.tobytes())

    def all_records(self, labels: Any) -> Iterator[Record]:
        """Yield the records of all labels, read plane by plane."""
        for plane in range(self.planes):
            yield from self.records(plane, self.read_plane(labels, plane))

    def read_plane(self, labels: Any, plane: int) -> np.ndarray:
        """Read a plane of the labels' array."""
        place = np.unravel_index(plane, self.header.shape[:-2]) if self.header.shape[:-2] else ()
        return np.asarray(labels[(*map(int, place), slice(None), slice(None))])

    def missing(self, first: int, stop: int) -> list[int]:
        """List the planes to copy into the journal before planes first:stop are changed."""
        if self.header.whole:
            return []
        size = self.header.frame_planes
        low, high = first // size * size, -(-stop // size) * size
        plane_bytes = math.prod(self.header.shape[-2:]) * np.dtype(self.header.dtype).itemsize
        if size * plane_bytes > WHOLE_BYTES:
            low, high = max(low, first - REACH), min(high, stop + REACH)
        return [plane for plane in range(low, high) if plane not in self]

    def before(self, labels: Any, plane: int, edit: Edit | None) -> np.ndarray:
        """Copy a plane as it was before an edit that the labels hold already."""
        values = np.array(self.read_plane(labels, plane))
        if edit is not None:
            flat, part = edit.clipped(plane * values.size, values.size, after=False)
            values.reshape(-1)[flat] = part
        return values
