"""Where to look next: one place after the other at which the model is most in doubt."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.gui.finetune.uncertainty_search import Search, search_steps
from napari_unet.gui.jobs.job import CANCELLED, HOST, Job, abandon_all, get_device_queue
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.navigation import go_to, image_in_view
from napari_unet.gui.layers.overlays import (
    DOUBTS,
    get_overlay,
    is_uncertainty_layer,
    overlay_metadata,
)
from napari_unet.gui.widgets.settings_form import sentence

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_unet.core.instances.uncertainty import UncertainRegion
    from napari_unet.core.progress import Progress
    from napari_unet.gui.finetune.form import TuneForm

logger = logging.getLogger(__name__)

KEY = "n"
_TIPS = {
    "next": "Go to the place, in any slice or frame, at which the model is most in doubt and that "
    "was\nneither corrected nor looked at yet (key N).",
    "layer": "Show how much in doubt the model is, as a layer over the image.",
}


class UncertaintySection(QWidget):
    """A button that leads from one doubtful place to the next; a layer of the doubt.

    Parameters
    ----------
    viewer
        The window.
    form
        Says which model, and on which device.

    Attributes
    ----------
    search
        The last search, None before the first.
    job
        What searches, None if nothing does.
    place
        The place that was shown last.
    """

    def __init__(self, viewer: napari.Viewer, form: TuneForm) -> None:
        super().__init__()
        self._viewer, self._form = viewer, form
        self.search: Search | None = None
        self.job: Job | None = None
        self._picking: Job | None = None
        self.place: UncertainRegion | None = None
        self._wanted = False
        self._jobs: list[Job] = []
        self.next = QPushButton("Next doubtful object (N)")
        self.next.setToolTip(_TIPS["next"])
        self.layer = QCheckBox("show doubt")
        self.layer.setToolTip(_TIPS["layer"])
        self.status = QLabel()
        self.status.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.next, 1)
        row.addWidget(self.layer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.status)
        self.status.hide()
        self.next.clicked.connect(self.go)
        self.layer.toggled.connect(self._show_layer)
        self.destroyed.connect(functools.partial(abandon_all, self._jobs))
        bind_window_key(viewer, self, KEY, weak_callback(self.go))

    def go(self, *_: Any) -> None:
        """Go to the next place; search first where nothing was found yet."""
        image, entry = image_in_view(self._viewer), self._form.entry
        if image is None or entry is None:
            self._say("Open an image and choose a model to look for doubt.")
            return
        if self.search is None or not self.search.fits(image, entry.name):
            self._begin(image, entry.name)
        elif self.job is not None and not self.search.left:
            self._wanted = True
        else:
            self._show_next()

    def cancel(self) -> None:
        """Stop searching; what was found stays."""
        if self.job is not None:
            self.job.cancel()

    def forget(self, *_: Any) -> None:
        """Search anew at the next press: much was corrected, or there is another model."""
        self.cancel()
        self.search = None

    def _begin(self, image: Image, model: str) -> None:
        self.cancel()
        try:
            search = Search(image, model, self._form.device.value)
        except UnetError as error:
            self._say(sentence(error))
            return
        self.search, self._wanted = search, True
        job = Job(
            functools.partial(search_steps, search.stack, model, search.device),
            on_item=functools.partial(self._take, search),
            on_error=functools.partial(self._fail, search),
            on_end=functools.partial(self._end, search),
        )
        self.job = search.job = job
        self._jobs[:] = [job]
        self._say("Looking for doubt …")
        get_device_queue(search.device).submit(job)

    def _take(self, search: Search, item: Progress) -> None:
        if search is not self.search:
            return
        if search.take(item) and self.layer.isChecked():
            self._show_layer(True)
        if item.total > 1 and self._wanted:
            self._say(f"Looking for doubt: {item.done} of {item.total} {item.what} …")

    def _fail(self, search: Search, error: Exception) -> None:
        if not isinstance(error, UnetError):
            logger.error("looking for doubt failed", exc_info=error)
        if search is self.search:
            self.search, self._wanted = None, False
            self._say(sentence(error))
            show_error(sentence(error))

    def _end(self, search: Search, state: str) -> None:
        if search.job is not self.job:
            return  # there is a newer search
        self.job = None
        self._jobs.clear()
        if state == CANCELLED:
            self.search, self._wanted = None, False
            self._say("")
        elif self._wanted:
            self._show_next()

    def _show_next(self) -> None:
        self._wanted = False
        search = self.search
        if search is None or self._picking is not None:
            return
        self._picking = Job(
            search.pick,
            on_done=functools.partial(self._picked, search),
            on_error=functools.partial(self._fail, search),
            on_end=self._picking_ended,
        )
        self._jobs.append(self._picking)
        get_device_queue(HOST).submit(self._picking)

    def _picking_ended(self, _: str) -> None:
        self._picking = None

    def _picked(self, search: Search, place: UncertainRegion | None) -> None:
        if search is not self.search:
            return
        self.place = place
        if place is None:
            self._say("No doubtful place is left that was not looked at.")
            self.search = None if self.job is None else search
            return
        letters = search.stack.labels_axes
        position = dict(zip(letters, (*place.index, *place.centre), strict=True))
        extent = max(part.stop - part.start for part in place.window[-2:])
        if search.image in self._viewer.layers:
            go_to(self._viewer, search.image, position, float(extent))
        what = "an object" if place.label else "a place without an object"
        self._say(f"Doubt {place.score:.0%}: {what}; {search.left} more to look at.")

    def _show_layer(self, wanted: bool) -> None:
        """Show the doubt, or hide it; where nothing was searched yet, search."""
        layer = next((x for x in self._viewer.layers if is_uncertainty_layer(x)), None)
        if not wanted:
            if layer is not None:
                self._viewer.layers.remove(layer)
            return
        search = self.search
        if search is None:
            self.go()
            return
        if layer is not None and get_overlay(layer, DOUBTS) == id(search):
            layer.refresh()
            return
        if layer is not None:
            self._viewer.layers.remove(layer)
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

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)
            self.status.setVisible(bool(text))
