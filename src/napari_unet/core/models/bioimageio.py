"""The bioimage.io specification: what of its packages napari-unet can run."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.models.folder import CARD, REPLAY, THUMBNAIL, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NATIVE_FILES = (CARD, WEIGHTS, REPLAY, THUMBNAIL)
"""Files of a model's own folder, which exported packages carry along."""


def import_spec() -> Any:
    """Return the package `bioimageio.spec`.

    Raises
    ------
    ModelError
        It is not installed.
    """
    try:
        import bioimageio.spec
    except ImportError as error:
        raise ModelError(
            "Packages of bioimage.io need bioimageio.spec, which is not installed; run: "
            "pip install 'napari-unet[bioimageio]'."
        ) from error
    _silence()
    return bioimageio.spec


def _silence() -> None:
    """Keep the library's log off the terminal: what matters is said in errors of one line."""
    from loguru import logger

    logger.disable("bioimageio")


@contextmanager
def package_context(folder: Path, *, files: bool = True) -> Iterator[None]:
    """Resolve a description's files in a folder; without `files` none is opened or fetched.

    The library leaves files open and warns of what a user cannot mend.
    """
    from bioimageio.spec import ValidationContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with ValidationContext(root=folder, perform_io_checks=files, warning_level=50):
                yield
        finally:
            gc.collect()  # closes them
