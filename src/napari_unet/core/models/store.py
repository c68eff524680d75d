"""The model store: models by name, the package's and the user's, and their lineage.

The user's models lie in `home() / "models"`. A lab may share more of them in a second folder, which
is only read (`shared_folder`). A model anywhere else is named by its path.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_unet.core.errors import ModelError, OutputError, UnetError
from napari_unet.core.io.files import expand_path
from napari_unet.core.models.folder import (
    CARD,
    THUMBNAIL,
    read_card,
    restore_interrupted,
    write_model,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from napari_unet.core.models.card import ModelCard


BUNDLED = Path(__file__).parents[2] / "models"
"""Folder of the models that come with the package."""
DEFAULT_MODEL = "nuclei"
"""The model that is offered first."""

_NAME = re.compile(r"\w[\w .+-]{0,59}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows


@dataclass(frozen=True)
class ModelEntry:
    """A model of the store.

    Attributes
    ----------
    card
        None if the folder's card cannot be read; `problem` then tells why.
    bundled
        Whether it came with the package, so that it cannot be removed.
    shared
        Whether it lies in the folder that a lab shares, so that it cannot be removed, either.
    """

    name: str
    path: Path
    bundled: bool
    card: ModelCard | None
    problem: str = ""
    shared: bool = False

    @property
    def origin(self) -> str:
        """Where it comes from: "napari-unet", "shared" or "you"."""
        return "napari-unet" if self.bundled else "shared" if self.shared else "you"

    @property
    def thumbnail(self) -> Path | None:
        """File of the model's picture, if it has one."""
        path = self.path / THUMBNAIL
        return path if path.is_file() else None


def home() -> Path:
    """Return the folder of the user's models, journals and caches; it need not exist yet.

    The environment variable NAPARI_UNET_HOME moves it.
    """
    if given := os.environ.get("NAPARI_UNET_HOME"):
        return expand_path(given)
    import platformdirs

    return platformdirs.user_data_path("napari-unet", appauthor=False)


def shared_folder() -> Path | None:
    """Return the folder of models that a lab shares; nothing is ever written there.

    The environment variable NAPARI_UNET_MODELS names it; None: there is none.
    """
    given = os.environ.get("NAPARI_UNET_MODELS")
    return expand_path(given) if given else None


def list_models() -> list[ModelEntry]:
    """List the models of the store: the package's, then shared ones, then the user's, by name.

    Of the package's the default one leads. A user's model hides a shared one of the same name, and
    both hide one of the package.
    """
    users, shared = home() / "models", shared_folder()
    restore_interrupted(users)
    found = {folder.name: _Place(folder, bundled=True) for folder in _model_folders(BUNDLED)}
    if shared is not None:
        found |= {f.name: _Place(f, shared=True) for f in _model_folders(shared)}
    found |= {folder.name: _Place(folder) for folder in _model_folders(users)}
    entries = [_entry(place) for place in found.values()]

    def rank(entry: ModelEntry) -> tuple[bool, bool, bool, str]:
        is_default = entry.bundled and entry.name == DEFAULT_MODEL
        users_own = not entry.bundled and not entry.shared
        return not entry.bundled, users_own, not is_default, entry.name.casefold()

    return sorted(entries, key=rank)


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, given by its name in the store or by its path.

    Raises
    ------
    ModelError
        There is no such model; the message lists those that exist.
    """
    entries = list_models()
    for entry in entries:
        if entry.name == str(name_or_path):
            return entry.path
    path = expand_path(name_or_path)
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
    folder = get_free_folder(name, overwrite=overwrite)
    card = card.replace(name=name)
    card = write_model(folder, card, tensors, thumbnail, replay, new=not overwrite)
    return ModelEntry(name, folder, bundled=False, card=card)


def remove_model(name: str) -> None:
    """Delete one of the user's models.

    Raises
    ------
    ModelError
        There is none of that name, or it came with the package.
    OutputError
        Its folder cannot be deleted.
    """
    folder = find_own(name, "removed").path
    gone = folder.with_name(f".{name}.gone-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(gone)  # disappears at once; deleting the files may take a while
        shutil.rmtree(gone)
    except OSError as error:
        raise OutputError(f"The model {name!r} cannot be removed: {error.strerror}.") from error


def find_own(name: str, wanted: str) -> ModelEntry:
    """Return one of the user's own models.

    Parameters
    ----------
    wanted
        What is to be done with it, such as "removed".

    Raises
    ------
    ModelError
        There is none of that name, it came with the package, or it is shared.
    """
    entries = {entry.name: entry for entry in list_models()}
    if name not in entries:
        raise _unknown(name, list(entries.values()))
    if entries[name].bundled:
        raise ModelError(f"The model {name!r} came with napari-unet and cannot be {wanted}.")
    if entries[name].shared:
        raise ModelError(
            f"The model {name!r} is shared and cannot be {wanted}; ask who keeps {shared_folder()}."
        )
    return entries[name]


def check_name(name: str) -> str:
    """Return the name if it is allowed for a model.

    Raises
    ------
    ModelError
        It cannot be the name of a folder on each of Windows, macOS and Linux.
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


