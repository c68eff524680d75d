"""Datasets of HDF5 files, read in a process of their own.

The library is in C and goes on for ever at some damaged files: see `reader_process`, in which
`read` is called.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.array_files import choose_array
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.reader_process import read_apart
from napari_unet.core.io.size_claims import check_claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SIZE_UM = "element_size_um"
"""Attribute of a dataset that holds the voxel size (z, y, x), as ilastik and PlantSeg write it."""

LOCKED = {errno.EAGAIN, errno.EACCES}
"""What the system answers where another process holds the lock; else there are no locks."""


def find_hdf5_reader(path: Path, inner: str) -> Callable[[], Opened]:
    """Return what opens a dataset of a file in another process, "" for the only one.

    Raises
    ------
    InputError
        h5py is not installed.
    """
    if importlib.util.find_spec("h5py") is None:
        raise InputError(f"{path} needs h5py; install it: pip install 'napari-unet[formats]'.")
    return partial(read_apart, path, __name__, inner or None)


def import_package(_: Path) -> None:
    """Import what reads a file."""
    importlib.import_module("h5py")
    with suppress(ImportError):  # registers Blosc, Zstandard and others
        importlib.import_module("hdf5plugin")


class Hdf5Array(LazyArray):
    """A dataset of an HDF5 file, which is open for the length of one read only.

    Attributes
    ----------
    chunks
        Edges of the chunks in which it is stored; None if it lies in one piece.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with _open(path) as file:
            dataset = file[name]
            super().__init__(tuple(dataset.shape), dataset.dtype)
            self.chunks: tuple[int, ...] | None = dataset.chunks

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        flips = tuple(slice(None, None, -1 if span.step < 0 else 1) for span in spans)
        forward = [span[::-1] if span.step < 0 else span for span in spans]
        window = tuple(slice(span.start, span.stop, span.step) for span in forward)
        with _open(self.path) as file:
            dataset = file[self.name]
            try:
                values: np.ndarray = dataset[window]
            except OSError:
                _check_filters(self.path, dataset)
                raise
        result: np.ndarray = values[flips][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.name)


def read(path: Path, inner: str | None = None) -> Opened:
    """Open a dataset of an HDF5 file lazily; of several, the one that is named.

    Axes come from the attributes of ilastik (``axistags``) or the labels of its dimensions, the
    voxel size from ``element_size_um``.

    Raises
    ------
    InputError
        There is no such dataset, or another program writes to the file.
    """
    with _open(path) as file:
        names = list(_datasets(file, "", {}))
        name = choose_array(path, inner or "", names)
        dataset = file[name]
        if dataset.external:
            raise InputError(
                f"{path}:/{name} keeps its values in other files, which are not followed; export "
                "it once more."
            )
        piece = dataset.chunks or ()
        check_claim(
            path, math.prod(piece) * dataset.dtype.itemsize if piece else 0, path.stat().st_size
        )
        axes = _dataset_axes(dataset)
        size_um = _dataset_size(dataset, axes)
    return Opened(Hdf5Array(path.absolute(), name), axes, size_um)


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        writing = f"{path} is open for writing in another program"
        if "unable to lock file" in str(error):
            reason = re.search(r"errno = (\d+)", str(error))
            if reason and int(reason[1]) in LOCKED:
                raise InputError(f"{writing}; close it there and try again.") from error
            raise InputError(
                f"{path} cannot be locked where it lies ({error}); copy it to another disk, or "
                "start with the environment variable HDF5_USE_FILE_LOCKING=FALSE."
            ) from error
        if "already open for write" in str(error):  # as marked in the file, which outlives a crash
            raise InputError(
                f"{writing}, or was when that crashed; close it there, or run h5clear -s "
                f"{path.name}, and try again."
            ) from error
        raise


def _check_filters(path: Path, dataset: Any) -> None:
    """Raise InputError if chunks of a dataset are packed in a way that is not known here."""
    import h5py

    made = dataset.id.get_create_plist()
    for code, _, _, name in (made.get_filter(n) for n in range(made.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            called = name.decode(errors="replace").partition(";")[0] or "a filter"
            raise InputError(
                f"{path}:{dataset.name} is packed by {called} (number {code}), which is not "
                "installed: pip install hdf5plugin, or save the file with gzip."
            )


def _datasets(group: Any, prefix: str, seen: dict[Any, None]) -> Any:
    """Yield the paths of the datasets of 2 to 6 axes; links to other files are not followed."""
    import h5py

    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
            continue
        node = group.get(key)
        if isinstance(node, h5py.Dataset):
            if 2 <= node.ndim <= 6 and node.dtype.kind in "biuf":
                yield f"{prefix}{key}"
        elif isinstance(node, h5py.Group) and node.id not in seen and len(seen) < 10_000:
            seen[node.id] = None
            yield from _datasets(node, f"{prefix}{key}/", seen)


def _dataset_axes(dataset: Any) -> str:
    """Return the axes that a dataset names, "" if it names none of ours."""
    import json

    letters = ""
    tags = dataset.attrs.get("axistags")
    if isinstance(tags, (str, bytes)):
        letters = "".join(str(axis.get("key", "?"))[:1] for axis in json.loads(tags)["axes"])
    elif all(dim.label for dim in dataset.dims):
        letters = "".join(dim.label[:1] for dim in dataset.dims)
    letters = letters.upper()
    fits = len(letters) == dataset.ndim == len(set(letters)) and set(letters) <= set("TCZYX")
    return letters if fits and {"Y", "X"} <= set(letters) else ""


def _dataset_size(dataset: Any, axes: str) -> tuple[float, float, float] | None:
    found = np.asarray(dataset.attrs.get(_SIZE_UM, ()), float).ravel()
    if found.size not in (2, 3) or not (np.isfinite(found) & (found > 0)).all():
        return None
    z, y, x = (1.0, *found.tolist()) if found.size == 2 else found.tolist()
    return z, y, x
