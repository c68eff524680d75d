"""The folder of an unfinished run: what is in it is finished, whenever the run was killed.

``.NAME.unfinished`` lies beside the target and holds:

- ``plan.json``: everything that decides the labels, resolved once (`RunPlan`);
- ``model/``: the network, so that other computers need nothing but this folder and the data;
- ``frames/``: for frames of several blocks, the intensities that become 0 and 1;
- ``blocks/``: a file for each finished block (of small frames: for a batch of them, see
  `PlaneBatches`), with its pixels' provisional ids and its `BlockSummary`, or with its labels;
- ``failed/``: a file for each block whose data could not be read, with the reason;
- ``join/``: the tables that turn provisional ids into labels; ``stacked/``: those that join the
  objects of planes through z; ``result/``: the OME-Zarr image; ``preview/``: provisional labels;
- ``written/``: a mark for each part of the result that is on the disk;
- ``lock``: held while a process works here; the operating system frees it when that one dies.

A file is synced before it gets its name (`atomic_file`), so a file that exists is complete. Files
are written by whichever process computes them, on whichever computer.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.run_plan import PLAN, RunPlan
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import atomic_file, make_folder
from napari_unet.core.io.ome_zarr_labels import LabelImage, chunks_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_unet.core.tiles import Window


_FILES_PER_FOLDER = 1000
"""Files in one folder, at most: shared file systems are slow with more."""
_COLOUR_STEP = 7919
"""Preview ids of neighbouring blocks start this far apart, so that their colours differ."""


class RunDirectory:
    """The files of an unfinished run, by what they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def plan(self) -> RunPlan:
        """The run's plan.

        Raises
        ------
        OutputError
            It is missing, or cannot be read.
        """
        try:
            return RunPlan.from_json((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.folder} holds no plan that can be read ({error}); check that this computer "
                "sees the folder, or begin anew (--overwrite)."
            ) from error

    @property
    def result(self) -> Path:
        """The folder of the OME-Zarr image that becomes the result."""
        return self.folder / "result"

    @property
    def label_image(self) -> LabelImage:
        """The OME-Zarr image that becomes the result."""
        plan = self.plan
        chunks = chunks_for(plan.shape, plan.ndim, plan.block, plan.planes_per_batch)
        return LabelImage(
            self.result, plan.axes, plan.shape, chunks, plan.identity["zarr_format"], plan.levels
        )

    @property
    def preview(self) -> Path:
        """The folder of the arrays of provisional labels, one for each level."""
        return self.folder / "preview"

    def block(self, batch: int, number: int) -> Path:
        """Return the file of a finished block of a batch of frames."""
        return self._numbered("blocks", batch, number, "blk")

    def failure(self, frame: int, number: int) -> Path:
        """Return the file with the reason why a block of a frame is empty."""
        return self._numbered("failed", frame, number, "json")

    def node(self, frame: int, level: int, number: int) -> Path:
        """Return the file of a node's `RegionGraph` and `MergeResult`."""
        return self._numbered(f"join/up{level}", frame, number, "tab")

    def labels(self, frame: int, level: int, number: int) -> Path:
        """Return the file of the labels of a node's roots."""
        return self._numbered(f"join/down{level}", frame, number, "tab")

    def numbers(self, frame: int) -> Path:
        """Return the file with the label at which each node of a frame starts."""
        return self.folder / "join" / f"numbers{frame:07d}.tab"

    def stacked(self, volume: int) -> Path:
        """Return the file of the tables that join the objects of a volume's planes."""
        return self.folder / "stacked" / f"{volume:07d}.tab"

    def frame(self, frame: int) -> Path:
        """Return the file of a frame's intensities."""
        return self._numbered("frames", 0, frame, "json")

    def mark(self, level: int, batch: int, number: int) -> Path:
        """Return the mark of a written part of the result."""
        return self._numbered(f"written/{level}", batch, number, "ok")

    def done(self, kind: str, row: int) -> set[int]:
        """List the numbers of the files of a frame, or a batch of frames.

        Parameters
        ----------
        kind
            A folder's name, such as "blocks", "failed" or "join/up0".
        row
            Number of the frame or batch.
        """
        found = set()
        top = self.folder / kind / f"{row:07d}"
        with suppress(FileNotFoundError):
            for part in os.scandir(top):
                for entry in os.scandir(part.path):
                    stem = entry.name.partition(".")[0]
                    if stem.isdecimal():  # names of unfinished files begin with a dot
                        found.add(int(stem))
        return found

    def empty(self) -> None:
        """Delete everything but the lock; the plan first, for without it the rest is no run."""
        self.__dict__.pop("plan", None)
        (self.folder / PLAN).unlink(missing_ok=True)
        for entry in self.folder.iterdir():
            if entry.is_dir():
                clear(entry)
            elif not entry.name.startswith("lock"):
                entry.unlink(missing_ok=True)

    def check_run(self, run: str) -> None:
        """Raise OutputError unless the folder still belongs to that run."""
        with suppress(OSError, ValueError, KeyError):
            values = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
            if values["run"] == run:
                return
        raise OutputError(f"{self.folder} is gone or belongs to another run; start the run again.")

    def _numbered(self, kind: str, row: int, number: int, suffix: str) -> Path:
        folder = self.folder / kind / f"{row:07d}" / f"{number // _FILES_PER_FOLDER:06d}"
        return folder / f"{number:09d}.{suffix}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an unfinished run.

    Raises
    ------
    OutputError
        Another process works there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    who = folder / "lock.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            holder = json.loads(who.read_text(encoding="utf-8"))
            name = f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError):
            name = "another process"
        raise OutputError(
            f"{folder} is being written by {name}; wait for its end, or choose another place."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be locked: {error.strerror or error}; choose another place."
        ) from error
    try:
        with suppress(OSError):
            who.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        lock.release()
        with suppress(OSError):  # nothing but the lock is left: remove the folder, too
            if {entry.name for entry in folder.iterdir()} <= {"lock", "lock.json"}:
                who.unlink(missing_ok=True)
                (folder / "lock").unlink(missing_ok=True)
                folder.rmdir()


