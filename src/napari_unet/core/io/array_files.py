"""Arrays of numpy (.npy, .npz); nothing of them is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import Opened
from napari_unet.core.io.lazy_arrays import LazyArray
from napari_unet.core.io.size_claims import check_claim

if TYPE_CHECKING:
    from pathlib import Path


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
        name = choose_array(path, inner, names)
        member = archive.getinfo(f"{name}.npy")
        check_claim(path, member.file_size, member.compress_size, "deflate")
        with archive.open(member) as file:
            shape, _, dtype = _read_header(path, file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise InputError(f"{path} is cut short or damaged; copy or export it once more.")
        with archive.open(member) as file:
            return Opened(np.lib.format.read_array(file, allow_pickle=False), "", None)


def choose_array(path: Path, wanted: str, names: list[str]) -> str:
    """Return the array that is asked for, or the only one."""
    if wanted in names or (not wanted and len(names) == 1):
        return wanted or names[0]
    if not names:
        raise InputError(f"{path} holds no image; give a file with an array of 2 to 5 axes.")
    held = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    problem = f"has no array {wanted}" if wanted else "has to be told which array to read"
    raise InputError(f"{path} {problem}; it holds {held}. Give {path}:{names[0]}.")
