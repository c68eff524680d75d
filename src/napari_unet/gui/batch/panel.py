"""The Batch step: one model over a list of files, their labels into a folder."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QProgressBar, QPushButton

from napari_unet.batch.file_job import plan_files
from napari_unet.batch.run import DONE, FAILED, RUNNING, FileProgress, batch_steps, find_images
from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.io.files import SUFFIXES, expand_path, make_folder
from napari_unet.core.text import format_duration
from napari_unet.gui.batch.file_list import FileList, FileRow
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.engine import loaded_model
from napari_unet.gui.jobs.job import CANCELLED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.open_files import read_files, show_files
from napari_unet.gui.segment.form import ADVANCED, PredictForm, Rows
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, ignore_double_clicks, vbox

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QShowEvent

    from napari_unet.batch.file_job import FileJob
    from napari_unet.gui.shared_inputs import InputForm

PROGRESS_S = 0.15
"""How often the progress of a file is written: a small file yields thousands of reports."""
_RUN = "Run on all files"
_HINT = "Add images, or drop files and folders on the list."
_TIPS = {
    "folder": "Where the labels go, one TIFF for each image; it is made if it does not exist.",
    "overwrite": "Replace labels in the output folder that come from elsewhere, or from other\n"
    "settings. Without it such a file is left as it is.",
}


class BatchForm(PredictForm):
    """Device, diameter and output folder; the other settings in a collapsible section.

    It begins with what the Segment step has, but for the size and channel of its image. Emits
    `changed`.

    Attributes
    ----------
    folder, overwrite
        The choices.
    """

    def __init__(self, inputs: InputForm) -> None:
        super().__init__(inputs, {**ADVANCED, "channel": ""})
        self.folder: Any = FileEdit(
            name="folder", mode=FileDialogMode.EXISTING_DIRECTORY, tooltip=_TIPS["folder"]
        )
        self.folder.choose_btn.text = "…"
        self.folder.choose_btn.max_width = 30
        self.folder.line_edit.value = ""  # not the folder that napari was started in
        self.overwrite: Any = CheckBox(name="overwrite", tooltip=_TIPS["overwrite"])
        self.overwrite.text = ""
        rows: Rows = [*self.first.rows(), ("output folder", self.folder)]
        rows += [("replace results", self.overwrite)]
        self.build(rows, [("device", self.device), *self.advanced.rows()])
        self.model.changed.connect(self._changed)
        self.folder.changed.connect(self._changed)

    @property
    def complete(self) -> bool:
        """Whether there is a model and a place for the results."""
        return self.model.value is not None and self.output is not None

    @property
    def output(self) -> Path | None:
        """The output folder; None until the user has named one."""
        text = self.folder.line_edit.value.strip()
        return expand_path(text) if text else None

    def target(self) -> Path:
        """Return the output folder.

        Raises
        ------
        OutputError
            None was given, or it is a file.
        """
        folder = self.output
        if folder is None:
            raise OutputError("There is no output folder; choose where the labels are to go.")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; choose a folder for the labels.")
        return folder

    def propose_folder(self, beside: Path) -> None:
        """Name an output folder beside an image, unless the user has named one."""
        if self.output is None:
            self.folder.value = beside.parent / "segmented"

    def _changed(self, *_: Any) -> None:
        self.changed.emit()


class BatchPanel(Step):
    """Segments a list of files with a model, one after the other.

    Parameters
    ----------
    viewer
        The window.
    inputs
        The model, chosen at the top.

    Attributes
    ----------
    form
        Model, settings and output folder.
    files
        The list.
    start
        The button: "Run on all files", or "Cancel" while it goes on.
    status
        Line for the result and errors.
    job
        The job that works through the list; None without one.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__()
        self.viewer, self.inputs = viewer, inputs
        self.job: Job | None = None
        self._start_time = self._last_written = 0.0
        self._said = ""  # before files are opened
        self._build()
        self._jobs = WidgetJobs(self)
        self._show_state()

    def _build(self) -> None:
        self.form, self.files, self.status = BatchForm(self.inputs), FileList(), WrappedLabel(_HINT)
        self.start, self.bar = QPushButton(_RUN), QProgressBar()
        self.add_files_button = QPushButton("Files…")
        self.add_files_button.setToolTip("Add images to the list.")
        self.add_folder_button = QPushButton("Folder…")
        self.add_folder_button.setToolTip("Add all images of a folder.")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Take the selected files out of the list, or all of them.")
        self.files.setToolTip("Double click: open the image and its labels.")
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        buttons = hbox(self.add_files_button, self.add_folder_button, stretch=1)
        below = vbox(buttons, self.files, self.remove_button, margins=(6, 0, 6, 4))
        layout = vbox(self.form, below, owner=self)
        layout.setStretchFactor(below, 1)
        vbox(self.start, self.bar, self.status, owner=self.footer)
        self.form.changed.connect(self._show_state)
        self.files.dropped.connect(self.add)
        self.files.opened.connect(self.open)
        self.files.itemSelectionChanged.connect(self._show_state)
        self.add_files_button.clicked.connect(self._ask_for_files)
        self.add_folder_button.clicked.connect(self._ask_for_folder)
        self.remove_button.clicked.connect(self._remove)
        ignore_double_clicks(self.start)
        self.start.clicked.connect(self._pressed)

    def add(self, paths: list[Path]) -> None:
        """Add images, and the images of folders."""
        try:
            images = find_images(paths)
        except UnetError as error:
            self._report(error)
            return
        if self.job is None:
            self.files.add(images)
            self.form.propose_folder(images[0])
            self.status.setText("")
        else:
            self._report(InputError("The batch is running; add files when it has finished."))
        self._show_state()

    def run(self, *_: Any) -> None:
        """Work through the list; files that are finished already are skipped."""
        if self.job is not None:
            return
        try:
            job = self._plan_job()
        except UnetError as error:
            self._report(error)
            return
        for number in range(len(self.files.rows)):
            self.files.show_waiting(number)
        self.job = job
        self._start_time = time.perf_counter()
        self.status.setText("Running …")
        self._jobs.run_in(get_device_queue(self.form.device.value), job)
        self._show_state()

    def results(self) -> list[FileJob]:
        """Return the files of the list that have labels in the output folder.

        Raises
        ------
        InputError
            The list is worked through at the moment.
        """
        if self.job is not None:
            raise InputError("The batch is running; wait until it has finished, or cancel it.")
        folder = self.form.output
        if folder is None or not folder.is_dir():
            return []
        jobs = plan_files([row.source for row in self.files.rows], folder)
        return [job for job in jobs if job.target is not None and job.target.exists()]

    @property
    def busy(self) -> bool:
        """Whether the list is worked through."""
        return self.job is not None

    @property
    def at_work(self) -> bool:
        """Whether the list is worked through, or that is being stopped."""
        return self.busy

    def cancel_all(self) -> None:
        """Stop: the dock was closed."""
        self.cancel()

    def cancel(self) -> None:
        """Stop after the tile under way; the finished files stay."""
        if self.job is not None:
            self.job.cancel()
            self._show_state()

    def open(self, row: FileRow) -> None:
        """Open a file and its labels in the viewer."""
        targets = [row.target] if row.target is not None and row.state == DONE else []
        opening = f"Opening {row.source.name} …"
        if not self.status.text().startswith("Opening "):
            self._said = self.status.text()

        def ended(_: str) -> None:
            if self.status.text() == opening:  # and nothing else was said meanwhile
                self.status.setText(self._said)

        self.status.setText(opening)
        job = Job(
            functools.partial(read_files, row.source, targets),
            on_done=functools.partial(show_files, self.viewer),
            on_error=self._report,
            on_end=ended,
        )
        self._jobs.run("open", job)

    def _plan_job(self) -> Job:
        """Return the job that the form requests."""
        rows, form = self.files.rows, self.form
        if not rows:
            raise InputError("There is no file in the list; add images to begin.")
        card, settings, folder = form.card(), form.settings(), form.target()
        jobs = plan_files([row.source for row in rows], folder)
        make_folder(folder)
        for row, job in zip(rows, jobs, strict=True):
            row.target = job.target
        load = functools.partial(loaded_model, form.model.value, form.device.value)
        return Job(
            functools.partial(batch_steps, jobs, card, load, settings, form.overwrite.value),
            on_item=self._take,
            on_error=self._report,
            on_end=self._ended,
        )

    def _take(self, step: FileProgress) -> None:
        now = time.perf_counter()
        begins = self.files.rows[step.number].state != step.state
        if begins or not step.total or step.remarks or now - self._last_written > PROGRESS_S:
            self._last_written = now
            self.files.show_step(step)
        if begins:
            self._show_state()

    def _ended(self, state: str) -> None:
        self.job = None
        for number, row in enumerate(self.files.rows):
            if row.state == RUNNING:
                self.files.show_waiting(number)
        done, failed = self._count(DONE), self._count(FAILED)
        took = format_duration(time.perf_counter() - self._start_time)
        text = f"{done} of {len(self.files.rows)} files done"
        text += f", {failed} failed, in {took}." if failed else f" in {took}."
        if state == CANCELLED:
            self.status.setText(f"Cancelled. {text} Run on all files goes on with the rest.")
        elif state == DONE:
            self.status.setText(text)
        self._show_state()

    def _report(self, error: Exception) -> None:
        report_error(error, "the batch failed", self.status.setText)

    def _pressed(self, *_: Any) -> None:
        if self.job is None:
            self.run()
        else:
            self.cancel()

    def _ask_for_files(self, *_: Any) -> None:
        kinds = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        chosen = QFileDialog.getOpenFileNames(self, "Add images", "", f"Images ({kinds})")[0]
        if chosen:
            self.add([Path(name) for name in chosen])

    def _ask_for_folder(self, *_: Any) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Add the images of a folder")
        if chosen:
            self.add([Path(chosen)])

    def _remove(self, *_: Any) -> None:
        self.files.remove(self.files.selected() or list(self.files.rows))
        self._show_state()

    def _count(self, state: str) -> int:
        return sum(row.state == state for row in self.files.rows)

    def _show_state(self) -> None:
        """Show what can be pressed and how many files are finished."""
        rows, busy = self.files.rows, self.job is not None
        stopping = self.job is not None and self.job.cancelled
        self.start.setText("Cancel" if busy else _RUN)
        self.start.setEnabled(not stopping and (busy or (bool(rows) and self.form.complete)))
        self.form.setEnabled(not busy)
        self.add_files_button.setEnabled(not busy)
        self.add_folder_button.setEnabled(not busy)
        self.remove_button.setEnabled(not busy and bool(rows))
        self.remove_button.setText("Remove" if self.files.selectedItems() else "Remove all")
        self.bar.setRange(0, max(1, len(rows)))
        of = f"%v of %m file{'s' * (len(rows) != 1)}"
        self.bar.setFormat(of if rows else "no files")  # from 0 to 0 would be a busy bar
        self.bar.setValue(self._count(DONE) + self._count(FAILED))
        self.state_changed.emit()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.form.refresh_models()
