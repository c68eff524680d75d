"""Click mode of one window: from clicks, keys and buttons to objects in the labels."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.core.errors import UnetError
from napari_unet.core.instances.label_edits import DELETE
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.settings import ClickSettings
from napari_unet.gui.click.edits import EditClicks
from napari_unet.gui.click.input import ClickInput
from napari_unet.gui.click.layer_watch import LayerWatch
from napari_unet.gui.click.overlay import ClickOverlay
from napari_unet.gui.click.target import open_target
from napari_unet.gui.click.text import FLAT, done
from napari_unet.gui.click.worker import ClickWork, open_session
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.engine import get_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Labels

    from napari_unet.core.models.card import ModelCard
    from napari_unet.gui.click.overlay import Masks
    from napari_unet.gui.click.target import Target
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.nn.interactive.active_object import ActiveObject
    from napari_unet.nn.interactive.interaction import Answer

logger = logging.getLogger(__name__)


class ClickMode(QObject):
    """Lets the user click objects into a Labels layer.

    Emits `changed` whenever there is something new to say of it; see `gui.clicks.text`.

    Parameters
    ----------
    viewer
        The window.
    recorder
        Records what is changed.
    owner
        The widget that it belongs to.

    Attributes
    ----------
    settings
        How clicks are answered; see `apply_settings`.
    away
        Clicks take away, as those with Ctrl do.
    edits
        What the next clicks do to objects that are there.
    said
        What came of the last action, in a sentence.
    target
        The labels that are clicked into; None while the mode is off.
    """

    changed = Signal()

    def __init__(self, viewer: Any, recorder: EditTracker, owner: QObject) -> None:
        super().__init__(owner)
        self._viewer, self._recorder = viewer, recorder
        self.settings = ClickSettings()
        self.away = False
        self.edits = EditClicks()
        self.target: Target | None = None
        self._view: ClickOverlay | None = None
        self._input: ClickInput | None = None
        self._watch: LayerWatch | None = None
        self.said = ""
        self._stopping = self._surely = False
        self.work = ClickWork(owner, self._take)
        self.work.opened.connect(self._opened)
        self.work.previewed.connect(self._previewed)
        self.work.failed.connect(self._failed)
        self.work.moved.connect(self.changed)
        recorder.changed.connect(self.changed)

    @property
    def on(self) -> bool:
        """Whether click mode is on."""
        return self.target is not None

    @property
    def active(self) -> bool:
        """Whether clicks on the canvas are for it: its layer is the active one."""
        return self._input is not None and self._input.active

    @property
    def shown(self) -> ActiveObject | None:
        """The object at hand; None where there is none."""
        session = self.work.session
        shown = None if session is None else session.shown
        return shown if shown is not None and shown.area else None

    def start(self, image: Image, labels: Labels | None, card: ModelCard, device: str) -> None:
        """Turn click mode on.

        Parameters
        ----------
        labels
            What is clicked into; None: a new layer.
        card
            Of the model.

        Raises
        ------
        UnetError
            The labels do not fit the image, or cannot be changed.
        """
        self._end()
        target = open_target(self._viewer, image, labels, self._recorder, card)
        self._view = ClickOverlay(self._viewer, target)
        self.target, self.said = target, ""
        self._input = ClickInput(self._viewer, self._view.layer, self)
        kept = get_features(image)
        kept.resize(self.settings.cache)
        overwrite = self.settings.overwrite
        self.work.open(lambda: open_session(target, card.name, device, kept, overwrite))
        self._watch = LayerWatch(self._viewer, target, self._view.layer, self._gone, self._renewed)
        self.changed.emit()

    def resume(self) -> None:
        """Make its layer the active one again."""
        if self._view is not None:
            self._viewer.layers.selection.active = self._view.layer

    def stop(self, *, surely: bool = False) -> None:
        """Turn click mode off; an object at hand is kept first.

        Parameters
        ----------
        surely
            Turn it off, too, if the object cannot be kept, which is lost then.
        """
        from napari_unet.nn.interactive.interaction import finish

        if self.shown is None and not self.work.asked:
            self._end()
            return
        self._stopping, self._surely = True, surely
        self.work.put(functools.partial(finish, grow=self.settings.grow))

    def apply_settings(self, settings: ClickSettings) -> None:
        """Go on with other settings."""
        self.settings = settings
        if self.work.session is not None:
            self.work.session.overwrite = settings.overwrite
        if self.target is not None:
            get_features(self.target.image).resize(settings.cache)
        if not settings.hover:
            self.leave()

    def click(self, position: Sequence[float], *, away: bool = False, join: bool = False) -> None:
        """Take a click in at a place in the world; see `nn.clicks.flow.take_click`."""
        from napari_unet.nn.interactive.interaction import take_click

        click = self._click_at(position, away)
        if click is None:
            return
        self.said = ""
        if self.edits.what is not None:
            self._mark(click)
            return
        grow = self.settings.grow
        self.work.put(functools.partial(take_click, click=click, join=join, grow=grow))

    def box(self, first: Sequence[float], second: Sequence[float]) -> None:
        """Begin an object by two corners of a box."""
        from napari_unet.nn.interactive.interaction import take_box

        corners = [self._click_at(corner, False) for corner in (first, second)]
        low, high = (None if corner is None else corner.place for corner in corners)
        if low is not None and high is not None:
            self.said = ""
            grow = self.settings.grow
            self.work.put(functools.partial(take_box, low=low, high=high, grow=grow))

    def show_box(self, first: Sequence[float], second: Sequence[float]) -> None:
        """Draw a box that is being drawn."""
        corners = [self._click_at(corner, False) for corner in (first, second)]
        if self._view is not None and corners[0] is not None and corners[1] is not None:
            self._view.show_box(corners[0].place, corners[1].place)

    def hover(self, position: Sequence[float], *, away: bool = False, join: bool = False) -> None:
        """Preview a click at a place in the world, or get its surroundings ready."""
        if self.edits.what is not None or not self._flat or self.work.session is None:
            return
        click = self._click_at(position, away)
        if click is not None and self.settings.hover:
            self.work.hover(click, join)
        elif click is not None:
            self.work.look(click)

    def leave(self) -> None:
        """Preview nothing, until the cursor moves again."""
        self.work.leave()
        self._show()

    def keep(self) -> None:
        """Put the object at hand into the labels."""
        from napari_unet.nn.interactive.interaction import keep

        self._put(functools.partial(keep, grow=self.settings.grow))

    def grow(self) -> None:
        """Follow the object at hand through the neighbouring planes, to look at it there."""
        from napari_unet.nn.interactive.interaction import grow_object

        self._put(grow_object)

    def drop(self) -> None:
        """Drop the object at hand, or what was to be done to others."""
        self.said = ""
        if self._stopping and self._surely:  # nobody is there to turn it off again
            self._end()
            return
        if self.edits.what is not None:
            self._leave_edit()
        else:
            self.work.drop()

    def undo(self) -> None:
        """Take back the last click, or else the last correction."""
        from napari_unet.nn.interactive.interaction import undo

        if self.edits.what is not None:
            self._leave_edit()
        else:
            self._put(undo)

    def redo(self) -> None:
        """Do again what was taken back."""
        from napari_unet.nn.interactive.interaction import redo

        self._put(redo)

    def press_edit(self, edit: str) -> None:
        """Begin to split, merge or delete; delete at once what is under the cursor."""
        self.begin_edit(edit)
        if edit == DELETE == self.edits.what:
            self.click(tuple(self._viewer.cursor.position))

    def begin_edit(self, edit: str) -> None:
        """Let the next clicks split, merge or delete."""
        if not self._flat:
            self.say(FLAT)
        elif self.on:
            self.edits.begin(edit)
            self.said = ""
            self.resume()
            self._show()

    @property
    def _flat(self) -> bool:
        return bool(self._viewer.dims.ndisplay == 2)

    def _put(self, action: Any) -> None:
        self.said = ""
        if self.on:
            self.work.put(action)

    def _click_at(self, position: Sequence[float], away: bool) -> Click | None:
        target = self.target
        if target is None:
            return None
        if not self._flat:
            self.say(FLAT)
            return None
        positive = self.edits.what is not None or not (away or self.away)
        return Click(target.place(self._viewer, position), positive)

    def _mark(self, click: Click) -> None:
        """Take one of the clicks that an edit needs; do it with the last one."""
        if self.target is None:
            return
        action = self.edits.take(click, self.target)
        if action is not None:
            self.work.put(action)
        self._show()

    def _leave_edit(self) -> None:
        self.edits.leave()
        self._show()

    def _take(self, answer: Answer) -> None:
        """Make the change that an action asks for, and show what is at hand now."""
        from napari_unet.nn.interactive.interaction import END

        target = self.target
        if target is None:
            return
        if answer.source == END:
            QTimer.singleShot(0, self._end)
        elif answer.change is not None:
            clicks = tuple((click.place, click.positive) for click in answer.clicks.clicks)
            target.apply(answer.change, self._recorder, answer.source, clicks)
            self.said = done(answer)
        elif not answer.moved:
            self._step_journal(answer.source)
        self._show(kept=answer.change is not None)

    def _step_journal(self, kind: str) -> None:
        recording = None if self.target is None else self._recorder.recordings.get(
            self.target.layer
        )  # fmt: skip
        if recording is None:
            self.said = f"There is nothing to {kind}."
            return
        getattr(recording, kind)()
        self.said = recording.describe()

    def _opened(self) -> None:
        """Look at the image where the cursor is, before it is clicked on."""
        from napari_unet.core.errors import InputError

        click = self._click_at(tuple(self._viewer.cursor.position), False)
        session = self.work.session
        if session is not None and self.target is not None:
            session.labels = self.target.array  # they may have got other data meanwhile
        try:
            if click is not None and session is not None:
                session.locate(click)
                self.work.look(click)
        except InputError:
            pass  # the cursor is elsewhere
        self.changed.emit()

    def _show(self, after: Masks | None = None, *, kept: bool = False) -> None:
        session = self.work.session
        if self._view is not None and session is not None:
            shown = session.shown
            nothing = kept or self.edits.what is not None
            clicks = self.edits.marked if self.edits.what is not None else shown.clicks.clicks
            self._view.show({} if nothing else shown.masks, after, () if kept else clicks)
        if after is None:
            self.changed.emit()

    def _previewed(self, masks: Any) -> None:
        if self.edits.what is None and self.settings.hover:
            self._show(masks)

    def _failed(self, error: Exception) -> None:
        empty = self.shown is None
        ending = self.work.session is None or (self._stopping and (self._surely or empty))
        if ending or not isinstance(error, UnetError):
            report_error(error, "clicking failed", self.say)
        way_out = " Esc drops the object." if self._stopping and not ending else ""
        self._stopping = False
        self.say(describe_error(error) + way_out)
        self._show()
        if ending:
            self._end()

    def say(self, text: str) -> None:
        """Show a sentence until something else is to be said."""
        self.said = text
        self.changed.emit()

    def _renewed(self, target: Target) -> None:
        """Go on with other data of the labels; the object at hand stays."""
        self.target, self.said = target, ""
        if self.work.session is not None:
            self.work.session.labels = target.array
        self.changed.emit()

    def _gone(self, reason: str) -> None:
        self._end()
        self.say(reason)

    def _end(self) -> None:
        """Turn click mode off, as it is."""
        if self.target is None:
            return
        self.work.close()
        target, view, inputs = self.target, self._view, self._input
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self.target = self._view = self._input = None
        self.edits.leave()
        self._stopping = False
        if inputs is not None:
            inputs.close()
        if view is not None:
            view.close()
        if target.layer in self._viewer.layers:
            self._viewer.layers.selection.active = target.layer
        self.changed.emit()
