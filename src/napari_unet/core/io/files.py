"""Files on disk: paths as users write them, kinds of images, listing, matching, atomic writing."""

from __future__ import annotations

import lzma
import os
import re
import struct
import unicodedata
import uuid
import zipfile
import zlib
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unet.core.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.io.coordinate_transform import CoordinateTransform

TIFF_SUFFIXES = (
    ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".stk", ".ndpi", ".svs", ".qptiff", ".scn"
)  # fmt: skip
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k")
ARRAY_SUFFIXES = (".npy", ".npz")
HDF5_SUFFIXES = (".h5", ".hdf5")
ZIP_SUFFIXES = (".ozx", ".zip")
"""Archives with a Zarr in them; a folder of images may hold a ``.zip`` of anything else."""
VENDOR_SUFFIXES = (".czi", ".lif", ".nd2", ".oib", ".oif")
"""Files of microscopes, which the extra ``formats`` reads."""
APART_SUFFIXES = (".czi", *HDF5_SUFFIXES)
"""Those of files whose library is in C and may hang or crash, see `reader_process`."""
SUFFIXES = (
    *TIFF_SUFFIXES,
    *PHOTO_SUFFIXES,
    ".zarr",
    ".ozx",
    *ARRAY_SUFFIXES,
    *HDF5_SUFFIXES,
    *VENDOR_SUFFIXES,
)
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
"""Files that make a folder a Zarr array or group."""

_INNER = re.compile(
    rf"(?P<file>.*(?:{'|'.join(map(re.escape, (*HDF5_SUFFIXES, '.npz')))})):(?P<inner>.+)",
    re.IGNORECASE | re.DOTALL,
)

UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    SystemError,
    BufferError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What libraries raise on damaged files; they share no base class."""


class Opened(NamedTuple):
    """What a reader returns.

    Attributes
    ----------
    data
        Lazy array.
    axes
        One letter for each axis, S for colour samples; "" if the file does not say.
    voxel_size_um
        (z, y, x), None if unknown.
    transform
        World coordinates, if the file says more than the voxel size.
    remarks
        What is unusual about how the file was read, in sentences.
    series
        Number of the image, where the file holds several.
    files
        All files that the image lies in, where there are several.
    channel_names
        A name for each channel, "" for one without; empty if the file names none.
    """

    data: Any
    axes: str
    voxel_size_um: tuple[float, float, float] | None
    transform: CoordinateTransform | None = None
    remarks: tuple[str, ...] = ()
    series: int | None = None
    files: tuple[Path, ...] = ()
    channel_names: tuple[str, ...] = ()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or else the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def unreadable_error(path: Path, error: BaseException) -> InputError:
    """Return a library's error as an InputError of one line."""
    reason = first_line(error).partition(": header=")[0]  # of tifffile, which adds the bytes
    kind = "Zarr" if path.is_dir() else path.suffix.lstrip(".").upper()
    return InputError(
        f"{path} cannot be read as {kind} ({reason}); it is damaged or something else, "
        "copy or export it once more."
    )


