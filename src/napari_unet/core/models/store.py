"""The model store: models by name, those of the package and the user's own.

The user's lie in `home() / "models"`. A model anywhere else is named by its path. Models travel
between computers as one .zip file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from napari_unet.core.errors import ModelError, OutputError, UnetError
from napari_unet.core.io.atomic import user_path
from napari_unet.core.models.archive import pack, unpack
from napari_unet.core.models.folder import (
    CARD,
    THUMBNAIL,
    model_folder,
    read_card,
    read_model,
    read_replay,
    restore_interrupted,
    write_card,
    write_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from napari_unet.core.models.card import ModelCard

__all__ = [
    "BUNDLED",
    "ModelEntry",
    "check_name",
    "check_store",
    "export_model",
    "find_model",
    "free_place",
    "home",
    "import_model",
    "list_models",
    "put_model",
    "read_card",
    "read_model",
    "read_replay",
    "remove_model",
    "write_model",
]

BUNDLED = Path(__file__).parents[2] / "models"
"""Folder of the models that come with the package."""

_NAME = re.compile(r"\w[\w .+-]{0,59}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows


@dataclass(frozen=True)
class ModelEntry:
    """One model of the store.

    Attributes
    ----------
    card
        None if the folder's card cannot be read; `problem` then says why.
    bundled
        It came with the package and cannot be removed.
    """

    name: str
    path: Path
    bundled: bool
    card: ModelCard | None
    problem: str = ""

    @property
    def thumbnail(self) -> Path | None:
        """The model's picture, if it has one."""
        path = self.path / THUMBNAIL
        return path if path.is_file() else None


def home() -> Path:
    """Return the folder of the user's models, journal and caches; it need not exist yet.

    The environment variable NAPARI_UNET_HOME moves it.
    """
    if given := os.environ.get("NAPARI_UNET_HOME"):
        return user_path(given)
    return platformdirs.user_data_path("napari-unet", appauthor=False)


def list_models() -> list[ModelEntry]:
    """Return every model of the store, the package's first, then the user's, each by name.

    A user's model hides one of the package's with the same name.
    """
    users = home() / "models"
    restore_interrupted(users)
    found = {folder.name: (folder, True) for folder in _model_folders(BUNDLED)}
    found |= {folder.name: (folder, False) for folder in _model_folders(users)}
    entries = [_entry(*place) for place in found.values()]
    return sorted(entries, key=lambda entry: (not entry.bundled, entry.name.casefold()))


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the folder of a model of the store, or of one given by its path.

    Raises
    ------
    ModelError
        There is none; the message lists those that there are.
    """
    entries = list_models()
    for entry in entries:
        if entry.name == str(name_or_path):
            return entry.path
    path = user_path(name_or_path)
    if str(name_or_path) and (path / CARD).is_file():
        return path
    raise _unknown(str(name_or_path), entries)


def put_model(
    name: str,
    card: ModelCard,
    tensors: Mapping[str, np.ndarray],
    thumbnail: np.ndarray | None = None,
    *,
    overwrite: bool = False,
    replay: bytes = b"",
) -> ModelEntry:
    """Write a model into the store under a name.

    Raises
    ------
    ModelError
        The name cannot be a folder's, is one of the package's models, or is taken.
    OutputError
        The store cannot be written.
    """
    folder = free_place(name, overwrite=overwrite)
    card = write_model(folder, card.replace(name=name), tensors, thumbnail, replay)
    return ModelEntry(name, folder, bundled=False, card=card)


def import_model(source: str | os.PathLike[str], name: str | None = None) -> ModelEntry:
    """Copy a model into the store from the .zip file that `export_model` wrote, or from a folder.

    Parameters
    ----------
    name
        Its name in the store; None: the one on its card.

    Raises
    ------
    ModelError
        The source is no model, is damaged, or its name is taken.
    OutputError
        The store cannot be written.
    """
    source = user_path(source)
    if name is not None:
        free_place(name)
    with _scratch() as scratch:
        unpack(source, scratch)
        try:
            card, _ = read_model(scratch)
            read_replay(scratch)
        except ModelError as error:
            message = str(error).replace(str(scratch), str(source))
            raise ModelError(message) from error
        card = card.replace(name=card.name if name is None else name)
        folder = free_place(card.name)
        with model_folder(folder) as partial:
            for path in scratch.iterdir():
                path.rename(partial / path.name)
            write_card(partial, card)
    return ModelEntry(card.name, folder, bundled=False, card=card)


def export_model(
    name_or_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a model into one .zip file and return the file's path.

    Raises
    ------
    ModelError
        There is no such model, or it is damaged.
    OutputError
        The file exists already, or cannot be written.
    """
    target = user_path(target)
    if target.suffix.lower() != ".zip":
        raise OutputError(f"{target} is no name for an exported model; let it end in .zip.")
    pack(find_model(name_or_path), target, overwrite=overwrite)
    return target


