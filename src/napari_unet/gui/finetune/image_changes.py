"""What another version of a model changes in other images: one image after the other, in a job.

A part of each image is run through both models. What is kept of it is a small picture.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.change_preview import choose_part, preview_changes
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.store import list_models
from napari_unet.core.progress import Progress
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.convert import layer_stack
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.shared_inputs import quick_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from typing import Any

    from napari.layers import Image

    from napari_unet.core.evaluation.change_preview import ChangePreview
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.batch.file_list import FileRow
    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True, eq=False)
class OtherImage:
    """An image that is not worked on now: one that is open, or a file of the batch.

    Attributes
    ----------
    name
        To show.
    settings
        How the models are run on it.
    opened
        The layer, which is not kept alive; None for a file.
    file
        None for a layer.
    """

    name: str
    settings: PredictSettings
    opened: weakref.ref[Image] | None = None
    file: FileRow | None = None

    def get_layer(self, viewer: Any) -> Image | None:
        """Return the layer; None if it is a file, or not open any more."""
        layer = None if self.opened is None else self.opened()
        return layer if layer is not None and layer in viewer.layers else None


class ModelVersions:
    """Two versions of a model, loaded when they are needed first, in a job's thread.

    Parameters
    ----------
    load
        Returns the old and the new one.
    """

    def __init__(self, load: Callable[[], tuple[Model, Model]]) -> None:
        self._load = load
        self._loaded: tuple[Model, Model] | None = None

    def get(self) -> tuple[Model, Model]:
        """Return the old and the new one; the same for all images."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


def stored_versions(name: str, device: str) -> ModelVersions:
    """Return a model of the store and the one that it was tuned from.

    Raises
    ------
    InputError
        It was not tuned from another one, or that is not in the store any more.
    """
    entries = [entry for entry in list_models() if entry.card is not None]
    cards = {entry.name: entry.card for entry in entries if entry.card is not None}
    parent = cards[name].parent if name in cards else None
    before = [other for other, card in cards.items() if parent and card.hash == parent]
    if not before:
        raise InputError(
            f"There is no earlier version of {name!r} to compare with: fine-tune it first, or "
            "choose a tuned model at the top."
        )

    def load() -> tuple[Model, Model]:
        from napari_unet.nn.inference.model import load_model

        return load_model(before[0], device), load_model(name, device)

    return ModelVersions(load)


def list_other_images(
    viewer: Any, here: Image | None, files: Sequence[FileRow], settings: PredictSettings | None
) -> list[OtherImage]:
    """List the open images but one, and the files of the batch that are not open.

    Parameters
    ----------
    here
        The image that is worked on.
    settings
        How the model is run on the files.
    """
    opened = image_layers(viewer)
    found = [
        OtherImage(layer.name, quick_settings(layer), weakref.ref(layer))
        for layer in opened
        if layer is not here
    ]
    paths = {file_of(layer) for layer in opened}
    for row in files:
        if settings is not None and os.path.abspath(row.source) not in paths:
            found.append(OtherImage(row.source.name, settings, file=row))
    return found


def image_changes(
    viewer: Any, image: OtherImage, versions: ModelVersions
) -> Generator[Progress, None, ChangePreview]:
    """Read what is open, in the window's thread; return the work itself.

    Raises
    ------
    InputError
        The layer's axes cannot be used, or it is not open any more.
    """
    if image.file is not None:
        return _steps(image.file.source, image.settings, versions)
    layer = image.get_layer(viewer)
    if layer is None:
        raise InputError("It is not open any more.")
    return _steps(layer_stack(layer), image.settings, versions)


def _steps(
    source: Stack | Path, settings: PredictSettings, versions: ModelVersions
) -> Generator[Progress, None, ChangePreview]:
    """Run both models on a part of an image, and draw where they differ most."""
    yield Progress(0, 0, "loading the models")
    from napari_unet.nn.inference.diameter_estimation import diameter_steps
    from napari_unet.nn.inference.model_input import check_fit, get_channels
    from napari_unet.nn.inference.segment_window import segment_window
    from napari_unet.nn.inference.uncertainty import window_uncertainty

    old, new = versions.get()
    if (old.spec.ndim, old.spec.head) != (new.spec.ndim, new.spec.head):
        raise InputError("The two models find different things, so they cannot be compared.")
    yield Progress(0, 0, "reading the image")
    stack = open_stack(source)
    check_fit(stack, new)
    index, window = choose_part(stack, new.spec.ndim)
    before = yield from segment_window(stack, old, settings, index, window)
    settings, _ = yield from diameter_steps(stack, new, settings)
    after = yield from segment_window(stack, new, settings, index, window)
    uncertainty = yield from window_uncertainty(stack, new, settings, index, window)
    channel = get_channels(stack, new, settings)[0]
    classes = new.spec.head == "semantic"
    return preview_changes(
        stack, index, window, before, after,
        classes=classes, channel=channel, uncertainty=uncertainty,
    )  # fmt: skip
