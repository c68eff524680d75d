"""Click mode of one window: from clicks, keys and buttons to objects in the labels.

`ClickInput` calls it, `ClickWorker` runs the network, `ClickOverlay` draws, and the labels of
`ClickTarget` change.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.instances.label_edits import DELETE
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.settings.tasks import ClickSettings
from napari_unet.gui.click.input import ClickInput, EditClicks
from napari_unet.gui.click.overlay import ClickOverlay
from napari_unet.gui.click.target import LayerWatch, open_target
from napari_unet.gui.click.text import (
    EDIT_STEPS,
    FLAT,
    HINT,
    PAUSED,
    describe_change,
    describe_empty,
    describe_object,
)
from napari_unet.gui.click.worker import ClickWorker, open_session
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.engine import get_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Labels

    from napari_unet.core.models.card import ModelCard
    from napari_unet.gui.click.overlay import Masks
    from napari_unet.gui.click.target import ClickTarget
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.nn.interactive.active_object import ActiveObject
    from napari_unet.nn.interactive.interaction import Answer


class ClickMode(QObject):
    """Lets the user click objects into a Labels layer.

    Emits `changed` whenever `describe` has something new to say.

    Parameters
    ----------
    tracker
        Records what is changed.
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
    model
        The name of the model that answers, or answered last.
    """

    changed = Signal()

    def __init__(self, viewer: Any, tracker: EditTracker, owner: QObject) -> None:
        super().__init__(owner)
        self._viewer, self._tracker = viewer, tracker
        self.settings = ClickSettings()
        self.negative = False
        self.edits = EditClicks()
        self.target: ClickTarget | None = None
        self._overlay: ClickOverlay | None = None
        self._input: ClickInput | None = None
        self._watch: LayerWatch | None = None
        self.message = self.model = ""
        self._stopping = self._forced = False
        self.worker = ClickWorker(owner, self._apply_answer)
        self.worker.opened.connect(self._opened)
        self.worker.previewed.connect(self._previewed)
        self.worker.failed.connect(self._failed)
        self.worker.updated.connect(self.changed)
        tracker.changed.connect(self.changed)

    @property
    def on(self) -> bool:
        """Whether click mode is on."""
        return self.target is not None

    @property
    def active(self) -> bool:
        """Whether clicks on the canvas are for click mode: its layer is the active one."""
        return self._input is not None and self._input.active

    @property
    def shown(self) -> ActiveObject | None:
        """The active object; None if there is none, or nothing of it."""
        session = self.worker.session
        shown = None if session is None else session.shown
        return shown if shown is not None and shown.area else None

    def describe(self) -> str:
        """Return the status in a sentence or two; "" while click mode is off."""
        progress, session = self.worker.progress, self.worker.session
        if not self.on:
            return self.message
        if session is None:
            return f"{(progress.what or 'getting ready').capitalize()} …"
        if not self.active:
            return PAUSED
        if progress.total and self.worker.busy:
            return f"Following the object: {progress.done} {progress.what} …"
        if (edit := self.edits.edit) is not None:
            step = EDIT_STEPS[edit][len(self.edits.clicks)]
            return " ".join(filter(None, (self.message, step)))
        if self.shown is not None:
            return (
                f"{describe_object(self.shown)} {self.message or 'Enter keeps it, Esc drops it.'}"
            )
        return self.message or describe_empty(session.shown) or HINT

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
        target = open_target(self._viewer, image, labels, self._tracker, card)
        self._overlay = ClickOverlay(self._viewer, target)
        self.target, self.message, self.model = target, "", card.name
        self._input = ClickInput(self._viewer, self._overlay.layer, self)
        kept = get_features(image)
        kept.resize(self.settings.cache)
        overwrite = self.settings.overwrite
        self.worker.open(lambda: open_session(target, card.name, device, kept, overwrite))
        self._watch = LayerWatch(
            self._viewer, target, self._overlay.layer, self._gone, self._renewed
        )
        self.changed.emit()

    def resume(self) -> None:
        """Make click mode's layer the active one again."""
        if self._overlay is not None:
            self._viewer.layers.selection.active = self._overlay.layer

    def stop(self, *, force: bool = False) -> None:
        """Turn click mode off; an active object is kept first.

        Parameters
        ----------
        force
            Also if the object cannot be kept; it is lost then.
        """
        from napari_unet.nn.interactive.interaction import finish

        if self.shown is None and not self.worker.has_actions:
            self._end()
            return
        self._stopping, self._forced = True, force
        self.worker.put(functools.partial(finish, grow=self.settings.grow))

    def apply_settings(self, settings: ClickSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        if self.worker.session is not None:
            self.worker.session.overwrite = settings.overwrite
        if self.target is not None:
            get_features(self.target.image).resize(settings.cache)
        if not settings.hover:
            self.leave()

    def click(
        self, position: Sequence[float], *, negative: bool = False, join: bool = False
    ) -> None:
        """Click at a position in the world; see `nn.interactive.interaction.take_click`."""
        from napari_unet.nn.interactive.interaction import take_click

        click = self._click_at(position, negative)
        if click is None:
            return
        self.message = ""
        if self.edits.edit is not None:
            self._mark(click)
            return
        grow = self.settings.grow
        self.worker.put(functools.partial(take_click, click=click, join=join, grow=grow))

    def box(self, first: Sequence[float], second: Sequence[float]) -> None:
        """Begin an object by two corners of a box, in the world."""
        from napari_unet.nn.interactive.interaction import take_box

        low, high = self._click_at(first, False), self._click_at(second, False)
        if low is not None and high is not None:
            grow = self.settings.grow
            self._put(functools.partial(take_box, low=low.place, high=high.place, grow=grow))

    def show_box(self, first: Sequence[float], second: Sequence[float]) -> None:
        """Show the box while the user draws it."""
        low, high = self._click_at(first, False), self._click_at(second, False)
        if self._overlay is not None and low is not None and high is not None:
            self._overlay.show_box(low.place, high.place)

    def hover(
        self, position: Sequence[float], *, negative: bool = False, join: bool = False
    ) -> None:
        """Preview a click at a position in the world, or compute the features around it."""
        if self.edits.edit is not None or not self._is_2d or self.worker.session is None:
            return
        click = self._click_at(position, negative)
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
        if self._stopping and self._forced:  # the panel is closed, and with it the button to stop
            self._end()
            return
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
            self.click(tuple(self._viewer.cursor.position))

    def begin_edit(self, edit: str) -> None:
        """Begin an edit: the next clicks split, merge or delete."""
        if not self._is_2d:
            self.show_message(FLAT)
        elif self.on:
            self.edits.begin(edit)
            self.message = ""
            self.resume()
            self._show()

    @property
    def _is_2d(self) -> bool:
        return bool(self._viewer.dims.ndisplay == 2)

    def _put(self, action: Any) -> None:
        self.message = ""
        if self.on:
            self.worker.put(action)

    def _click_at(self, position: Sequence[float], negative: bool) -> Click | None:
        target = self.target
        if target is None:
            return None
        if not self._is_2d:
            self.show_message(FLAT)
            return None
        positive = self.edits.edit is not None or not (negative or self.negative)
        return Click(target.place(self._viewer, position), positive)

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

    def _apply_answer(self, answer: Answer) -> None:
        """Apply an action's answer: its change, if there is one, and the active object."""
        from napari_unet.nn.interactive.interaction import END

        target = self.target
        if target is None:
            return
        if answer.source == END:
            QTimer.singleShot(0, self._end)
        elif answer.change is not None:
            clicks = tuple((click.place, click.positive) for click in answer.clicks.clicks)
            target.apply(answer.change, self._tracker, answer.source, clicks)
            self.message = describe_change(answer)
        elif not answer.moved:
            self._step_journal(target, answer.source)
        self._show(kept=answer.change is not None)

    def _step_journal(self, target: ClickTarget, kind: str) -> None:
        recording = self._tracker.recordings.get(target.layer)
        if recording is None:
            self.message = f"There is nothing to {kind}."
            return
        getattr(recording, kind)()
        self.message = recording.describe()

    def _opened(self) -> None:
        """Compute the features under the cursor, where the first click is likely."""
        click = self._click_at(tuple(self._viewer.cursor.position), False)
        session = self.worker.session
        if session is not None and self.target is not None:
            session.labels = self.target.array  # the layer may have other data since `open`
        try:
            if click is not None and session is not None:
                session.locate(click)
                self.worker.warm_up(click)
        except InputError:
            pass  # the cursor is outside the image
        self.changed.emit()

    def _show(self, after: Masks | None = None, *, kept: bool = False) -> None:
        session = self.worker.session
        if self._overlay is not None and session is not None:
            shown = session.shown
            nothing = kept or self.edits.edit is not None
            clicks = self.edits.clicks if self.edits.edit is not None else shown.clicks.clicks
            self._overlay.show({} if nothing else shown.masks, after, () if kept else clicks)
        if after is None:
            self.changed.emit()

    def _previewed(self, masks: Any) -> None:
        if self.edits.edit is None and self.settings.hover:
            self._show(masks)

    def _failed(self, error: Exception) -> None:
        empty = self.shown is None
        ending = self.worker.session is None or (self._stopping and (self._forced or empty))
        if ending or not isinstance(error, UnetError):
            report_error(error, "clicking failed", self.show_message)
        way_out = " Esc drops the object." if self._stopping and not ending else ""
        self._stopping = False
        self.show_message(describe_error(error) + way_out)
        self._show()
        if ending:
            self._end()

    def show_message(self, text: str) -> None:
        """Set the message, until there is another one."""
        self.message = text
        self.changed.emit()

    def _renewed(self, target: ClickTarget) -> None:
        """Use the labels' new data; the active object stays."""
        self.target, self.message = target, ""
        if self.worker.session is not None:
            self.worker.session.labels = target.array
        self.changed.emit()

    def _gone(self, reason: str) -> None:
        self._end()
        self.show_message(reason)

    def _end(self) -> None:
        """Turn click mode off at once."""
        if self.target is None:
            return
        self.worker.close()
        target, overlay, inputs = self.target, self._overlay, self._input
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self.target = self._overlay = self._input = None
        self.edits.leave()
        self._stopping = False
        if inputs is not None:
            inputs.close()
        if overlay is not None:
            overlay.close()
        if target.layer in self._viewer.layers:
            self._viewer.layers.selection.active = target.layer
        self.changed.emit()
