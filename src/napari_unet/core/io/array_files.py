"""Arrays of numpy (.npy, .npz) and of HDF5 files; nothing of them is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.size_claims import check_claim

if TYPE_CHECKING:
    from pathlib import Path

_SIZE_UM = "element_size_um"
"""Attribute of a dataset that holds the voxel size (z, y, x), as ilastik and PlantSeg write it."""


class MappedArray(LazyArray):
    """An array of an .npy file, mapped into memory for the length of one read."""

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], order: str
    ) -> None:
        super().__init__(shape, dtype)
        self.path, self.offset, self.order = path, offset, order

    def __getitem__(self, key: Any) -> np.ndarray:
        order: Any = self.order
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)
        return np.array(mapped[key])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.offset, self.shape, self.dtype, self.order)


class Hdf5Array(LazyArray):
    """A dataset of an HDF5 file, which is open for the length of one read only.

    Attributes
    ----------
    chunks
        Edges of the chunks in which it is stored; None if it lies in one piece.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with _open_hdf5(path) as file:
            dataset = file[name]
            super().__init__(tuple(dataset.shape), dataset.dtype)
            self.chunks: tuple[int, ...] | None = dataset.chunks

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        flips = tuple(slice(None, None, -1 if span.step < 0 else 1) for span in spans)
        forward = [span[::-1] if span.step < 0 else span for span in spans]
        window = tuple(slice(span.start, span.stop, span.step) for span in forward)
        with _open_hdf5(self.path) as file:
            values: np.ndarray = file[self.name][window]
        result: np.ndarray = values[flips][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.name)


def read_numpy(path: Path, inner: str = "") -> Opened:
    """Open an array of numpy; of an .npz with several, the one that is named.

    Raises
    ------
    InputError
        It holds Python objects, is cut short, or has no such array.
    """
    if path.suffix.lower() == ".npz":
        return _read_npz(path, inner)
    with open(path, "rb") as file:
        shape, fortran, dtype = _read_header(path, file)
        offset = file.tell()
    if offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise InputError(f"{path} is cut short or damaged; copy or export it once more.")
    if 0 in shape or not shape:
        return Opened(np.zeros(shape, dtype), "", None)
    return Opened(MappedArray(path.absolute(), offset, shape, dtype, "CF"[fortran]), "", None)


def _read_header(path: Path, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version, np.lib.format.read_array_header_2_0)
    shape, fortran, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape of {shape}")
    if dtype.hasobject:
        raise InputError(
            f"{path} holds Python objects, which are never loaded; save the image as a plain array."
        )
    return shape, fortran, dtype


def _read_npz(path: Path, inner: str) -> Opened:
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        name = _choose(path, inner, names)
        member = archive.getinfo(f"{name}.npy")
        check_claim(path, member.file_size, member.compress_size, "deflate")
        with archive.open(member) as file:
            shape, _, dtype = _read_header(path, file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise InputError(f"{path} is cut short or damaged; copy or export it once more.")
        with archive.open(member) as file:
            return Opened(np.lib.format.read_array(file, allow_pickle=False), "", None)


def _choose(path: Path, wanted: str, names: list[str]) -> str:
    """Return the array that is asked for, or the only one."""
    if wanted in names or (not wanted and len(names) == 1):
        return wanted or names[0]
    if not names:
        raise InputError(f"{path} holds no image; give a file with an array of 2 to 5 axes.")
    held = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    problem = f"has no array {wanted}" if wanted else "has to be told which array to read"
    raise InputError(f"{path} {problem}; it holds {held}. Give {path}:{names[0]}.")


def read_hdf5(path: Path, inner: str = "") -> Opened:
    """Open a dataset of an HDF5 file lazily; of several, the one that is named.

    Axes come from the attributes of ilastik (``axistags``) or the labels of its dimensions, the
    voxel size from ``element_size_um``.

    Raises
    ------
    InputError
        h5py is not installed, or there is no such dataset.
    """
    with _open_hdf5(path) as file:
        names = list(_datasets(file, "", {}))
        name = _choose(path, inner, names)
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


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path} needs h5py; install it: pip install 'napari-unet[formats]'."
        ) from error
    return h5py.File(path, "r")


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
