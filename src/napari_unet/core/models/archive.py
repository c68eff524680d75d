"""A model folder as one .zip file, to be sent to somebody else.

What comes in is not trusted: only a model's own files are taken out, by their plain names and up
to a size, wherever the archive says that they belong.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.io.files import UNREADABLE, atomic_file
from napari_unet.core.models.folder import CARD, REPLAY, THUMBNAIL, WEIGHTS, read_model, read_replay

if TYPE_CHECKING:
    from collections.abc import Collection

LIMITS = {WEIGHTS: 4 << 30, CARD: 16 << 20, THUMBNAIL: 64 << 20, REPLAY: 64 << 20}
"""The files that a model may have, and the most bytes of each."""

SQUEEZED = 100
"""How many times smaller than its content a large file may be packed; trained weights shrink by
a tenth, an archive that is made to fill the disk a thousand times."""

_CHUNK = 1 << 20


def pack(folder: Path, target: Path, *, overwrite: bool = False) -> None:
    """Write a model folder's files into one .zip file, whole or not at all.

    Equal models give equal files.

    Raises
    ------
    ModelError
        The model is damaged.
    OutputError
        The file exists already, or cannot be written.
    """
    read_model(folder)
    read_replay(folder)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or delete it first.")
    with atomic_file(target) as partial, zipfile.ZipFile(partial, "x") as archive:
        for path in (folder / name for name in LIMITS):
            if path.is_file():
                archive.writestr(_member(path.name), path.read_bytes())


def _member(name: str) -> zipfile.ZipInfo:
    """Describe a file the same way on every system; who unpacks it by hand may read it."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def unpack(source: Path, folder: Path) -> None:
    """Take a model's files out of a .zip file, or copy them from a folder, into an empty folder.

    Raises
    ------
    ModelError
        The source is no model: a file is missing, unknown, twice there or too large.
    """
    try:
        if source.is_dir():
            _copy_folder(source, folder)
        else:
            _extract(source, folder)
    except (zipfile.BadZipFile, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"No model can be imported from {source}: {reason}; give a model's folder or .zip file."
        ) from error


def _copy_folder(source: Path, folder: Path) -> None:
    _check_parts(source, [name for name in LIMITS if (source / name).exists()])
    for name, limit in LIMITS.items():
        if name in (THUMBNAIL, REPLAY) and not (source / name).exists():
            continue
        with (source / name).open("rb") as stream:
            _copy(stream, folder / name, limit)


def _extract(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        for name, member in _members(archive, source).items():
            with archive.open(member) as stream:
                _copy(stream, folder / name, LIMITS[name])


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """Find a model's files in an archive, at its top or all in one folder."""
    found: dict[str, zipfile.ZipInfo] = {}
    parents = set()
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        # What the file managers of macOS and Windows add to an archive is no reason to refuse it.
        junk = path.parts[:1] == ("__MACOSX",) or path.name in (".DS_Store", "desktop.ini")
        if info.is_dir() or junk:
            continue
        misplaced = len(path.parts) > 2 or ".." in path.parts or path.is_absolute()
        if misplaced or path.name not in LIMITS or path.name in found:
            raise ModelError(f"{source} is no model: it holds {info.filename!r:.80}.")
        _check_size(info, path.name, source)
        found[path.name] = info
        parents.add(path.parent)
    _check_parts(source, found)
    if len(parents) > 1:
        raise ModelError(f"{source} is no model: its files lie in different folders.")
    return found


def _check_parts(source: Path, names: Collection[str]) -> None:
    """Refuse what lacks the card or the weights."""
    if missing := [name for name in (CARD, WEIGHTS) if name not in names]:
        raise ModelError(f"{source} is no model: it lacks {' and '.join(missing)}.")


def _check_size(info: zipfile.ZipInfo, name: str, source: Path) -> None:
    """Refuse a file by what the archive says of it; no more than that is unpacked later."""
    if info.file_size > LIMITS[name]:
        raise ModelError(_too_large(name, LIMITS[name]))
    if info.file_size > max(_CHUNK, SQUEEZED * info.compress_size):
        raise ModelError(
            f"{source} is no model: {name} unpacks to more than {SQUEEZED} times its size."
        )


def _too_large(name: str, limit: int) -> str:
    return f"{name} is larger than a model's may be ({limit:,} bytes)."


def _copy(stream: IO[bytes], target: Path, limit: int) -> None:
    """Copy up to `limit` bytes; an archive may unpack to more than it says."""
    with target.open("xb") as file:
        while chunk := stream.read(_CHUNK):
            if file.tell() + len(chunk) > limit:
                raise ModelError(_too_large(target.name, limit))
            file.write(chunk)