def remove_model(name: str) -> None:
    """Delete one of the user's models.

    Raises
    ------
    ModelError
        There is none of that name, or it came with the package.
    OutputError
        Its folder cannot be deleted.
    """
    entries = {entry.name: entry for entry in list_models()}
    if name not in entries:
        raise _unknown(name, list(entries.values()))
    if entries[name].bundled:
        raise ModelError(f"The model {name!r} came with napari-unet and cannot be removed.")
    folder = entries[name].path
    gone = folder.with_name(f".{name}.gone-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(gone)  # first out of sight, at once; then deleted, file by file
        shutil.rmtree(gone)
    except OSError as error:
        raise OutputError(f"The model {name!r} cannot be removed: {error.strerror}.") from error


def check_name(name: str) -> str:
    """Return the name if a model can have it.

    Raises
    ------
    ModelError
        It could not be a folder's name on Windows, macOS and Linux alike.
    """
    if _RESERVED.fullmatch(name):
        raise ModelError(f"A model cannot be named {name!r}, as Windows keeps it for devices.")
    if not _NAME.fullmatch(name) or name[-1] in " .":
        raise ModelError(
            f"A model cannot be named {_shown(name)}; use up to 60 letters, digits, spaces and "
            ". + - _, with a letter or digit first and no space or . at the end."
        )
    return name


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


def free_place(name: str, *, overwrite: bool = False) -> Path:
    """Return the folder in the user's store where a model of this name may be written.

    Raises
    ------
    ModelError
        The name cannot be a folder's, is one of the package's models, or is taken.
    """
    check_name(name)
    for entry in list_models():
        # Windows and macOS would take two names that differ in case for one.
        if entry.name.casefold() != name.casefold():
            continue
        if entry.bundled:
            raise ModelError(f"{name!r} is the name of a model of napari-unet; choose another.")
        if not overwrite:
            raise ModelError(
                f"There is a model {entry.name!r} already; choose another name or remove it first."
            )
        return entry.path
    return home() / "models" / name


def check_store() -> None:
    """Raise now what would prevent models from being stored, not after hours of training.

    Raises
    ------
    OutputError
        The folder of models cannot be made or written.
    """
    folder = home() / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"Models cannot be stored in {folder}: {error.strerror or error}; mend that, or let "
            "NAPARI_UNET_HOME name another folder."
        ) from error


def _unknown(name: str, entries: list[ModelEntry]) -> ModelError:
    names = ", ".join(entry.name for entry in entries) or "none yet"
    return ModelError(
        f"There is no model {name!r}; known models: {names}. "
        "Give one of these or the path of a model's folder."
    )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give an empty folder in the store, gone afterwards."""
    folder = home() / "models" / f".import-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise OutputError(f"The store {home()} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _model_folders(parent: Path) -> list[Path]:
    try:
        folders = [path for path in parent.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return [path for path in folders if (path / CARD).is_file()]


def _entry(folder: Path, bundled: bool) -> ModelEntry:
    try:
        return ModelEntry(folder.name, folder, bundled, read_card(folder))
    except UnetError as error:
        return ModelEntry(folder.name, folder, bundled, None, str(error))
