"""Click mode of one window: its begin and end, the answers to actions, and what is shown of them.

`ClickInput` calls its actions, `ClickWorker` runs the network, `ClickOverlay` draws, and the labels
of `ClickTarget` change.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.progress import PLANES
from napari_unet.core.text import pluralise
from napari_unet.gui.click.actions import ClickActions
from napari_unet.gui.click.input import ClickInput
from napari_unet.gui.click.overlay import ClickOverlay
from napari_unet.gui.click.target import LayerWatch, Pointed, open_target
from napari_unet.gui.click.text import (
    EDIT_STEPS,
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
    from napari.layers import Image, Labels

    from napari_unet.core.models.card import ModelCard
    from napari_unet.gui.click.overlay import Masks
    from napari_unet.gui.click.target import ClickTarget
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.nn.interactive.active_object import ActiveObject
    from napari_unet.nn.interactive.interaction import Answer


class ClickMode(ClickActions):
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
    model
        The name of the model that answers, or answered last.
    worker
        Runs the actions.
    """

    def __init__(self, viewer: Any, tracker: EditTracker, owner: QObject) -> None:
        super().__init__(viewer, owner)
        self._tracker = tracker
        self._input: ClickInput | None = None
        self._watch: LayerWatch | None = None
        self.model = ""
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
            if progress.what != PLANES:
                return "Looking at the object …"
            return f"Following the object: {pluralise(progress.done, 'plane')} …"
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

    def stop(self, *, force: bool = False) -> None:
        """Turn click mode off; an active object is kept first.

        Parameters
        ----------
        force
            Also if the object cannot be kept; it is lost then.
        """
        if self.shown is None and not self.worker.has_actions:
            self._end()
            return
        from napari_unet.nn.interactive.interaction import finish

        self._stopping, self._forced = True, force
        self.worker.put(functools.partial(finish, grow=self.settings.grow))

    def drop(self) -> None:
        """Drop the active object, or the edit that was begun; a panel that was closed ends."""
        if self._stopping and self._forced:  # the button to stop is gone with the panel
            self.message = ""
            self._end()
        else:
            super().drop()

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
        session = self.worker.session
        if session is not None and self.target is not None:
            session.labels = self.target.array  # the layer may have other data since `open`
        here = Pointed(tuple(self._viewer.cursor.position))
        click = self._click_at(here, False) if self._is_2d else None
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
