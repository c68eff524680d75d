"""The user's models renamed, and deleted with a way back.

What is deleted goes into a folder of the store that is not listed, and from there after some weeks.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.io.files import atomic_file
from napari_unet.core.models.folder import CARD, read_card
from napari_unet.core.models.store import (
    ModelEntry,
    check_name,
    find_own,
    get_free_folder,
    get_free_name,
    home,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.models.card import ModelCard

TRASH = ".trash"
"""Folder in the store for what was deleted."""
KEPT_DAYS = 30
"""So long it stays there."""


@dataclass(frozen=True)
class DeletedModel:
    """A model in the trash.

    Attributes
    ----------
    name
        What it was called.
    folder
        Where it lies now.
    """

    name: str
    folder: Path


def rename_model(name: str, new: str) -> ModelEntry:
    """Give one of the user's models another name.

    Its weights and their hash stay, by which corrections, results and other models know it.

    Raises
    ------
    ModelError
        There is none of that name, it is not the user's, it cannot be read, or the new name is
        taken or not allowed.
    OutputError
        The store cannot be written.
    """
    entry = find_own(name, "renamed")
    folder = entry.path
    if new == name:
        return entry
    if new.casefold() == name.casefold():
        target = folder.with_name(check_name(new))
    else:
        target = get_free_folder(new)
    card = read_card(folder).replace(name=new)
    try:
        folder.rename(target)
    except OSError as error:
        raise OutputError(f"The model {name!r} cannot be renamed: {error.strerror}.") from error
    _replace_card(target, card)
    return ModelEntry(new, target, bundled=False, card=card)


def _replace_card(folder: Path, card: ModelCard) -> None:
    with atomic_file(folder / CARD) as partial:
        partial.write_text(card.to_text(), encoding="utf-8", newline="\n")


def trash_model(name: str) -> DeletedModel:
    """Move one of the user's models out of the list; `restore_model` brings it back.

    Raises
    ------
    ModelError
        There is none of that name, or it is not the user's.
    OutputError
        It cannot be moved.
    """
    folder = find_own(name, "removed").path
    place = folder.parent / TRASH / uuid.uuid4().hex[:8]
    try:
        place.mkdir(parents=True)
        folder.rename(place / folder.name)
    except OSError as error:
        raise OutputError(f"The model {name!r} cannot be removed: {error.strerror}.") from error
    return DeletedModel(name, place / folder.name)


def restore_model(deleted: DeletedModel) -> str:
    """Bring a model back, and return its name: a number is added if its own is taken by now.

    Raises
    ------
    OutputError
        It cannot be moved, or is gone.
    """
    name = get_free_name(deleted.name)
    folder = home() / "models" / name
    try:
        deleted.folder.rename(folder)
    except OSError as error:
        raise OutputError(
            f"The model {deleted.name!r} cannot be brought back: {error.strerror}; look for it in "
            f"{deleted.folder}."
        ) from error
    with contextlib.suppress(OSError):
        deleted.folder.parent.rmdir()
    if name != deleted.name:
        with contextlib.suppress(ModelError):  # of a damaged one, the name does not matter
            _replace_card(folder, read_card(folder).replace(name=name))
    return name


def empty_trash(days: float = KEPT_DAYS) -> None:
    """Delete for good what was deleted so many days ago; what cannot be deleted stays."""
    before = time.time() - days * 86_400
    for place in (home() / "models" / TRASH).glob("*"):
        with contextlib.suppress(OSError):
            if place.stat().st_mtime < before:
                shutil.rmtree(place, ignore_errors=True)
