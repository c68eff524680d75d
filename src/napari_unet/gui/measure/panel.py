"""The Measure step: its form, and the objects of a Labels layer as table, histogram and file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, PushButton
from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.io.axes import FRAMES
from napari_unet.core.text import pluralise
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.run_button import RunButton
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.edits import EditWatch
from napari_unet.gui.layers.navigation import READ_ONLY_MODES, go_to, object_under, watch_clicks
from napari_unet.gui.layers.result_info import find_source_image
from napari_unet.gui.measure.run import MeasureRun
from napari_unet.gui.measure.table import ObjectView
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.plots import Histogram
from napari_unet.gui.widgets.settings_form import restore_choices, rows_widget

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_unet.gui.jobs.run_button import ResultRun

SECTION = "measure"
_STALE = "The labels were changed since; measure again."
_TIPS = {
    "objects": "The labels whose objects are measured.",
    "image": "The image whose intensities are measured, in each of its channels.",
    "frames": "Whether the objects of a stack end with their plane, or extend through volumes.\n"
    "auto: planes for what a 2D model found, otherwise volumes.",
    "solidity": "Measure how much of its convex hull each object fills; takes longest.",
    "start": "Measure every object; the table becomes the features of the Labels layer, too.",
    "column": "What the histogram shows.",
    "save": "Write the table as a CSV file.",
}


class MeasureForm(QWidget):
    """Labels, image and how to measure; the latter is remembered between sessions.

    Emits `changed` when there are other layers to choose from.

    Attributes
    ----------
    objects, image, frames, solidity
        The choices.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.objects: Any = ComboBox(
            name="objects", choices=self._labels_layers, tooltip=_TIPS["objects"]
        )
        self.image: Any = ComboBox(
            name="image", choices=self._image_layers, nullable=True, tooltip=_TIPS["image"]
        )
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        self.solidity: Any = CheckBox(name="solidity", value=True, tooltip=_TIPS["solidity"])
        self.solidity.text = ""
        rows = [
            ("labels", self.objects),
            ("image", self.image),
            ("objects in", self.frames),
            ("solidity", self.solidity),
        ]
        vbox(rows_widget(rows), owner=self)
        self._restore()
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self.objects.changed.connect(self._guess_image)
        self._layers_changed()

    def save(self) -> None:
        """Remember how to measure for the next session."""
        remember(SECTION, {"frames": self.frames.value, "solidity": self.solidity.value})

    def _restore(self) -> None:
        values = remembered(SECTION)
        restore_choices(values, frames=self.frames)
        if isinstance(values.get("solidity"), bool):
            self.solidity.value = values["solidity"]

    def _labels_layers(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(object_layers(self._viewer))

    def _image_layers(self, *_: Any) -> list[tuple[str, Image]]:
        return as_choices(image_layers(self._viewer))

    def _layers_changed(self, *_: Any) -> None:
        """Offer the layers that there are."""
        refresh_choices(self.objects, self.image)
        if self.image.value is None:
            self._guess_image()
        self.changed.emit()

    def _guess_image(self, *_: Any) -> None:
        """Choose the image that the labels were found in, or else the only one that fits."""
        layer = self.objects.value
        if layer is None:
            return
        images = [image for image in self.image.choices if image is not None]
        found = find_source_image(layer, images)
        if found is None and len(images) == 1:
            found = images[0]
        if found is not None:
            self.image.value = found


class MeasurePanel(Step):
    """Measures the objects of a Labels layer.

    Parameters
    ----------
    viewer
        The window.

    Attributes
    ----------
    form
        What to measure.
    button, start
        The `RunButton`, and its widget.
    status
        Line for the progress, the result and errors.
    histogram, column, view
        The distribution of a column, which column, and the table.
    shown
        The measurement in the table; None before the first.
    stale
        Whether the labels were changed since.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.shown: MeasureRun | None = None
        self.stale = False
        self._watch: EditWatch | None = None
        self._build()
        self._connect()
        self._show_state()

    def _build(self) -> None:
        self.form = MeasureForm(self.viewer)
        self.save_button: Any = PushButton(text="Save CSV…", tooltip=_TIPS["save"])
        self.column: Any = ComboBox(name="column", choices=(), tooltip=_TIPS["column"])
        self.status, self.histogram, self.view = WrappedLabel(), Histogram(), ObjectView()
        self.button = RunButton(
            self,
            "Measure",
            _TIPS["start"],
            doing="Measuring …",
            failing="measuring failed",
            line=self.status,
            start=self.measure,
            show=self._show,
        )
        self.start: Any = self.button.widget
        choice = rows_widget([("histogram", self.column)], 72, margin=0)
        parts = (self.view, choice, self.histogram)
        self._results = QWidget()
        content = vbox(*parts, margins=(6, 0, 6, 4), owner=self._results)
        content.setStretchFactor(self.view, 1)
        self._results.hide()  # until there are some
        layout = vbox(self.form, self._results, owner=self)
        layout.setStretchFactor(self._results, 1)
        layout.addStretch(0)
        buttons = hbox(self.start.native, self.save_button.native, stretch=1)
        vbox(buttons, self.status, owner=self.footer)

    def _connect(self) -> None:
        self.form.changed.connect(self._show_state)
        self.button.changed.connect(self._show_state)
        self.button.changed.connect(self.state_changed)
        self.save_button.changed.connect(self._ask_where_to_save)
        self.column.changed.connect(self._show_histogram)
        self.view.chosen.connect(self._go_to)
        watch_clicks(self.viewer, self, self._clicked)

    @property
    def active(self) -> ResultRun | None:
        """The measurement that waits or goes on; None without one."""
        return self.button.active

    @property
    def busy(self) -> bool:
        """Whether something is measured."""
        return self.active is not None

    @property
    def at_work(self) -> bool:
        """Whether something is measured, or that is being stopped."""
        return self.busy

    def cancel_all(self) -> None:
        """Stop: the dock was closed."""
        self.cancel()

    def measure(self) -> None:
        """Measure the chosen layers in a job's thread, and show the table at the end."""
        form = self.form
        if form.objects.value is None or self.active is not None:
            return
        form.save()
        self.button.launch(
            MeasureRun,
            form.objects.value,
            form.image.value,
            form.frames.value,
            form.solidity.value,
        )

    def cancel(self) -> None:
        """Stop; the table of the measurement before stays."""
        self.button.cancel()

    def save(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all."""
        from napari_unet.core.regionprops.table import table_text, write_table
        from napari_unet.core.regionprops.table_provenance import write_table_provenance

        if self.shown is None or self.shown.table is None:
            return
        table, (options, file) = self.shown.table, self.shown.provenance
        try:
            write_table(path, table)
            write_table_provenance(path, table_text(table), options, [file])
        except UnetError as error:
            report_error(error, "the table was not saved", self.status.setText)
        else:
            self.status.setText(f"Saved to {path}.")

    def _ask_where_to_save(self, *_: Any) -> None:
        if self.shown is None:
            return
        name = f"{self.shown.labels.name} objects.csv".replace("/", "-")
        chosen = QFileDialog.getSaveFileName(self, "Save the table", name, "CSV (*.csv)")[0]
        if chosen:
            path = Path(chosen)
            self.save(path if path.suffix else path.with_suffix(".csv"))

    def _show(self, run: MeasureRun) -> None:
        """Show a table, and make it the layer's features."""
        from napari_unet.core.regionprops.table import layer_features

        table = run.table
        assert table is not None
        if self._watch is not None:
            self._watch.stop()
        self.shown, self.stale, self._watch = run, False, None
        count = len(table["label"])
        self.status.setText(f"{pluralise(count, 'object')} in {run.labels.name}.")
        self.view.show_table(table)
        self._results.show()
        before: Any = self.column.value
        names = tuple(name for name in table if name != "label")
        self.column.choices = names
        usual = next(name for name in names if name.startswith(("area", "volume")))
        self.column.value = before if before in names else usual
        self._show_histogram()
        if run.labels in self.viewer.layers:
            run.labels.features = layer_features(table)
            self._watch = EditWatch(self.viewer, run.labels, run.checks, self._edited)

    def _edited(self) -> None:
        self.stale = True
        self.status.setText(_STALE)

    def _show_histogram(self, *_: Any) -> None:
        table = self.shown.table if self.shown is not None else None
        if table is not None and self.column.value in table:
            self.histogram.show_values(table[self.column.value])
            self._point_out()

    def _point_out(self) -> None:
        """Show in the histogram where the chosen object lies."""
        table, number = self.shown.table if self.shown else None, self.view.current
        if table is not None and number is not None and self.column.value in table:
            self.histogram.point_out(float(table[self.column.value][number]))

    def _go_to(self, number: int) -> None:
        """Show the object of a row in the viewer."""
        run = self.shown
        self._point_out()
        if run is None or run.table is None or run.labels not in self.viewer.layers:
            return
        run.labels.selected_label = int(run.table["label"][number])
        self.viewer.layers.selection.active = run.labels
        place = run.get_place(number)
        if self.viewer.dims.ndisplay == 2:  # a slice, not a position between two
            place |= {letter: float(round(place[letter])) for letter in "TZ" if letter in place}
        go_to(self.viewer, run.labels, place, run.get_extent(number))

    def _clicked(self, event: Any) -> None:
        """Select the row of the object under a click, unless the click draws something."""
        run = self.shown
        if run is None or run.labels not in self.viewer.layers or not run.labels.visible:
            return
        active = self.viewer.layers.selection.active
        if isinstance(active, Labels) and str(active.mode) not in READ_ONLY_MODES:
            return
        found = object_under(run.labels, event)
        if found is None:
            return
        label, at = found
        place = dict(zip(run.axes, at.tolist(), strict=True))
        number = run.find(label, place)
        if number is not None:
            run.labels.selected_label = label
            self.view.select(number)
            self._point_out()

    def _show_state(self) -> None:
        """Show what can be pressed."""
        self.button.enable(self.form.objects.value is not None)
        self.save_button.enabled = self.shown is not None
        if self.form.objects.value is None and self.shown is None:
            self.status.setText("Open labels, or segment an image, to begin.")
        elif self.status.text().startswith("Open labels"):
            self.status.setText("")
