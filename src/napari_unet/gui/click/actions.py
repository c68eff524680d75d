"""What the mouse, the keys and the buttons ask of click mode: each an action for the worker.

In a 3D view a click is a ray: it picks the object in front, or else the brightest voxel along it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unet.core.instances.label_edits import DELETE
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.prompts.rays import first_inside, values_along
from napari_unet.core.settings.tasks import ClickSettings
from napari_unet.gui.click.input import EditClicks
from napari_unet.gui.click.target import Pointed
from napari_unet.gui.click.text import FLAT, NO_OBJECT
from napari_unet.gui.jobs.engine import get_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.gui.click.overlay import ClickOverlay
    from napari_unet.gui.click.target import ClickTarget
    from napari_unet.gui.click.worker import ClickWorker

STROKE_CLICKS = 6
"""So many places of a stroke count: the network was taught with a few clicks an object."""


class ClickActions(QObject):
    """Turns what the user does into actions, as long as there is a target.

    `ClickMode` begins and ends, and shows what comes of them. Emits `changed` whenever there is
    something new to say.

    Parameters
    ----------
    owner
        The widget whose jobs these are.

    Attributes
    ----------
    settings
        How clicks are answered; see `apply_settings`.
    negative
        Clicks take away, as those with Ctrl do.
    edits
        What the next clicks do to objects that are there.
    message
        What the last action did, or why it could not, in a sentence.
    target
        The labels that are clicked into; None while the mode is off.
    """

    changed = Signal()
    worker: ClickWorker

    def __init__(self, viewer: Any, owner: QObject) -> None:
        super().__init__(owner)
        self._viewer = viewer
        self.settings = ClickSettings()
        self.negative = False
        self.edits = EditClicks()
        self.message = ""
        self.target: ClickTarget | None = None
        self._overlay: ClickOverlay | None = None
        self._pointed: Pointed | None = None

    def resume(self) -> None:
        """Make click mode's layer the active one again."""
        if self._overlay is not None:
            self._viewer.layers.selection.active = self._overlay.layer

    def show_message(self, text: str) -> None:
        """Set the message, until there is another one."""
        self.message = text
        self.changed.emit()

    def apply_settings(self, settings: ClickSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        if self.worker.session is not None:
            self.worker.session.overwrite = settings.overwrite
        if self.target is not None:
            get_features(self.target.image).resize(settings.cache)
        if not settings.hover:
            self.leave()

    def click(self, pointed: Pointed, *, negative: bool = False, join: bool = False) -> None:
        """Click at a place; see `nn.interactive.interaction.take_click`."""
        from napari_unet.nn.interactive.interaction import take_click

        if self.target is None:
            return
        self.message = ""
        if pointed.direction is not None:
            self._click_in_3d(self.target, pointed, negative, join)
            return
        click = self._click_at(pointed, negative)
        if click is not None and self.edits.edit is not None:
            self._mark(click)
        elif click is not None:
            grow = self.settings.grow
            self.worker.put(functools.partial(take_click, click=click, join=join, grow=grow))

    def _click_in_3d(
        self, target: ClickTarget, pointed: Pointed, negative: bool, join: bool
    ) -> None:
        """Click on the object in front; where there is none, on the brightest voxel behind it."""
        from napari_unet.nn.interactive.ray_click import take_ray

        ray, labels = target.ray(self._viewer, pointed), target.array
        if ray is not None and self.edits.edit is None:
            how = {"positive": not (negative or self.negative), "join": join}
            grow = self.settings.grow
            self.worker.put(lambda session: take_ray(session, ray, grow=grow, **how))
            return
        voxels = np.zeros((0, labels.ndim), int) if ray is None else ray.voxels(labels.shape)
        values = values_along(voxels, lambda index, window: np.asarray(labels[(*index, *window)]))
        place = first_inside(voxels, values)
        if place is None:
            self.show_message(NO_OBJECT)
        else:
            self._mark(Click(place))

    def box(self, first: Pointed, second: Pointed) -> None:
        """Begin an object by two corners of a box."""
        from napari_unet.nn.interactive.interaction import take_box

        low, high = self._click_at(first, False), self._click_at(second, False)
        if low is not None and high is not None:
            grow = self.settings.grow
            self._put(functools.partial(take_box, low=low.place, high=high.place, grow=grow))

    def show_box(self, first: Pointed, second: Pointed) -> None:
        """Show the box while the user draws it."""
        low, high = self._click_at(first, False), self._click_at(second, False)
        if self._overlay is not None and low is not None and high is not None:
            self._overlay.show_box(low.place, high.place)

    def stroke(self, several: Sequence[Pointed]) -> None:
        """Begin an object by a stroke along it."""
        from napari_unet.nn.interactive.interaction import take_stroke

        clicks = self._clicks_along(several)
        if clicks:
            self._put(functools.partial(take_stroke, clicks=clicks, grow=self.settings.grow))

    def show_stroke(self, several: Sequence[Pointed]) -> None:
        """Show the stroke while the user draws it."""
        if self._overlay is not None:
            self._overlay.show({}, None, self._clicks_along(several))

    def _clicks_along(self, several: Sequence[Pointed]) -> list[Click]:
        """Return clicks on a stroke: a few, evenly spread over it, with both of its ends."""
        chosen = np.linspace(0, len(several) - 1, min(len(several), STROKE_CLICKS)).round()
        found = [self._click_at(several[int(at)], False) for at in chosen]
        return [click for click in found if click is not None]

    def hover(self, pointed: Pointed, *, negative: bool = False, join: bool = False) -> None:
        """Preview a click at a place, or compute the features around it; only in a 2D view."""
        self._pointed = pointed
        if self.edits.edit is not None or not self._is_2d or self.worker.session is None:
            return
        click = self._click_at(pointed, negative)
        if click is not None and self.settings.hover:
            self.worker.hover(click, join)
        elif click is not None:
            self.worker.warm_up(click)

    def leave(self) -> None:
        """Preview nothing, until the cursor moves again."""
        self.worker.leave()
        self._show()

    def keep(self) -> None:
        """Put the active object into the labels."""
        from napari_unet.nn.interactive.interaction import keep

        self._put(functools.partial(keep, grow=self.settings.grow))

    def grow(self) -> None:
        """Follow the active object through the neighbouring planes, to look at it there."""
        from napari_unet.nn.interactive.interaction import grow_object

        self._put(grow_object)

    def drop(self) -> None:
        """Drop the active object, or the edit that was begun."""
        self.message = ""
        if self.edits.edit is not None:
            self._leave_edit()
        else:
            self.worker.drop()

    def undo(self) -> None:
        """Undo the last click, or else the last correction."""
        from napari_unet.nn.interactive.interaction import undo

        if self.edits.edit is not None:
            self._leave_edit()
        else:
            self._put(undo)

    def redo(self) -> None:
        """Redo the last click or correction that was undone."""
        from napari_unet.nn.interactive.interaction import redo

        self._put(redo)

    def press_edit(self, edit: str) -> None:
        """Begin to split, merge or delete; delete at once what is under the cursor."""
        self.begin_edit(edit)
        if edit == DELETE == self.edits.edit:
            seen = self._pointed
            turned = not self._is_2d and seen is not None and seen.direction is not None
            here = seen if turned and seen else Pointed(tuple(self._viewer.cursor.position))
            self.click(here)

    def begin_edit(self, edit: str) -> None:
        """Begin an edit: the next clicks split, merge or delete."""
        if self.target is not None:
            self.edits.begin(edit)
            self.message = ""
            self.resume()
            self._show()

    @property
    def _is_2d(self) -> bool:
        return bool(self._viewer.dims.ndisplay == 2)

    def _put(self, action: Any) -> None:
        self.message = ""
        if self.target is not None:
            self.worker.put(action)

    def _click_at(self, pointed: Pointed, negative: bool) -> Click | None:
        """Return the click on the plane in view; None, with a message, where there is none."""
        target = self.target
        if target is None:
            return None
        if not self._is_2d:
            self.show_message(FLAT)
            return None
        positive = self.edits.edit is not None or not (negative or self.negative)
        return Click(target.place(self._viewer, pointed.position), positive)

    def _mark(self, click: Click) -> None:
        """Add a click to the edit; with the last one, make it."""
        if self.target is None:
            return
        action = self.edits.take(click, self.target)
        if action is not None:
            self.worker.put(action)
        self._show()

    def _leave_edit(self) -> None:
        self.edits.leave()
        self._show()

    def _show(self) -> None:
        """Show the active object and the clicks."""
        raise NotImplementedError
