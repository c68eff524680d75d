"""A model's folder: `model.safetensors`, `model.json`, perhaps `thumbnail.png` and `replay.npz`.

Folders appear whole or not at all, weights and rehearsal set are checked against the hashes on the
card, and nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.models.card import ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WEIGHTS, CARD, THUMBNAIL = "model.safetensors", "model.json", "thumbnail.png"
REPLAY = "replay.npz"
LIMITS = {WEIGHTS: 4 << 30, CARD: 16 << 20, THUMBNAIL: 64 << 20, REPLAY: 64 << 20}
"""The files that a model may have, and the maximum size of each in bytes."""


def read_card(folder: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a model folder; raises ModelError if it cannot be used."""
    folder = Path(folder)
    text = _read_file(folder, CARD, "holds no model")
    try:
        return ModelCard.from_text(text)
    except ModelError as error:
        raise ModelError(f"The model in {folder} cannot be used. {error}") from error


def read_model(folder: str | os.PathLike[str]) -> tuple[ModelCard, dict[str, np.ndarray]]:
    """Read a model's card and its tensors.

    Returns
    -------
    ModelCard, dict
        Tensors by name; those stored in float16 are returned as float32.

    Raises
    ------
    ModelError
        A file is missing, damaged (its SHA-256 differs from the card's) or of a newer schema.
    """
    import safetensors.numpy  # here: benchmarks of a GPU run without it

    folder = Path(folder)
    card = read_card(folder)
    data = _read_file(folder, WEIGHTS, "holds no model")
    if hashlib.sha256(data).hexdigest() != card.hash:
        raise ModelError(
            f"The model in {folder} is damaged: {WEIGHTS} is not what its card says; "
            "import or install it again."
        )
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"The model in {folder} is damaged: {WEIGHTS}: {error}.") from error
    odd = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if odd:
        raise ModelError(
            f"The model in {folder} is damaged: weights {odd[0]!r:.60} are no finite numbers; "
            "import or train it again."
        )
    return card, {name: _widen(tensor) for name, tensor in tensors.items()}


def _read_file(folder: Path, name: str, problem: str) -> bytes:
    """Read a file of a model, which may have been made by a stranger.

    Raises
    ------
    ModelError
        It is missing, too large, or something else, such as a pipe, which would be read for ever.
    """
    path = folder / name
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{folder} {problem}: {name} is no file.")
        if found.st_size > LIMITS[name]:
            raise ModelError(
                f"{folder} {problem}: {name} is larger than a model's may be "
                f"({LIMITS[name]:,} bytes)."
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} {problem}: {name}: {error.strerror}.") from error


def read_rehearsal(folder: str | os.PathLike[str]) -> bytes:
    """Read a model's rehearsal set, for `unpack_rehearsal`; empty if it has none.

    Raises
    ------
    ModelError
        The file is missing, or its SHA-256 differs from the card's.
    """
    folder = Path(folder)
    wanted = read_card(folder).replay
    if not wanted:
        return b""
    data = _read_file(folder, REPLAY, "lacks its rehearsal set")
    if hashlib.sha256(data).hexdigest() != wanted:
        raise ModelError(
            f"The model in {folder} is damaged: {REPLAY} is not what its card says; import or "
            "install it again."
        )
    return data


def attach_rehearsal(folder: str | os.PathLike[str], replay: bytes) -> ModelCard:
    """Add a rehearsal set to a model's folder, or replace it.

    Raises
    ------
    ModelError
        There is no model.
    OutputError
        The folder cannot be written.
    """
    folder = Path(folder)
    card = read_card(folder).replace(replay=_digest(replay))
    with model_folder(folder) as partial:
        for name in (WEIGHTS, THUMBNAIL):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, partial / name)
        (partial / REPLAY).write_bytes(replay)
        write_card(partial, card)
    return card


def write_model(
    folder: str | os.PathLike[str],
    card: ModelCard,
    tensors: Mapping[str, np.ndarray],
    thumbnail: np.ndarray | None = None,
    replay: bytes = b"",
    *,
    new: bool = False,
) -> ModelCard:
    """Write a model folder, whole or not at all; a model that is there already is replaced.

    Parameters
    ----------
    tensors
        Written in their own type; give float16 for a small file.
    thumbnail
        uint8 picture, (Y, X) or (Y, X, 3).
    replay
        Rehearsal set, by `pack_rehearsal`; empty for none.
    new
        Whether a model that is there already is left and an error raised.

    Returns
    -------
    ModelCard
        The card as written, with the hashes of weights and rehearsal set.

    Raises
    ------
    ModelError
        There is a model already, and the one to write is `new`.
    OutputError
        The folder cannot be written, or holds something other than a model.
    """
    folder = Path(folder)
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    import safetensors.numpy

    weights = safetensors.numpy.save(ordered)
    card = card.replace(hash=_digest(weights), replay=_digest(replay) if replay else "")
    with model_folder(folder, new=new) as partial:
        (partial / WEIGHTS).write_bytes(weights)
        write_card(partial, card)
        if thumbnail is not None:
            import imagecodecs

            (partial / THUMBNAIL).write_bytes(imagecodecs.png_encode(thumbnail))
        if replay:
            (partial / REPLAY).write_bytes(replay)
    return card


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_card(folder: Path, card: ModelCard) -> None:
    """Write a card into a folder created by `model_folder`."""
    (folder / CARD).write_text(card.to_text(), encoding="utf-8", newline="\n")


@contextlib.contextmanager
def model_folder(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """Create a folder to fill, which replaces `folder` if no error is raised meanwhile.

    Parameters
    ----------
    new
        Whether a model that is there by then, as another program may store one of the same name, is
        left and an error raised.

    Raises
    ------
    ModelError
        There is a model already, and the one to write is `new`.
    OutputError
        For any error of the file system; `folder` is then as it was.
    """
    if folder.exists() and not (folder / CARD).is_file():
        raise OutputError(f"{folder} exists and is no model; choose another place for the model.")
    partial = folder.with_name(f".{folder.name}.part-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        if new:
            _move_new(partial, folder)
        else:
            _swap(partial, folder)
        _sync(folder.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"The model cannot be written to {folder}: {reason}; make room or choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_new(partial: Path, folder: Path) -> None:
    """Move `partial` to `folder`, which no system does where there are files in it already."""
    try:
        partial.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise ModelError(
            f"There is a model {folder.name!r} already; choose another name or remove it first."
        ) from error


def _swap(partial: Path, folder: Path) -> None:
    """Replace `folder` by `partial`; if that fails, the old folder is put back."""
    aside = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        partial.rename(folder)
        return
    try:
        partial.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def restore_interrupted(parent: Path) -> None:
    """Put back folders that `_swap` had set aside when the computer stopped between its renames."""
    for aside in parent.glob(".*.old-*"):
        place = parent / aside.name[1:].rpartition(".old-")[0]
        with contextlib.suppress(OSError):
            if place.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(place)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def _widen(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor
