"""Where to look next: one place after the other at which the model is least certain.

A search goes through the image once; each press of the button then leads to the most uncertain
place that the user has neither seen nor corrected.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error
from qtpy.QtWidgets import QCheckBox, QPushButton, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.gui.errors import describe_error
from napari_unet.gui.jobs.job import CANCELLED, REPLACED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.navigation import go_to
from napari_unet.gui.layers.overlay_layer import (
    DOUBTS,
    get_overlay,
    is_uncertainty_layer,
    overlay_metadata,
    remove_layer,
)
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings
from napari_unet.gui.widgets.panel import WrappedLabel, vbox

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import napari
    from napari.layers import Image

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index
    from napari_unet.gui.shared_inputs import InputForm
    from napari_unet.nn.inference.uncertainty import UncertainRegion

logger = logging.getLogger(__name__)

SEEN = 0.5
"""A place counts as looked at if this share of its pixels is annotated."""
KEY = "n"
_NEXT = "Next doubtful object"
_TIPS = {
    "next": "Go to the place, in any slice or frame, at which the model is most in doubt and that "
    "was\nneither corrected nor looked at yet (key N).",
    "layer": "Show how much in doubt the model is, as a layer over the image.",
}


class UncertaintySection(QWidget):
    """A button that leads from one uncertain place to the next, and a layer of the uncertainty.

    Parameters
    ----------
    viewer
        The window.
    inputs
        Tells which image and which model.

    Attributes
    ----------
    search
        The last search; None before the first.
    job
        The job that searches; None without one.
    place
        The place that was shown last.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__()
        self._viewer, self._inputs = viewer, inputs
        self.search: UncertaintySearch | None = None
        self.job: Job | None = None
        self._picking: Job | None = None
        self.place: UncertainRegion | None = None
        self._go_when_found = False
        self._jobs = WidgetJobs(self)
        self.next = QPushButton()
        self.next.setToolTip(_TIPS["next"])
        self.layer = QCheckBox("show doubt")
        self.layer.setToolTip(_TIPS["layer"])
        self.status = WrappedLabel()
        vbox(self.next, self.layer, self.status, margins=(6, 0, 6, 0), owner=self)
        self.next.clicked.connect(self.go)
        self.layer.toggled.connect(self._show_layer)
        self.bind_keys()

    def bind_keys(self) -> None:
        """Take the key, at first or when a review has given it back."""
        bind_window_key(self._viewer, self, KEY, weak_callback(self.go))
        self.next.setText(f"{_NEXT} ({KEY.upper()})")

    def lose_key(self) -> None:
        """Name the key no longer: a review has taken it."""
        self.next.setText(_NEXT)

    def go(self, *_: Any) -> None:
        """Go to the next place; search first where nothing was found yet."""
        image, entry = self._inputs.image.value, self._inputs.entry
        if image is None or entry is None:
            self._show_status("Open an image and choose a model to look for doubt.")
            return
        if self.search is None or not self.search.fits(image, entry.name):
            self._start_search(image, entry.name)
        elif self.job is not None and not self.search.left:
            self._go_when_found = True
        else:
            self._show_next()

    def cancel(self) -> None:
        """Stop searching; what was found stays."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
            self.search, self._go_when_found = None, False
            self._show_status("")

    def _start_search(self, image: Image, model: str) -> None:
        self.cancel()
        try:
            search = UncertaintySearch(image, model, remembered(SECTION).get("device", "auto"))
        except UnetError as error:
            self._show_status(describe_error(error))
            return
        self.search, self._go_when_found = search, True
        job = Job(
            functools.partial(
                search_steps, search.stack, model, search.device, quick_settings(image)
            ),
            on_item=functools.partial(self._take, search),
            on_error=functools.partial(self._fail, search),
            on_end=functools.partial(self._end, search),
        )
        self.job = search.job = job
        self._show_status("Looking for doubt …")
        self._jobs.run_in(get_device_queue(search.device), job)

    def _take(self, search: UncertaintySearch, item: Progress) -> None:
        if search is not self.search:
            return
        if search.take(item) and self.layer.isChecked():
            self._show_layer(True)
        if item.total > 1 and self._go_when_found:
            self._show_status(f"Looking for doubt: {item.done} of {item.total} {item.what} …")

    def _fail(self, search: UncertaintySearch, error: Exception) -> None:
        if not isinstance(error, UnetError):
            logger.error("looking for doubt failed", exc_info=error)
        if search is self.search:
            self.search, self._go_when_found = None, False
            self._show_status(describe_error(error))
            show_error(describe_error(error))

    def _end(self, search: UncertaintySearch, state: str) -> None:
        if search.job is not self.job:
            return  # it was cancelled here
        self.job = None
        if state == CANCELLED:
            self.search, self._go_when_found = None, False
            self._show_status(REPLACED.format(KEY.upper()))
        elif self._go_when_found:
            self._show_next()

    def _show_next(self) -> None:
        self._go_when_found = False
        search = self.search
        if search is None or self._picking is not None:
            return
        self._picking = Job(
            search.pick,
            on_done=functools.partial(self._picked, search),
            on_error=functools.partial(self._fail, search),
            on_end=self._picking_ended,
        )
        self._jobs.run("pick", self._picking)  # no export that goes on may hold it up

    def _picking_ended(self, _: str) -> None:
        self._picking = None

    def _picked(self, search: UncertaintySearch, place: UncertainRegion | None) -> None:
        if search is not self.search:
            return
        self.place = place
        if place is None:
            self._show_status("No doubtful place is left that was not looked at.")
            self.search = None if self.job is None else search
            return
        letters = search.stack.labels_axes
        position = dict(zip(letters, (*place.index, *place.centre), strict=True))
        extent = max(part.stop - part.start for part in place.window[-2:])
        if search.image in self._viewer.layers:
            go_to(self._viewer, search.image, position, float(extent))
        what = "an object" if place.label else "a place without an object"
        self._show_status(f"Doubt {place.score:.0%}: {what}; {search.left} more to look at.")

    def _show_layer(self, wanted: bool) -> None:
        """Show the uncertainty, or hide it; search first where nothing was searched yet."""
        layer = next((x for x in self._viewer.layers if is_uncertainty_layer(x)), None)
        if not wanted:
            remove_layer(self._viewer, layer)
            return
        search = self.search
        if search is None:
            self.go()
            return
        if layer is not None and get_overlay(layer, DOUBTS) == id(search):
            layer.refresh()
            return
        remove_layer(self._viewer, layer)
        placement = Placement(search.axes, search.stack.labels_axes, tuple(search.data.shape))
        active = self._viewer.layers.selection.active
        self._viewer.add_image(
            placement.to_layer(search.codes),
            name=f"{search.image.name} doubt",
            metadata=overlay_metadata(DOUBTS, id(search)),
            colormap="inferno",
            contrast_limits=(0, 255),
            blending="additive",
            opacity=0.6,
            **placement.geometry(search.image),
        )
        if active is not None:
            self._viewer.layers.selection.active = active

    def _show_status(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)


class UncertaintySearch:
    """One search: an image, a model, the uncertain places found so far.

    Attributes
    ----------
    places
        The most uncertain first; of all frames that were searched.
    codes
        uint8, the uncertainty of each pixel from 0 to 255.
    job
        The job that searches, or has searched.
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
        """Take in a report; return whether a frame is finished."""
        uncertainty = getattr(item, "uncertainty", None)
        if uncertainty is None:
            return False
        index, places = item.index, item.places  # type: ignore[attr-defined]
        self.codes[index] = np.round(255 * np.clip(uncertainty, 0, 1)).astype(np.uint8)
        self.places = sorted([*self.places, *places], key=lambda place: -place.score)
        return True

    def pick(self) -> Generator[Progress, None, UncertainRegion | None]:
        """Return the most uncertain place that was neither shown nor corrected; None without any.

        Runs in a job's thread, as it reads the journals again: the user corrects meanwhile.
        """
        read = open_annotations(self.stack)
        annotated: dict[Index, np.ndarray] = {}
        for place in list(self.places):
            name = (place.index, place.centre)
            if name in self._shown:
                continue
            self._shown.add(name)
            if place.index not in annotated:
                yield Progress(0, 0, "reading what was corrected")
                annotated[place.index] = read(place.index)
            if annotated[place.index][place.window].mean() < SEEN:
                return place
        return None

    @property
    def left(self) -> int:
        """How many places were not shown yet."""
        return len(self.places) - len(self._shown)


def search_steps(
    stack: Stack, model: str, device: str, settings: PredictSettings
) -> Generator[Progress, None, Any]:
    """Search a stack, in the job's thread."""
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.uncertainty import find_uncertain_regions

    network = loaded_model(model, device)
    yield Progress(0, 0, "reading what was corrected")
    known = open_annotations(stack)
    return (yield from find_uncertain_regions(stack, network, settings, known=known))


def open_annotations(stack: Stack) -> Callable[[Index], np.ndarray]:
    """Return a function that reads which pixels of a frame, at an index, are annotated already."""
    from napari_unet.core.annotations.header import find_journals
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.core.annotations.mask import read_annotation_mask

    paths = [place.path for place in find_journals(stack)]

    def read(index: Index) -> np.ndarray:
        shape = stack.labels_shape[len(index) :]
        seen = np.zeros(shape, bool)
        for path in paths:
            try:
                with JournalReader(path) as journal:
                    for plane in journal.frames(2):
                        if plane[: len(index)] == index:
                            seen[plane[len(index) :]] |= read_annotation_mask(
                                journal, plane
                            ).annotated
            except UnetError as error:
                logger.info("a journal is skipped: %s", error)
        return seen

    return read
