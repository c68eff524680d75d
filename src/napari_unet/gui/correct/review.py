"""Review mode: one object after the other, judged by single keys under one hand.

The objects come in the order of what a correction is worth, with some drawn at random, by which the
quality of the labels is estimated.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QWidget
from scipy import ndimage

from napari_unet.core.alike.group_edits import edit_all
from napari_unet.core.errors import UnetError
from napari_unet.core.instances.label_edits import DELETE, SPLIT
from napari_unet.core.review.order import OBJECT
from napari_unet.gui.correct.alike_search import AlikeQuery
from napari_unet.gui.correct.mask_section import tip_button
from napari_unet.gui.correct.quality_line import QualityLine
from napari_unet.gui.correct.review_plan import ReviewPlan, plan_review
from napari_unet.gui.correct.review_text import ASK, ASK_SQUARE, GONE, KEYS, READ_ONLY, TIPS, TITLES
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.jobs.job import CANCELLED, REPLACED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.navigation import go_to
from napari_unet.gui.layers.overlay_layer import add_drawing, remove_layer
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings
from napari_unet.gui.widgets.panel import WrappedLabel, vbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.progress import Progress
    from napari_unet.core.review.order import ReviewItem
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.shared_inputs import InputForm

LAYER = "review"
_COLOURS = {1: (1.0, 0.9, 0.2, 1)}


class ReviewSection(QWidget):
    """Leads through the objects of the chosen labels, and says how good they are.

    Emits `started` when the review has taken its keys, `stopped` when it is over and they are free,
    and `click_wanted` when the user wants click mode.

    Parameters
    ----------
    viewer, tracker, inputs, chosen
        As for `AlikeSection`.

    Attributes
    ----------
    plan
        The review; None while there is none.
    item
        What is looked at.
    """

    started = Signal()
    stopped = Signal()
    click_wanted = Signal()

    def __init__(
        self,
        viewer: Any,
        tracker: EditTracker,
        inputs: InputForm,
        chosen: Callable[[], Labels | None],
    ) -> None:
        super().__init__()
        self._viewer, self._tracker = viewer, tracker
        self._inputs, self._chosen = inputs, chosen
        self._jobs = WidgetJobs(self)
        self.plan: ReviewPlan | None = None
        self.item: ReviewItem | None = None
        self._job: Job | None = None
        self.layer: Labels | None = None
        self._outlined: tuple[Any, ...] = ()
        self._saving: LayerRecording | None = None
        self._give_back: list[Callable[..., None]] = []
        self._build()
        tracker.changed.connect(self._recording_changed)
        viewer.layers.events.removed.connect(self._layer_removed)

    def _build(self) -> None:
        self.toggle = tip_button("Review", TIPS["review"])
        self.toggle.setCheckable(True)
        self.toggle.clicked.connect(self._toggled)
        actions = {
            "accept": self.accept,
            "split": self.split,
            "delete": self.delete,
            "click": self.click,
            "next": self.next,
        }
        self.buttons = {}
        self.keys = QWidget()
        grid = QGridLayout(self.keys)
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (name, action) in enumerate(actions.items()):
            button = tip_button(f"{TITLES[name]} ({KEYS[name]})", TIPS[name])
            button.clicked.connect(action)
            self.buttons[name] = button
            grid.addWidget(button, *divmod(number, 2))
        self._actions = actions
        self.keys.hide()
        self.status, self.quality = WrappedLabel(), QualityLine()
        vbox(self.toggle, self.status, self.keys, self.quality, margins=(6, 0, 6, 0), owner=self)

    def _toggled(self, wanted: bool) -> None:
        if wanted:
            self.start()
        else:
            self.stop()

    def start(self) -> None:
        """Plan a review of the chosen labels, and begin it."""
        layer, entry = self._chosen(), self._inputs.entry
        image = None if layer is None else self._tracker.get_image(layer)
        if layer is None or image is None or entry is None:
            self.toggle.setChecked(False)
            self._say("Choose an image, labels and a model first.")
            return
        self.stop()
        self.toggle.setChecked(True)
        device = remembered(SECTION).get("device", "auto")
        recording = self._tracker.begin_recording(layer)
        query = AlikeQuery(
            recording, entry.name, device, quick_settings(image), get_features(image)
        )
        seed = int(np.random.default_rng().integers(2**31))
        self._say("Looking for doubt …")
        self._run(functools.partial(plan_review, query, seed), self._planned, device)

    def stop(self, *_: Any) -> None:
        """End the review; what was judged is in the journal already."""
        if self.job is not None:
            self.job.cancel()
        self._job = None
        self._stop_waiting()
        began = bool(self._give_back)
        for give_back in self._give_back:
            give_back()
        self._give_back = []
        layer, self.layer, self.plan, self.item = self.layer, None, None, None
        self._outlined = ()
        self.quality.forget()
        remove_layer(self._viewer, layer)
        self.keys.hide()
        self.toggle.setChecked(False)
        self._say("")
        if began:
            self.stopped.emit()

    def accept(self, *_: Any) -> None:
        """Take what is looked at for right, with what was changed there; go on."""
        plan, item = self.plan, self.item
        if plan is None or item is None or self.busy:
            return
        if item.kind == OBJECT and not plan.was_edited(item, self._labels()):
            found = plan.objects[item.number]
            plan.query.recording.confirm(list(found.labels), found.index)
        self._settle()
        self._go_on()

    def delete(self, *_: Any) -> None:
        """Delete the object; go on."""
        self._edit(DELETE)

    def split(self, *_: Any) -> None:
        """Split the object at its neck; go on."""
        self._edit(SPLIT)

    def click(self, *_: Any) -> None:
        """Turn click mode on."""
        if self.plan is not None:
            self.click_wanted.emit()

    def next(self, *_: Any) -> None:
        """Go on; what was changed counts as corrected, what was not is skipped."""
        plan, item = self.plan, self.item
        if plan is None or self.busy:
            return
        if item is not None and plan.was_edited(item, self._labels()):
            self._settle()
        self._go_on()

    def _labels(self) -> Any:
        assert self.plan is not None
        recording = self.plan.query.recording
        assert recording.geometry is not None
        return recording.geometry.array(recording.data)

    def _edit(self, kind: str) -> None:
        plan, item = self.plan, self.item
        if plan is None or item is None or item.kind != OBJECT or self.busy:
            return
        if plan.query.recording.read_only:
            self._say(READ_ONLY)
            return
        labels, found = self._labels(), plan.objects[item.number]
        if plan.was_edited(item, labels):
            self._say("It was changed already: press N to go on, or Ctrl+Z to take it back.")
            return
        steps = functools.partial(edit_all, labels, [found], kind)
        self._run(steps, functools.partial(self._edited, plan))

    def _edited(self, plan: ReviewPlan, edit: GroupEdit) -> None:
        """Record an edit; what came of it is noted as soon as it is in the labels."""
        if plan is not self.plan:
            return
        if not edit.done:
            self._say("It has no neck to split it at: click it (J), or paint; then N.")
            return
        self._saving = recording = plan.query.recording
        recording.saved.connect(self._saved)
        recording.change(edit, edit.kind)

    def _saved(self) -> None:
        self._stop_waiting()
        self._settle()
        self._go_on()

    def _stop_waiting(self) -> None:
        """Wait no longer for an edit that is being saved; saved it is all the same."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.saved.disconnect(self._saved)

    def _settle(self) -> None:
        if self.plan is not None and self.item is not None:
            self.plan.settle(self.item, self._labels())

    @property
    def job(self) -> Job | None:
        """The job that goes on; None without one."""
        return self._job if self._job is not None and self._job.active else None

    @property
    def busy(self) -> bool:
        """Whether an answer is worked out or saved, before which there is no other one."""
        return self.job is not None or self._saving is not None

    def _run(
        self, steps: Callable[[], Any], done: Callable[[Any], None], device: str | None = None
    ) -> None:
        self._job = job = Job(
            steps,
            on_item=self._progress,
            on_done=done,
            on_error=self._failed,
            on_end=lambda state: self._ended(job, state),
        )
        if device is None:  # an answer: no export that goes on may hold it up
            self._jobs.run("answer", job)
        else:
            self._jobs.run_in(get_device_queue(device), job)

    def _ended(self, job: Job, state: str) -> None:
        """Say so if another job took the place of this one in the queue."""
        if state == CANCELLED and job is self._job:
            self.stop()
            self._say(REPLACED.format("Review"))

    def _progress(self, item: Progress) -> None:
        if item.total > 1:
            self._say(f"Looking for doubt: {item.done} of {item.total} {item.what} …")

    def _failed(self, error: Exception) -> None:
        planning = self.plan is None
        if planning:
            self.stop()
        if isinstance(error, UnetError):
            self._say(str(error))
        else:
            report_error(error, "the review failed", self._say)

    def _planned(self, plan: ReviewPlan) -> None:
        layer = plan.query.recording.layer
        if plan.query.recording.closed:
            self.stop()
            self._say(GONE)
            return
        self.plan = plan
        self.layer = add_drawing(self._viewer, layer, LAYER, _COLOURS)
        self._give_back = [
            bind_window_key(
                self._viewer, self, KEYS[name], weak_callback(action, while_typing=False)
            )
            for name, action in self._actions.items()
        ]
        self.keys.show()
        self.started.emit()
        self._go_on()

    def _recording_changed(self, recording: LayerRecording) -> None:
        """End with the labels, removed or replaced; say why an answer cannot be saved."""
        if self.plan is None or self.plan.query.recording is not recording:
            return
        if recording.closed:
            self.stop()
            self._say(GONE)
        elif recording.failed and self._saving is recording:
            self._say(recording.describe())

    def _layer_removed(self, event: Any) -> None:
        """End with the outline: nobody sees any more what is asked."""
        if self.layer is not None and event.value == self.layer:
            self.stop()

    def _go_on(self) -> None:
        """Show the next thing to look at, and how good the labels are by now."""
        plan = self.plan
        if plan is None:
            return
        self.item = plan.order.next()
        if self.item is None:
            self._outline(None)
            self._say("Everything was looked at.")
        else:
            self._show(plan, self.item)
        self.quality.show_order(plan.order)

    def _show(self, plan: ReviewPlan, item: ReviewItem) -> None:
        index, window = plan.where(item)
        image = self._tracker.get_image(plan.query.recording.layer)
        geometry = plan.query.recording.geometry
        if image is not None and geometry is not None:
            centre = [(w.start + w.stop - 1) / 2 for w in window]
            letters = geometry.stack.labels_axes
            position = dict(zip(letters, (*index, *centre), strict=True))
            extent = max(part.stop - part.start for part in window[-2:])
            go_to(self._viewer, image, position, float(extent))
        self._outline(item)
        left = plan.order.left
        ask = ASK.get(item.kind, ASK_SQUARE)
        self._say(f"{ask} {left:,} left to look at.")
        for name in ("split", "delete"):
            self.buttons[name].setEnabled(item.kind == OBJECT)

    def _outline(self, item: ReviewItem | None) -> None:
        plan, layer = self.plan, self.layer
        if plan is None or layer is None or plan.query.recording.geometry is None:
            return
        array = plan.query.recording.geometry.array(layer.data)
        if self._outlined:
            array[self._outlined] = 0
        self._outlined = ()
        if item is not None:
            index, _ = plan.where(item)
            mask = plan.mask(item)
            inside = np.pad(mask.inside, 1)
            edge = inside & ~ndimage.binary_erosion(inside)
            self._outlined = (*index, *mask.window)
            array[self._outlined] = edge[(slice(1, -1),) * edge.ndim]
        layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)
