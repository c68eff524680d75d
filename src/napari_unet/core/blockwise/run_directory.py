"""The folder of an unfinished run: what is in it is finished, whenever the run was killed.

Beside the target lies ``.NAME.unfinished``:

- ``plan.json``: everything that decides the labels, settled once (`RunPlan`);
- ``model/``: the network, so that other computers need nothing but this folder and the data;
- ``frames/``: the intensities of a frame of several blocks that become 0 and 1;
- ``blocks/``: a file for each finished block (of small frames: for a group of them, see
  `framegroups`), with its pixels' provisional ids and its `Pieces`, or with its labels;
- ``failed/``: a file for each block whose data could not be read, with the reason;
- ``join/``: the tables that turn provisional ids into labels; ``stacked/``: those that join the
  objects of planes through z; ``result/``: the OME-Zarr image;
- ``written/``: a mark for each part of the result that is on the disk;
- ``lock``: held while a process works here; the operating system frees it when that one dies.

A file is synced before it gets its name (`atomic_file`), so that a file's being there means that it
is complete. Files are written by whoever computes them, on whatever computer.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.run_plan import RunPlan
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import atomic_file, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


PER_FOLDER = 1000
"""Files that lie in one folder, at most: shared file systems are slow with more."""


class RunDirectory:
    """The files of an unfinished run, by what they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def plan(self) -> RunPlan:
        """The run's plan.

        Raises
        ------
        OutputError
            There is none here, or it cannot be read.
        """
        try:
            return RunPlan.from_json((self.folder / "plan.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.folder} holds no plan that can be read ({error}); check that this computer "
                "sees the folder, or begin anew (--overwrite)."
            ) from error

    @property
    def result(self) -> Path:
        """Where the OME-Zarr image is made."""
        return self.folder / "result"

    @property
    def preview(self) -> Path:
        """The folder of the arrays that provisional labels are shown from."""
        return self.folder / "preview"

    def block(self, group: int, number: int) -> Path:
        """Return the file of a finished block of a group of frames."""
        return self._numbered("blocks", group, number, "blk")

    def failure(self, frame: int, number: int) -> Path:
        """Return the file that says why a block of a frame is empty."""
        return self._numbered("failed", frame, number, "json")

    def node(self, frame: int, level: int, number: int) -> Path:
        """Return the file of what a joining decided."""
        return self._numbered(f"join/up{level}", frame, number, "tab")

    def labels(self, frame: int, level: int, number: int) -> Path:
        """Return the file of the labels of a node's roots."""
        return self._numbered(f"join/down{level}", frame, number, "tab")

    def numbers(self, frame: int) -> Path:
        """Return the file that says at which label each node of a frame begins."""
        return self.folder / "join" / f"numbers{frame:07d}.tab"

    def stacked(self, volume: int) -> Path:
        """Return the file that says which objects of a volume's planes are one."""
        return self.folder / "stacked" / f"{volume:07d}.tab"

    def frame(self, frame: int) -> Path:
        """Return the file of a frame's intensities."""
        return self._numbered("frames", 0, frame, "json")

    def mark(self, level: int, group: int, number: int) -> Path:
        """Return the mark of a written part of the result."""
        return self._numbered(f"written/{level}", group, number, "ok")

    def done(self, kind: str, at: int) -> set[int]:
        """List the numbers of the files that a frame, or a group, has of a kind.

        A kind is a folder's name, such as "blocks", "failed" or "join/up0".
        """
        found = set()
        top = self.folder / kind / f"{at:07d}"
        with suppress(FileNotFoundError):
            for part in os.scandir(top):
                for entry in os.scandir(part.path):
                    stem = entry.name.partition(".")[0]
                    if stem.isdecimal():  # those being written begin with a dot
                        found.add(int(stem))
        return found

    def empty(self) -> None:
        """Delete everything but the lock."""
        self.__dict__.pop("plan", None)
        for entry in self.folder.iterdir():
            if entry.is_dir():
                clear(entry)
            elif not entry.name.startswith("lock"):
                entry.unlink(missing_ok=True)

    def check(self, run: str) -> None:
        """Raise OutputError unless the folder still belongs to that run."""
        with suppress(OSError, ValueError, KeyError):
            values = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
            if values["run"] == run:
                return
        raise OutputError(f"{self.folder} is gone or belongs to another run; start the run again.")

    def _numbered(self, kind: str, frame: int, number: int, suffix: str) -> Path:
        folder = self.folder / kind / f"{frame:07d}" / f"{number // PER_FOLDER:06d}"
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
        with suppress(OSError):  # an empty folder goes with its lock
            if {entry.name for entry in folder.iterdir()} <= {"lock", "lock.json"}:
                who.unlink(missing_ok=True)
                (folder / "lock").unlink(missing_ok=True)
                folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a small file whole, and the folders that it lies in."""
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write compressed arrays into one file, whole, and the folders that it lies in."""
    make_folder(path.parent)
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(name, _packed(values))


def packed_size(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many bytes `write_arrays` would write, but for the file's directory."""
    return sum(len(_packed(values)) for values in arrays.values())


def _packed(values: np.ndarray) -> bytes:
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
    """Delete a folder with all that is in it, if it is there."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be deleted: {error.strerror or error}; delete it by hand."
        ) from error