def expand_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` expanded."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a file named ``~draft.tif``, where there is no user "draft.tif"
        return Path(path)


def image_stem(path: Path) -> str:
    """Return an image file's name without its suffix, or without ``.ome.tif`` and the like."""
    file, inner = split_inner(path)
    stem = re.sub(r"\.zarr$", "", file.stem) if file.suffix.lower() in ZIP_SUFFIXES else file.stem
    return " ".join([stem.removesuffix(".ome"), *filter(None, inner.split("/"))])


def split_inner(path: Path) -> tuple[Path, str]:
    """Return the file of ``file.h5:/path/of/array``, and the path in it; "" for other paths."""
    found = _INNER.match(str(path))
    if found is None or path.exists():
        return path, ""
    return Path(found["file"]), found["inner"].replace("\\", "/").strip("/")


def image_name(path: Path) -> str:
    """Return the name by which an image is found again: with what is said of it in its file.

    Such as ``cells.tif``, ``file.h5:/path/of/array`` or, of a part of a Zarr, ``image.zarr/0``.
    """
    file = split_inner(path)[0]
    name = file.name + str(path)[len(str(file)) :].replace("\\", "/")
    for parent in file.absolute().parents:
        if not is_zarr(parent):
            break
        name = f"{parent.name}/{name}"
    return name


def image_exists(path: Path) -> bool:
    """Return whether an image is there; of an array in a file, whether the file is."""
    return path.exists() or split_inner(path)[0].exists()


def check_exists(*paths: Path) -> None:
    """Raise InputError for the first path that does not exist."""
    for path in paths:
        if not image_exists(path):
            raise InputError(f"{path} does not exist; check the spelling and the folder.")


def check_input_stays(source: Path, target: Path) -> None:
    """Raise OutputError if an output would replace what holds its input: a Zarr with the array."""
    holds = target.resolve() in split_inner(source)[0].resolve().parents
    if holds and (is_zarr(target) or target.suffix.lower() == ".zarr"):
        raise OutputError(
            f"{target} holds the input {source}; choose another place for the output."
        )


def is_zarr(path: Path) -> bool:
    """Return whether a path is the folder of a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_FILES)


def is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder that may hold images, not an image itself."""
    return path.is_dir() and not is_zarr(path)


def list_images(folder: str | Path) -> list[Path]:
    """List the images in a folder, including Zarr folders, in natural order (2 before 10).

    Raises
    ------
    InputError
        The folder is missing or holds no image.
    """
    folder = expand_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder with images.")
    try:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}.") from error
    images = [entry for entry in inside if _is_image(entry)]
    if not images:
        raise InputError(f"{folder} holds no image; give a folder with {', '.join(SUFFIXES)}.")
    return sorted(images, key=lambda entry: (list(_natural_order(entry.name)), entry.name))


def other_files(folder: Path) -> list[Path]:
    """List the files in a folder that are no images by their names; hidden ones are left out."""
    return sorted(
        entry
        for entry in expand_path(folder).iterdir()
        if entry.is_file() and not entry.name.startswith(".") and not _is_image(entry)
    )


def _is_image(entry: Path) -> bool:
    """Return whether an entry of a folder is an image by its name."""
    if entry.is_dir():
        return is_zarr(entry)
    name = entry.name.lower()
    if name.endswith("_seg.npy"):  # Cellpose's own file beside an image
        return False
    return entry.suffix.lower() in SUFFIXES or name.endswith(".zarr.zip")


def _natural_order(name: str) -> Iterator[tuple[int, int, str]]:
    for part in re.findall(r"\d+|\D+", name):
        yield (0, int(part), part) if part.isdecimal() else (1, 0, part.lower())


def images_by_name(folder: Path) -> dict[str, Path]:
    """List the images in a folder by their names without suffix.

    Names that are spelled with other characters, but read the same, are equal: macOS writes an
    accented letter as two.

    Raises
    ------
    InputError
        The folder holds no image, or two of the same name.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder):
        name = unicodedata.normalize("NFC", image_stem(path))
        if name in files:
            raise InputError(f"{folder} holds {files[name].name} and {path.name}; keep one.")
        files[name] = path
    return files


def make_folder(folder: Path) -> None:
    """Create a folder for results, with its parents.

    Raises
    ------
    OutputError
        It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder} cannot be made: {reason}; choose another place.") from error


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yield a temporary path that replaces `target` at the end.

    The file is synced to the disk before it replaces the target.

    Raises
    ------
    OutputError
        Any error of the file system; the target is then as it was.
    """
    if not target.name:
        raise OutputError(f"{target} is a folder; give the name of a file to write.")
    # At most 100 characters of the name: with the rest it must stay below the usual 255 bytes.
    partial = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:  # Windows syncs no file that is open for reading only
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{target} cannot be written: {reason}; choose another place.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_partials(target: Path) -> None:
    """Delete temporary files of `atomic_file` that a killed process left beside a target."""
    for partial in target.parent.glob(f".{escape(target.name[:100])}.*.partial"):
        with suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; an existing file is replaced.

    Raises
    ------
    OutputError
        The file cannot be written, or has the name of an image.
    """
    check_text_file(path)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def check_text_file(path: Path) -> None:
    """Refuse a path to which no text can be written, before the work whose results it is for.

    Names of images are refused, so that a table never replaces labels.

    Raises
    ------
    OutputError
        A folder, the name of an image, or a path in a folder that does not exist.
    """
    if path.suffix.lower() in SUFFIXES:
        raise OutputError(f"{path} has the name of an image; end the name with .csv or the like.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.parent} is no folder; make it first.")
