"""The folder of a model that others built: card, `network.json`, weights in ONNX or TorchScript."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from napari_unet.core.errors import ModelError
from napari_unet.core.io.files import atomic_file, make_folder
from napari_unet.core.models.folder import THUMBNAIL, model_folder, read_card, write_card
from napari_unet.core.models.store import home
from napari_unet.core.settings.foreign_spec import ONNX, TORCHSCRIPT, ForeignSpec
from napari_unet.core.settings.model_spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.models.card import ModelCard

NETWORK = "network.json"
CODE = (
    "The weights are TorchScript, a program that runs with your rights whenever the model is used. "
    "Do you trust where it comes from?"
)
"""What is asked before such a program may run."""
FOREIGN_WEIGHTS = {ONNX: "weights.onnx", TORCHSCRIPT: "weights.torchscript"}


def is_foreign(folder: Path) -> bool:
    """Return whether a model's folder holds a network that others built."""
    return (folder / NETWORK).is_file()


def foreign_weights(folder: Path) -> Path:
    """Return the file of the weights; it need not exist."""
    paths = [folder / name for name in FOREIGN_WEIGHTS.values()]
    return next((path for path in paths if path.is_file()), paths[0])


def read_network(folder: Path) -> ForeignSpec:
    """Read what is known of a network.

    Raises
    ------
    ModelError
        It cannot be read, or is of a newer version.
    """
    try:
        text = (folder / NETWORK).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} holds no network: {error.strerror}.") from error
    try:
        return ForeignSpec.from_text(text)
    except ModelError as error:
        raise ModelError(f"The model in {folder} cannot be used. {error}") from error


def read_foreign(folder: Path) -> tuple[ModelCard, Path]:
    """Return a model's card, with its `ForeignSpec`, and the file of its weights.

    Raises
    ------
    ModelError
        A file is missing or damaged: its SHA-256 is not the card's.
    """
    card, spec, weights = read_card(folder), read_network(folder), foreign_weights(folder)
    if not weights.is_file() or file_digest(weights) != card.hash:
        raise ModelError(
            f"The model in {folder} is damaged: {weights.name} is not what its card says; "
            "import it again."
        )
    return card.replace(spec=spec), weights


def write_foreign(
    folder: Path,
    card: ModelCard,
    spec: ForeignSpec,
    weights: Path,
    thumbnail: bytes = b"",
    *,
    new: bool = False,
) -> ModelCard:
    """Write a model's folder, whole or not at all; return the card as written.

    Parameters
    ----------
    weights
        The file to copy.
    thumbnail
        A PNG file; empty for none.
    new
        Whether a model that is there already is left and an error raised.
    """
    plain = ModelSpec(
        ndim=spec.ndim,
        in_channels=spec.in_channels,
        head=spec.head,
        classes=spec.classes,
        width=spec.width,
    )
    card = card.replace(spec=plain, hash=file_digest(weights), replay="", click={})
    with model_folder(folder, new=new) as partial:
        shutil.copyfile(weights, partial / FOREIGN_WEIGHTS[spec.runtime])
        (partial / NETWORK).write_text(spec.to_text(), encoding="utf-8", newline="\n")
        if thumbnail:
            (partial / THUMBNAIL).write_bytes(thumbnail)
        write_card(partial, card)
    return card


def check_is_ours(folder: Path) -> None:
    """Raise ModelError if others built a model, so that it cannot be exported or tuned."""
    if is_foreign(folder):
        raise ModelError(
            f"The model in {folder} was built by others; pass on the package that it came from."
        )


def is_trusted(weights_hash: str) -> bool:
    """Return whether the user has said that a program, TorchScript, may run on this computer."""
    try:
        return weights_hash in _trusted().read_text(encoding="utf-8").split()
    except OSError:
        return False


def trust(weights_hash: str) -> None:
    """Remember that a program may run, by the SHA-256 of its file.

    Raises
    ------
    OutputError
        The store cannot be written.
    """
    if is_trusted(weights_hash):
        return
    path = _trusted()
    make_folder(path.parent)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    with atomic_file(path) as partial:
        partial.write_text(f"{before}{weights_hash}\n", encoding="utf-8", newline="\n")


def _trusted() -> Path:
    return home() / "trusted_torchscript.txt"


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
