"""Files of packages that come from others: fetched by address, unpacked into a folder, kinds told.

Archives are not trusted: nothing is written outside the folder, and no more than a size.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.io.files import UNREADABLE, check_exists, first_line
from napari_unet.core.models.archive import MAX_COMPRESSION
from napari_unet.core.models.bioimageio import DESCRIPTIONS
from napari_unet.core.models.folder import CARD
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

LARGEST = 4 << 30
"""The largest package and the largest file of one, in bytes."""
DESCRIPTION = 16 << 20
"""The largest description of a package, in bytes."""
MOST_FILES = 1000
SILENCE_S = 20
"""Seconds in which a server must send something."""
ONNX_SUFFIXES = (".onnx",)
TORCHSCRIPT_SUFFIXES = (".torchscript", ".ts", ".pt", ".pth")
_CHUNK = 1 << 20


def is_web_address(source: str) -> bool:
    """Return whether a source lies on another computer."""
    return re.match(r"https?://", source) is not None


def is_foreign_source(source: Path) -> bool:
    """Return whether a file or folder is a model that others built, by its name and contents."""
    suffix = source.suffix.lower()
    if suffix in (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES, ".yaml", ".yml"):
        return True
    if source.is_dir():
        return any((source / name).is_file() for name in DESCRIPTIONS)
    try:
        with zipfile.ZipFile(source) as archive:
            names = {PurePosixPath(name).name for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names & set(DESCRIPTIONS)) or (CARD not in names and suffix == ".zip")


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive; a pickled state dict is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(n).name == "constants.pkl" for n in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def fetch_steps(address: str, folder: Path) -> Generator[Progress, None, Path]:
    """Download one file that the user gave the address of, into a folder; return its path.

    Raises
    ------
    InputError
        It cannot be reached, is no answer of the web, or is larger than it may be.
    """
    name = PurePosixPath(address.partition("?")[0]).name or "package.zip"
    target = folder / (name if "." in name else f"{name}.zip")
    try:
        with urllib.request.urlopen(address, timeout=SILENCE_S) as answer:  # http and https alone
            said = str(answer.headers.get("Content-Length") or "")
            size = int(said) if said.isdecimal() else 0
            with target.open("xb") as file:
                yield from _copy(answer, file, name, size, "fetched")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = " ".join(str(getattr(error, "reason", None) or first_line(error)).split())
        raise InputError(f"{address} cannot be fetched ({reason}); check the address.") from error
    return target


def unpack_steps(source: Path, folder: Path) -> Generator[Progress, None, Path]:
    """Bring a package's files into an empty folder; return the folder that holds the description.

    Parameters
    ----------
    source
        A .zip file, a folder, or the description in a folder.

    Raises
    ------
    ModelError
        It holds no description, is damaged, or is too large.
    """
    check_exists(source)
    try:
        if source.is_dir() or source.suffix.lower() in (".yaml", ".yml"):
            yield from _copy_folder(source if source.is_dir() else source.parent, folder)
            if source.is_file() and source.name not in DESCRIPTIONS:
                (folder / source.name).rename(folder / DESCRIPTIONS[0])
        else:
            with zipfile.ZipFile(source) as archive:
                yield from _extract(archive, source, folder)
    except (zipfile.BadZipFile, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"{source} cannot be unpacked ({reason}); download it again.") from error
    places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    for place in places:
        if any((place / name).is_file() for name in DESCRIPTIONS):
            return place
    raise ModelError(
        f"{source} is no package of bioimage.io: it lacks {DESCRIPTIONS[0]}; give a package, a "
        "model of napari-unet, or a file that ends in .onnx or .torchscript."
    )


def _copy_folder(source: Path, folder: Path) -> Generator[Progress, None, None]:
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()]
    if len(paths) > MOST_FILES:
        raise ModelError(f"{source} holds {len(paths)} files; a package has up to {MOST_FILES}.")
    for path in paths:
        size = path.stat().st_size
        if size > _limit(path.name):
            raise ModelError(_too_large(path.name))
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as stream, target.open("xb") as file:
            yield from _copy(stream, file, path.name, size)


def _extract(
    archive: zipfile.ZipFile, source: Path, folder: Path
) -> Generator[Progress, None, None]:
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > MOST_FILES:
        raise ModelError(f"{source} holds {len(members)} files; a package has up to {MOST_FILES}.")
    for info in members:
        path = PurePosixPath(info.filename)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in info.filename
            or ":" in path.parts[0]
        ):
            raise ModelError(f"{source} is no package: it holds {info.filename!r:.80}.")
        if info.file_size > _limit(path.name):
            raise ModelError(_too_large(path.name))
        if info.file_size > max(64 * _CHUNK, MAX_COMPRESSION * info.compress_size):
            raise ModelError(
                f"{source} is no package: {path.name} unpacks to more than {MAX_COMPRESSION} times "
                "its size."
            )
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as stream, target.open("xb") as file:
            yield from _copy(stream, file, path.name, info.file_size)


def _copy(
    stream: IO[bytes], file: IO[bytes], name: str, size: int, what: str = "unpacked"
) -> Generator[Progress, None, None]:
    """Copy no more than a file of the name may have, whatever size was said."""
    while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]  # what is there, and no wait
        if file.tell() + len(chunk) > _limit(name):
            raise ModelError(_too_large(name))
        file.write(chunk)
        yield Progress(file.tell() >> 20, size >> 20, f"MB of {name} {what}")


def _limit(name: str) -> int:
    return DESCRIPTION if name.lower().endswith((".yaml", ".yml")) else LARGEST


def _too_large(name: str) -> str:
    size = f"{LARGEST >> 30} GB" if _limit(name) == LARGEST else f"{DESCRIPTION >> 20} MB"
    return f"{name} is larger than a model's may be ({size}); ask for a smaller one."
