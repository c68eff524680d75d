"""The list of a model's corrections, with thumbnails; leaving some out, and exporting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet.core.annotations.corrections import drop_correction, list_corrections
from napari_unet.core.annotations.export import draw_correction, export_corrections
from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.gui.correct.restore_row import describe_time
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.job import DONE, HOST, Job, WidgetJobs, get_device_queue
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_unet.core.annotations.corrections import Correction
    from napari_unet.core.annotations.journal import Journal
    from napari_unet.core.io.stack import Stack

SIZE_PX = 56  # edge length of a thumbnail
ROWS = 5  # shown without scrolling
_LAYOUTS = {"Pairs for Cellpose …": "cellpose", "Pairs for StarDist …": "stardist"}
_TIPS = {
    "drop": "Leave the chosen corrections out of the model's training set. The labels stay;\n"
    "what is corrected there later counts again.",
    "export": "Write images and labels as TIFF files that other programs train on; the chosen\n"
    "ones, or all.",
}

Row = tuple["Correction", np.ndarray | None]


class CorrectionList(QWidget):
    """Lists the training set of a model: all images that were corrected for it.

    Emits `changed` when the list was read again.

    Parameters
    ----------
    open_stacks
        Returns the stacks of the images that are open.
    journals
        Returns the journals that this window writes to.

    Attributes
    ----------
    rows
        The corrections, the latest first.
    """

    changed = Signal()

    def __init__(
        self, open_stacks: Callable[[], list[Stack]], journals: Callable[[], list[Journal]]
    ) -> None:
        super().__init__()
        self._open_stacks, self._journals = open_stacks, journals
        self.model = ""
        self.touched = True
        self._known = False
        self.rows: list[Correction] = []
        self._thumbnails: dict[tuple[Any, float], np.ndarray] = {}
        self._export: Job | None = None
        self._jobs = WidgetJobs(self)
        self._build()
        self._show_state()

    def _build(self) -> None:
        self.list = QListWidget()
        self.list.setIconSize(QSize(SIZE_PX, SIZE_PX))
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.list.setWordWrap(True)
        self.list.itemSelectionChanged.connect(self._show_state)
        self.leave_out = QPushButton("Leave out")
        self.leave_out.setToolTip(_TIPS["drop"])
        self.leave_out.clicked.connect(self.drop)
        self.export_button = QPushButton("Export")
        self.export_button.setToolTip(_TIPS["export"])
        menu = QMenu(self.export_button)
        for text, layout in _LAYOUTS.items():
            menu.addAction(text, lambda layout=layout: self._choose_folder(layout))
        self._menu = menu
        self.export_button.clicked.connect(self._export_pressed)
        self.message = WrappedLabel()
        buttons = QHBoxLayout()
        buttons.addWidget(self.leave_out)
        buttons.addWidget(self.export_button)
        layout_ = QVBoxLayout(self)
        layout_.setContentsMargins(6, 0, 6, 4)
        layout_.addWidget(self.list)
        layout_.addLayout(buttons)
        layout_.addWidget(self.message)

    @property
    def chosen(self) -> list[Correction]:
        """The corrections that are selected in the list."""
        return [self.rows[index.row()] for index in self.list.selectedIndexes()]

    def choose(self, model: str) -> None:
        """List the corrections of another model from now on; `read` reads them."""
        if model != self.model:
            self.model, self._known = model, False
            self._show([])

    def expect_more(self) -> None:
        """Say no longer that nothing was corrected: something was, and the list is read soon."""
        self._known = False
        self._show_state()

    def read(self) -> None:
        """Read the list again, in a job."""
        if not self.model:
            return
        name, earlier, thumbnails, opened = (
            self.model,
            self.rows,
            self._thumbnails,
            self._open_stacks(),
        )
        job = Job(
            lambda: _read_rows(name, earlier, thumbnails, opened),
            on_done=self._read,
            on_error=lambda error: self.message.setText(describe_error(error)),
        )
        self._jobs.run("list", job)

    def drop(self) -> None:
        """Leave the selected corrections out of the training set."""
        corrections = self.chosen
        self.message.clear()
        journals = {journal.path: journal for journal in self._journals()}
        job = Job(
            lambda: _drop(corrections, journals),
            on_error=self._report,
            on_end=lambda _: self.read(),
        )
        self._jobs.run("drop", job)

    def export_to(self, folder: str, layout: str) -> None:
        """Write what is selected, or everything, as pairs of TIFF files."""
        corrections = self.chosen or self.rows
        opened, touched = self._open_stacks(), self.touched
        self._export = Job(
            lambda: export_corrections(
                corrections, folder, layout=layout, touched=touched, opened=opened
            ),
            on_item=self._exporting,
            on_done=lambda remarks: self._exported(folder, remarks),
            on_error=self._report,
            on_end=self._export_ended,
        )
        self.message.setText("Exporting …")
        self._jobs.run_in(get_device_queue(HOST), self._export)
        self._show_state()

    def cancel(self) -> None:
        """Stop an export."""
        if self._export is not None:
            self._export.cancel()

    def _choose_folder(self, layout: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Export corrections to")
        if folder:
            self.export_to(folder, layout)

    def _export_pressed(self) -> None:
        if self._export is not None:
            self.cancel()
        else:
            corner = self.export_button.rect().bottomLeft()
            self._menu.popup(self.export_button.mapToGlobal(corner))

    def _exporting(self, progress: Progress) -> None:
        self.message.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _exported(self, folder: str, remarks: Sequence[str]) -> None:
        self.message.setText(" ".join([f"Exported to {folder}.", *remarks]))

    def _export_ended(self, state: str) -> None:
        self._export = None
        if state != DONE and self.message.text().endswith("…"):
            self.message.setText("Cancelled; what was written stays.")
        self._show_state()

    def _report(self, error: Exception) -> None:
        report_error(error, "the corrections cannot be used", self.message.setText)

    def _read(self, rows: list[Row]) -> None:
        self._known = True
        self._show(rows)

    def _show(self, rows: list[Row]) -> None:
        chosen = {correction.journal.path for correction in self.chosen}
        self.rows = [correction for correction, _ in rows]
        self._thumbnails = {
            (row.journal.path, row.date): icon for row, icon in rows if icon is not None
        }
        self.list.clear()
        for correction, icon in rows:
            item = QListWidgetItem(_icon(icon), _text(correction))
            item.setToolTip(correction.problem or correction.path or "an image in memory only")
            self.list.addItem(item)
            item.setSelected(correction.journal.path in chosen)
        self.list.setFixedHeight(min(max(1, len(rows)), ROWS) * (SIZE_PX + 8) + 8)
        self._show_state()
        self.changed.emit()

    def _show_state(self) -> None:
        self.list.setVisible(bool(self.rows))
        self.leave_out.setEnabled(bool(self.list.selectedIndexes()))
        self.export_button.setText("Cancel" if self._export is not None else "Export")
        self.export_button.setEnabled(bool(self.rows) or self._export is not None)
        empty = "Nothing was corrected for this model yet."
        if not self.rows and self._known and not self.message.text():
            self.message.setText(empty)
        elif (self.rows or not self._known) and self.message.text() == empty:
            self.message.clear()


def _read_rows(
    model: str,
    earlier: list[Correction],
    thumbnails: dict[tuple[Any, float], np.ndarray],
    opened: list[Stack],
) -> Generator[Progress, None, list[Row]]:
    """List a model's corrections with their thumbnails; unchanged ones are not read again."""
    rows: list[Row] = []
    for correction in list_corrections(model, earlier=earlier):
        yield Progress(len(rows), 0, "images")
        if not correction.frames and not correction.problem:
            continue  # all of it is left out of the training set
        picture = thumbnails.get((correction.journal.path, correction.date))
        if picture is None and correction.frames:
            try:
                picture = draw_correction(correction, size=SIZE_PX, opened=opened)
            except UnetError:
                picture = None  # the row says what is wrong
        rows.append((correction, picture))
    return rows


def _drop(
    corrections: list[Correction], journals: dict[Any, Journal]
) -> Generator[Progress, None, None]:
    for done, correction in enumerate(corrections):
        yield Progress(done, len(corrections), "images")
        drop_correction(correction, journal=journals.get(correction.journal.path))


def _text(correction: Correction) -> str:
    count = correction.objects
    much = "checked" if not count else f"{count} object{'s' * (count != 1)}"
    lines = [correction.name, f"{much}, {describe_time(correction.date)}"]
    return "\n".join([*lines, "⚠ cannot be used"] if correction.problem else lines)


def _icon(picture: np.ndarray | None) -> QIcon:
    """Return a picture as a square icon, padded in grey."""
    square = np.full((SIZE_PX, SIZE_PX, 3), 40, np.uint8)
    if picture is not None:
        height, width = picture.shape[:2]
        top, left = (SIZE_PX - height) // 2, (SIZE_PX - width) // 2
        square[top : top + height, left : left + width] = picture
    image = QImage(square.tobytes(), SIZE_PX, SIZE_PX, 3 * SIZE_PX, QImage.Format.Format_RGB888)
    return QIcon(QPixmap.fromImage(image.copy()))