def get_free_folder(name: str, *, overwrite: bool = False) -> Path:
    """Return the folder in the user's store for a new model of this name.

    Raises
    ------
    ModelError
        The name cannot be a folder's, is one of the package's models, or is taken.
    """
    check_name(name)
    for entry in list_models():
        # To the file systems of Windows and macOS, names that differ in case are the same.
        if entry.name.casefold() != name.casefold():
            continue
        if entry.bundled:
            raise ModelError(f"{name!r} is the name of a model of napari-unet; choose another.")
        if entry.shared:
            raise ModelError(f"{name!r} is the name of a shared model; choose another.")
        if not overwrite:
            raise ModelError(
                f"There is a model {entry.name!r} already; choose another name or remove it first."
            )
        return entry.path
    return home() / "models" / name


def get_free_name(title: str) -> str:
    """Return a name for a new model: a title, with a number behind it if it is taken.

    Signs that no name may have become spaces.

    Raises
    ------
    ModelError
        Nothing of the title can be used.
    """
    name = title
    if not _NAME.fullmatch(title) or title[-1] in " .":
        name = " ".join(re.sub(r"[^\w.+-]", " ", title).split())[:50].strip(" .+-")
    check_name(name)
    taken = {entry.name.casefold() for entry in list_models()}
    for number in itertools.count(1):
        free = name if number == 1 else f"{name[:55].rstrip()} {number}"
        if free.casefold() not in taken:
            break
    return free


def check_store() -> None:
    """Check that models can be stored, before hours of training.

    Raises
    ------
    OutputError
        The folder of models cannot be created or written.
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


def is_descendant(model: str, ancestor: str) -> bool:
    """Tell whether a model of the store was tuned from another one, in any number of rounds.

    A model that is missing or cannot be read descends from none.
    """
    cards = {entry.name: entry.card for entry in list_models() if entry.card is not None}
    if model not in cards or ancestor not in cards:
        return False
    by_hash = {card.hash: card for card in cards.values()}
    wanted, parent, seen = cards[ancestor].hash, cards[model].parent, set[str]()
    while parent in by_hash and parent not in seen and parent != wanted:
        seen.add(parent)
        parent = by_hash[parent].parent
    return parent == wanted


def get_family(model: str | os.PathLike[str]) -> list[ModelCard]:
    """Return the cards of a model, its ancestors and its descendants, in this order.

    Raises
    ------
    ModelError
        There is no such model, or it cannot be read.
    """
    own = read_card(find_model(model))
    cards = {entry.card.hash: entry.card for entry in list_models() if entry.card is not None}
    cards[own.hash] = own
    found = {own.hash: own}
    parent = own.parent
    while parent in cards and parent not in found:
        found[parent] = cards[parent]
        parent = cards[parent].parent
    descendants = {own.hash}
    while more := {h for h, card in cards.items() if card.parent in descendants} - descendants:
        descendants |= more
    return [*found.values(), *(cards[h] for h in sorted(descendants - set(found)))]


def _unknown(name: str, entries: list[ModelEntry]) -> ModelError:
    names = ", ".join(entry.name for entry in entries) or "none yet"
    return ModelError(
        f"There is no model {name!r}; known models: {names}. "
        "Give one of these or the path of a model's folder."
    )


def _model_folders(parent: Path) -> list[Path]:
    try:
        folders = [path for path in parent.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return [path for path in folders if (path / CARD).is_file()]


class _Place(NamedTuple):
    """A model's folder, and who put it there."""

    folder: Path
    bundled: bool = False
    shared: bool = False


def _entry(place: _Place) -> ModelEntry:
    folder, bundled, shared = place
    try:
        return ModelEntry(folder.name, folder, bundled, read_card(folder), shared=shared)
    except UnetError as error:
        return ModelEntry(folder.name, folder, bundled, None, str(error), shared)