def write_run_text(path: Path, text: str) -> None:
    """Write a small file atomically; its folders are made."""
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write compressed arrays into one file, atomically; its folders are made."""
    make_folder(path.parent)
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(name, _compress(values))


def packed_size(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many bytes `write_arrays` would write, without the table of contents."""
    return sum(len(_compress(values)) for values in arrays.values())


def _compress(values: np.ndarray) -> bytes:
    from numcodecs import Blosc

    head = json.dumps({"dtype": values.dtype.str, "shape": values.shape}).encode()
    codec = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
    body = bytes(codec.encode(np.ascontiguousarray(values))) if values.size else b""
    return head + b"\n" + body


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Read some arrays of a file, or all of them.

    Raises
    ------
    OutputError
        The file is missing or damaged: the disk lost what it had confirmed.
    """
    from numcodecs import Blosc

    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names or archive.namelist():
                head, _, body = archive.read(name).partition(b"\n")
                kind = json.loads(head)
                values = np.frombuffer(Blosc().decode(body) if body else b"", kind["dtype"])
                found[name] = values.reshape(kind["shape"])
    except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
        raise OutputError(
            f"{path} is missing or damaged ({error}); delete it and go on with --resume."
        ) from error
    return found


def clear(folder: Path) -> None:
    """Delete a folder with everything in it, if it exists."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be deleted: {error.strerror or error}; delete it by hand."
        ) from error


def make_preview(directory: RunDirectory) -> None:
    """Make the arrays of provisional labels, one for each level, unless they exist."""
    import zarr

    image, leading = directory.label_image, len(directory.plan.leading)
    for level in range(image.levels):
        if not (path := directory.preview / str(level)).exists():
            shape = image.level_shape(level)
            chunks = (1,) * leading + image.chunks[leading:]  # it is written frame by frame
            zarr.create_array(
                str(path),
                shape=shape,
                dtype=np.uint32,
                chunks=tuple(max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True)),
            )


def open_preview(folder: Path) -> list[Any]:
    """Open the arrays of a `RunDirectory.preview` for reading, the full resolution first."""
    import zarr

    paths = sorted(folder.iterdir(), key=lambda path: int(path.name))
    return [zarr.open_array(str(path), mode="r") for path in paths]


def write_preview(directory: RunDirectory, frame: int, window: Window, labels: np.ndarray) -> None:
    """Write a block's provisional labels into every level of the preview."""
    import zarr

    plan = directory.plan
    if plan.decode is not None:
        blocks_before = sum(
            w.start // max(1, edge) for w, edge in zip(window, plan.block, strict=True)
        )
        labels = np.where(labels > 0, labels + np.uint32(blocks_before * _COLOUR_STEP), 0)
    *planes, rows, columns = window
    for level in range(directory.label_image.levels):
        step = 2**level  # the first of so many pixels is kept
        y, x = (slice(-(-w.start // step), -(-w.stop // step)) for w in (rows, columns))
        offsets = [at.start * step - w.start for at, w in ((y, rows), (x, columns))]
        part = labels[..., offsets[0] :: step, offsets[1] :: step]
        if part.size:
            array: Any = zarr.open_array(str(directory.preview / str(level)), mode="r+")
            array[(*plan.index(frame), *planes, y, x)] = part
