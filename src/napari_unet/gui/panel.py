"""The U-Net panel: image and model at the top, the steps below, one dock for all of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QLabel,
    QMainWindow,
    QPushButton,
    QStackedWidget,
    QWidget,
)

from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.jobs.engine import load_libraries
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.shared_inputs import InputForm
from napari_unet.gui.widgets.button_rows import ButtonRows
from napari_unet.gui.widgets.dock import DockPanel, Step
from napari_unet.gui.widgets.panel import ScrollPanel, make_narrow, vbox

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_unet.batch.file_job import FileJob
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.batch.file_list import FileRow
    from napari_unet.gui.batch.panel import BatchPanel
    from napari_unet.gui.click.panel import ClickPanel
    from napari_unet.gui.correct.section import CorrectSection
    from napari_unet.gui.finetune.panel import TuneSection
    from napari_unet.gui.live.scribbles import ScribbleSection
    from napari_unet.gui.live.section import LiveSection
    from napari_unet.gui.measure.panel import MeasurePanel
    from napari_unet.gui.models.panel import ModelsPanel
    from napari_unet.gui.segment.panel import SegmentPanel

SEGMENT, CLICK, CORRECT, TUNE = "Segment", "Click", "Correct", "Fine-tune"
MEASURE, BATCH, MODELS = "Measure", "Batch", "Models"
STEPS = {
    SEGMENT: "Find the objects of the image with the model.",
    CLICK: "Add, correct, split, merge and delete objects by clicks.",
    CORRECT: "Correct the labels with napari's brushes, and say what of them is right.",
    TUNE: "Teach the model what you corrected.",
    MEASURE: "Size, shape and intensity of each object, as a table.",
    BATCH: "The same for many files.",
    MODELS: "The models that there are: choose, import, export, rename, delete.",
}
PLACES = {
    SEGMENT: ("napari_unet.gui.segment.panel", "SegmentPanel"),
    CLICK: ("napari_unet.gui.click.panel", "ClickPanel"),
    CORRECT: ("napari_unet.gui.correct.section", "CorrectSection"),
    TUNE: ("napari_unet.gui.finetune.panel", "TuneSection"),
    MEASURE: ("napari_unet.gui.measure.panel", "MeasurePanel"),
    BATCH: ("napari_unet.gui.batch.panel", "BatchPanel"),
    MODELS: ("napari_unet.gui.models.panel", "ModelsPanel"),
}
"""Module and class of each step: imported when the step is opened first, or while the user looks at
another one, for all of them together would double the time in which the panel opens."""
WITHOUT_RUN = (BATCH,)
"""Steps in which the button that runs the model on the image is not shown."""
TITLE = "U-Net"
LEAST_WIDTH, USUAL_WIDTH = 190, 340
"""Pixels: the panel is so wide, at least and at most, when it is docked."""
REST_MS = 500
"""How long after it was opened the panel begins to load libraries: once it is drawn."""
CANVAS_SHARE, CANVAS_MARGIN = 0.6, 12
"""The canvas keeps this share of the window; pixels around the canvas."""


class UNetPanel(DockPanel):
    """All steps on one image and one model.

    Parameters
    ----------
    napari_viewer
        The window; npe2 passes it by this name.

    Attributes
    ----------
    inputs
        The choice of image, axes, channel and model.
    step
        The name of the step that is open, one of `STEPS`.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(self._cancel_all)
        self.viewer = napari_viewer
        self.inputs = InputForm(napari_viewer)
        self.step = ""
        self._fitted = self._loaded = False
        self._steps: dict[str, Step] = {}
        self._pages: dict[str, QWidget] = {}
        self._sections: tuple[ScribbleSection | LiveSection, ...] = ()
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.timeout.connect(self._close_if_hidden)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._load_libraries)
        self._build()
        self._tracker = get_edit_tracker(napari_viewer)
        self.docked.connect(self._tracker.close_with)
        self.inputs.model_changed.connect(self._model_changed)
        self._model_changed()
        self.docked.connect(self._fit_width)
        self.docked.connect(self._follow_title)
        self.open_step(SEGMENT)

    def _build(self) -> None:
        self.buttons: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        for name, tip in STEPS.items():
            button = self.buttons[name] = QPushButton(name)
            button.setToolTip(tip)
            button.setCheckable(True)
            # Not a partial of a method: Python's garbage collector crashes in PyQt's proxy of one.
            button.clicked.connect(lambda _=True, name=name: self.open_step(name))
            group.addButton(button)
        buttons = ButtonRows(list(self.buttons.values()), margins=(4, 0, 4, 2))
        self._stack = QStackedWidget()
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        self._footer = vbox(margins=(6, 0, 6, 4))
        layout = vbox(self.inputs, buttons, self._stack, line, self._footer, owner=self.content)
        layout.setSpacing(2)
        layout.setStretchFactor(self._stack, 1)

    @property
    def segment(self) -> SegmentPanel:
        """The step that runs the model on the image."""
        return cast("SegmentPanel", self.get_step(SEGMENT))

    @property
    def click(self) -> ClickPanel:
        """The step of clicks."""
        return cast("ClickPanel", self.get_step(CLICK))

    @property
    def correct(self) -> CorrectSection:
        """The step of corrections."""
        return cast("CorrectSection", self.get_step(CORRECT))

    @property
    def scribbles(self) -> ScribbleSection:
        """The section of the step of corrections that segments by scribbles."""
        return cast("ScribbleSection", self._sections[0])

    @property
    def live(self) -> LiveSection:
        """The section of the step of corrections that learns meanwhile."""
        return cast("LiveSection", self._sections[1])

    @property
    def tune(self) -> TuneSection:
        """The step that tunes the model."""
        return cast("TuneSection", self.get_step(TUNE))

    @property
    def measure(self) -> MeasurePanel:
        """The step that measures."""
        return cast("MeasurePanel", self.get_step(MEASURE))

    @property
    def batch(self) -> BatchPanel:
        """The step for many files."""
        return cast("BatchPanel", self.get_step(BATCH))

    @property
    def models(self) -> ModelsPanel:
        """The step of the models."""
        return cast("ModelsPanel", self.get_step(MODELS))

    def get_step(self, name: str) -> Step:
        """Return a step; it is made when it is needed first, for each takes a tenth of a second."""
        if name in self._steps:
            return self._steps[name]
        step = self._steps[name] = self._make(name)
        page = self._pages[name] = ScrollPanel(step)
        self._stack.addWidget(page)
        make_narrow(step.footer)
        self._footer.addWidget(step.footer)
        step.show_footer()
        step.state_changed.connect(lambda: self._state_changed(name))
        step.requested.connect(lambda: self.open_step(name))
        step.ended.connect(self.leave)
        return step

    def _make(self, name: str) -> Step:
        module, kind = PLACES[name]
        arguments = (self.viewer,) if name == MEASURE else (self.viewer, self.inputs)
        step: Any = getattr(importlib.import_module(module), kind)(*arguments)
        if name == CORRECT:
            from napari_unet.gui.live.scribbles import ScribbleSection
            from napari_unet.gui.live.section import LiveSection

            self._sections = (
                ScribbleSection(self.viewer, self.inputs, step),
                LiveSection(self.viewer, self.inputs, step),
            )
            for section in self._sections:
                step.add_section(section)
            self._footer.addWidget(self.live.footer)
            self.live.others.files = self._batch_files
            step.alike.files = self._batch_results
            step.review.click_wanted.connect(self._click_wanted)
        if name == CLICK:
            step.mode.worker.previewed.connect(self._user_clicks)
        if name == TUNE:
            step.others.files = self._batch_files
            touched = self.correct.touched
            step.touched = touched.isChecked()
            touched.toggled.connect(step.set_touched)
            step.review.corrections_wanted.connect(lambda: self.open_step(CORRECT))
        made: Step = step
        return made

    def _batch_files(self) -> tuple[list[FileRow], PredictSettings | None]:
        """Return the files of the batch, and how the model is run on them."""
        if BATCH not in self._steps:
            return [], None
        return list(self.batch.files.rows), self.batch.form.settings()

    def _batch_results(self) -> tuple[list[FileJob], PredictSettings | None]:
        """Return the files of the batch that have labels, and how the model is run on them."""
        if BATCH not in self._steps:
            return [], None
        return self.batch.results(), self.batch.form.settings()

    def _user_clicks(self, *_: Any) -> None:
        """Let no learning get in the way of the previews of clicks."""
        if self._sections:
            self.live.user_works()

    def _click_wanted(self) -> None:
        """Turn click mode on for the labels of the review, or go on; the open step stays."""
        plan, mode, step = self.correct.review.plan, self.click.mode, self.step
        if plan is None:
            return
        layer = plan.query.recording.layer
        if mode.target is not None and mode.target.layer is not layer:
            if mode.shown is not None or mode.worker.has_actions:
                mode.resume()
                mode.show_message("Keep or drop this object of other labels, then press J again.")
                return
            mode.stop()
        if not mode.on:
            image = self._tracker.get_image(layer)
            if image in self.inputs.image.choices:
                self.inputs.image.value = image
            self.click.labels.value = layer
        if not mode.active:
            self.click.toggle()
            self.open_step(step)

    def open_step(self, name: str) -> None:
        """Open a step; what goes on in the others goes on, and is shown below."""
        step = self.get_step(name)
        before, self.step = self.step, name
        self.buttons[name].setChecked(True)
        self._stack.setCurrentWidget(self._pages[name])
        if before and before != name:
            self._steps[before].open_step(False)
        step.open_step(True)
        self.segment.footer.setVisible(name not in WITHOUT_RUN or self.segment.busy)

    def _model_changed(self) -> None:
        """Let the chosen model learn from labels of unknown origin."""
        self._tracker.model = self.inputs.model.value or ""

    def _state_changed(self, name: str) -> None:
        self._steps[name].show_footer()
        self.leave()
        if name == SEGMENT:
            self.segment.footer.setVisible(self.step not in WITHOUT_RUN or self.segment.busy)

    @property
    def at_work(self) -> bool:
        """Whether a step has to outlive the dock."""
        return any(step.at_work for step in self._steps.values())

    def _cancel_all(self) -> None:
        for step in self._steps.values():
            step.cancel_all()
        for section in self._sections:
            section.cancel()

    def minimumSizeHint(self) -> QSize:
        """Return a width at which all can still be read; the steps scroll."""
        return QSize(LEAST_WIDTH, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        """Return the usual width."""
        return QSize(USUAL_WIDTH, super().sizeHint().height())

    def _follow_title(self, *_: Any) -> None:
        """Keep the title of a new dock short; napari makes it anew when the dock is moved."""
        dock = self.dock
        if dock is not None:
            dock.topLevelChanged.connect(self._shorten_title)
            dock.dockLocationChanged.connect(self._shorten_title)
            self._shorten_title()

    def _shorten_title(self, *_: Any) -> None:
        """Show the panel's name alone: with the plugin's behind it, it would be cut."""
        dock = self.dock
        label = getattr(None if dock is None else dock.titleBarWidget(), "title", None)
        if isinstance(label, QLabel):
            label.setText(TITLE)

    def _fit_width(self, window: Any) -> None:
        """Take no more of a small window than leaves the canvas its share."""
        dock = self.dock
        if self._fitted or dock is None or dock.isFloating() or not isinstance(window, QMainWindow):
            return
        central = window.centralWidget()
        if central is None or not dock.isVisible():
            return
        room = central.width() + dock.width() - CANVAS_MARGIN - CANVAS_SHARE * window.width()
        width = int(min(USUAL_WIDTH, max(LEAST_WIDTH, room)))
        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)
        self._fitted = True  # from now on the user decides

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.inputs.refresh_models()
        for step in self._steps.values():
            step.dock_shown()
        self._rest.start()

    def _load_libraries(self) -> None:
        """Load what the first run needs, while the user looks at the panel."""
        if not self._loaded:
            self._loaded = True
            modules = [module for module, _ in PLACES.values()]
            WidgetJobs(self).run("libraries", Job(lambda: load_libraries(modules)))

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Find out later whether the dock was closed or hidden, and not only covered.

        napari sends a docked widget no close event, only hide events, also when a tab covers it.
        """
        super().hideEvent(event)
        self._hidden.start()

    def _close_if_hidden(self) -> None:
        """Tell the steps if the dock is still hidden: one that is undocked is so for a moment."""
        if self.dock is not None and self.dock.isHidden():
            for step in self._steps.values():
                step.dock_hidden()
