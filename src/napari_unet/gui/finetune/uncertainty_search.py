"""A search for doubt: the places at which a model is least sure, and which of them were seen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.segment.form import quick_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image

    from napari_unet.core.instances.uncertainty import UncertainRegion
    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.jobs.job import Job

logger = logging.getLogger(__name__)

SEEN = 0.5
"""A place of which so much is known was looked at."""


class Search:
    """One search for doubt: an image, a model, what was found so far.

    Attributes
    ----------
    places
        The most doubtful first; of all frames that are through.
    job
        What searches; it may be through.
    """

    def __init__(self, image: Image, model: str, device: str) -> None:
        self.image, self.model, self.device = image, model, device
        self.data = full_resolution(image)
        self.stack = layer_stack(image)
        self.axes = layer_axes(image)
        self.places: list[UncertainRegion] = []
        self.codes = np.zeros(self.stack.labels_shape, np.uint8)  # taken page by page
        self.job: Job | None = None
        self._shown: set[tuple[Any, ...]] = set()

    def fits(self, image: Image, model: str) -> bool:
        """Whether this search is one of this image as it is, with this model."""
        return image == self.image and full_resolution(image) is self.data and model == self.model

    def take(self, item: Progress) -> bool:
        """Take a report in; return whether a frame is through."""
        doubt = getattr(item, "uncertainty", None)
        if doubt is None:
            return False
        index, places = item.index, item.places  # type: ignore[attr-defined]
        self.codes[index] = np.round(255 * np.clip(doubt, 0, 1)).astype(np.uint8)
        self.places = sorted([*self.places, *places], key=lambda place: -place.score)
        return True

    def pick(self) -> Generator[Progress, None, UncertainRegion | None]:
        """Return the most doubtful place that was neither shown nor corrected; None without any.

        Runs in a job's thread, for it reads the journals, which have grown meanwhile.
        """
        known = looked_at(self.stack)
        seen: dict[tuple[int, ...], np.ndarray] = {}
        for place in list(self.places):
            name = (place.index, place.centre)
            if name in self._shown:
                continue
            self._shown.add(name)
            if place.index not in seen:
                yield Progress(0, 0, "reading what was corrected")
                seen[place.index] = known(place.index)
            if seen[place.index][place.window].mean() < SEEN:
                return place
        return None

    @property
    def left(self) -> int:
        """How many places were not shown yet."""
        return len(self.places) - len(self._shown)


def search_steps(stack: Stack, model: str, device: str) -> Generator[Progress, None, Any]:
    """Search a stack, in the job's thread."""
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.uncertainty import find_uncertain_regions

    network = loaded_model(model, device)
    yield Progress(0, 0, "reading what was corrected")
    known = looked_at(stack)
    return (yield from find_uncertain_regions(stack, network, quick_settings(), known=known))


def looked_at(stack: Stack) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Return a function that says of a frame what the image's journals know of it already."""
    from napari_unet.core.annotations.header import find_journals
    from napari_unet.core.annotations.mask import frame_annotation_mask
    from napari_unet.core.annotations.reader import JournalReader

    paths = [place.path for place in find_journals(stack)]

    def known(index: tuple[int, ...]) -> np.ndarray:
        shape = stack.labels_shape[len(index) :]
        seen = np.zeros(shape, bool)
        for path in paths:
            try:
                with JournalReader(path) as journal:
                    for plane in journal.frames(2):
                        if plane[: len(index)] == index:
                            seen[plane[len(index) :]] |= frame_annotation_mask(journal, plane).seen
            except UnetError as error:
                logger.info("a journal is passed over: %s", error)
        return seen

    return known
