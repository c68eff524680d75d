"""Paths as users write them, and files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` expanded; a file may be named ``~draft.tif`` where no user is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def plain_name(path: Path) -> str:
    """Return an image file's name without its ending, ``.ome.tif`` among them."""
    return path.stem.removesuffix(".ome")


def make_folder(folder: Path) -> None:
    """Make a folder for results, and the folders that it lies in.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder} cannot be made: {reason}; choose another place.") from error


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the target's place when the block ends without an error.

    The file is synced to the disk first; a file of the target's name is replaced.

    Raises
    ------
    OutputError
        For every error of the file system on the way; the target is then as it was.
    """
    if not target.name:
        raise OutputError(f"{target} is a folder; give the name of a file to write.")
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


def sweep_partials(target: Path) -> None:
    """Remove what `whole_file` left beside a target because its process was killed."""
    for partial in target.parent.glob(f".{escape(target.name[:100])}.*.partial"):
        with suppress(OSError):
            partial.unlink()
