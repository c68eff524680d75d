"""Taking back what was done to files: in their journals, in the files, and in layers of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QPushButton

from napari_unet.core.errors import UnetError
from napari_unet.core.io.label_reader import fit_labels, read_labels
from napari_unet.core.io.provenance import hash_labels
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.alike_edit import AlikeOutcome, undo_files
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import HOST, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.layers.label_geometry import find_label_geometry
from napari_unet.gui.layers.overlay_layer import is_overlay
from napari_unet.gui.layers.result_info import ResultInfo, labels_checksum, update_info

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_unet.core.alike.result_file import ResultFile
    from napari_unet.core.progress import Progress
    from napari_unet.gui.correct.edit_tracker import EditTracker


_TIP = "Take the last edit of these files back, in their journals and in the files."


class FileUndo(QPushButton):
    """A button that takes the last edit of files back; hidden without any.

    Parameters
    ----------
    viewer, tracker
        The window, and what records its labels.
    say
        Told what came of it, and how far it is.

    Attributes
    ----------
    files
        Those that it would take back.
    job
        The job that goes on, or the last one.
    """

    def __init__(self, viewer: Any, tracker: EditTracker, say: Callable[[str], None]) -> None:
        super().__init__("Undo in files")
        self.setToolTip(_TIP)
        self._viewer, self._tracker, self._say = viewer, tracker, say
        self._jobs = WidgetJobs(self)
        self.files: list[ResultFile] = []
        self.job: Job | None = None
        self.clicked.connect(self.undo)
        self.hide()

    def offer(self, files: list[ResultFile]) -> None:
        """Offer to take back what was done to files, in place of what was offered before."""
        self.files = files
        self.setVisible(bool(files))

    def undo(self, *_: Any) -> None:
        """Take the last edit of the files back, in a job; those that fail can be tried again."""
        files, outcome = self.files, AlikeOutcome(left=[*self.files])
        if not files or (self.job is not None and self.job.active):
            return
        shown = list_shown_files(self._viewer, self._tracker, files)
        job = Job(
            functools.partial(undo_and_read, files, outcome, shown),
            on_item=lambda item: self._say(f"Undoing: {item.done} of {item.total} files …"),
            on_done=lambda found: self._say(
                describe_undo(outcome, show_again(self._tracker, found))
            ),
            on_error=lambda error: report_error(error, "undoing in files failed", self._say),
            on_end=lambda _: self.offer(outcome.left),
        )
        self.job = self._jobs.run_in(get_device_queue(HOST), job)


@dataclass(frozen=True, eq=False)
class ShownFile:
    """Labels in the window that may be those of a file.

    Attributes
    ----------
    layer, values
        The layer, and its labels in the order of the file's.
    source
        The image's file.
    to_layer
        Brings labels in the order of the file's to that of the layer.
    """

    layer: Labels
    values: np.ndarray
    source: str
    to_layer: Callable[[np.ndarray], np.ndarray]


def list_shown_files(
    viewer: Any, tracker: EditTracker, files: Sequence[ResultFile]
) -> list[ShownFile]:
    """List the layers that may show labels of files, and were not corrected in the window."""
    sources, found = {str(file.source.absolute()) for file in files}, []
    for layer in viewer.layers:
        if not isinstance(layer, Labels) or is_overlay(layer):
            continue
        image = tracker.get_image(layer)
        source = None if image is None else file_of(image)
        if source not in sources or tracker.was_edited(layer):
            continue
        try:
            geometry = find_label_geometry(image, layer)
            values = geometry.array(layer.data)
        except UnetError:
            continue
        if isinstance(values, np.ndarray):
            to_layer = geometry.placement.to_layer
            found.append(ShownFile(layer, values, str(source), to_layer))
    return found


@dataclass(frozen=True, eq=False)
class FileReread:
    """What of a layer changes with a file that was undone; worked out in the job's thread.

    Attributes
    ----------
    shown
        The layer.
    window
        The smallest part of its labels that all changes lie in.
    before, now
        The labels there.
    checksum
        Of the layer's data afterwards.
    """

    shown: ShownFile
    window: tuple[slice, ...]
    before: np.ndarray
    now: np.ndarray
    checksum: int

    @classmethod
    def from_labels(cls, shown: ShownFile, before: np.ndarray, now: np.ndarray) -> FileReread:
        """Compare all labels of the layer, as they were read and as they are in the file now."""
        differs = before != now
        others = (tuple(a for a in range(now.ndim) if a != axis) for axis in range(now.ndim))
        lines = [np.flatnonzero(differs.any(axis=other)) for other in others]
        window = tuple(slice(int(x[0]), int(x[-1]) + 1) if len(x) else slice(0) for x in lines)
        data = shown.to_layer(now.astype(shown.values.dtype))
        return cls(shown, window, before[window].copy(), now[window].copy(), labels_checksum(data))


def undo_and_read(
    files: Sequence[ResultFile], outcome: AlikeOutcome, shown: Sequence[ShownFile]
) -> Generator[Progress, None, list[FileReread]]:
    """Take the last edit of files back, and read again what layers show of them.

    Returns
    -------
    list of FileReread
        Of layers that show what a file held before it was undone.
    """
    before = {file.target: file.state for file in files}
    yield from undo_files(files, outcome)
    found = []
    for file in outcome.files:
        for each in shown:
            if each.source != str(file.source.absolute()):
                continue
            seen = each.values.copy()
            if hash_labels(seen) == before[file.target]:
                labels = fit_labels(read_labels(file.target), seen.shape)
                found.append(FileReread.from_labels(each, seen, labels))
    return found


def show_again(tracker: EditTracker, found: Sequence[FileReread]) -> int:
    """Put what was read again into layers not touched meanwhile; return how many they are.

    Only what changes is compared and written: labels may be large, and the window waits.
    """
    shown = 0
    for each in found:
        layer, values = each.shown.layer, each.shown.values
        here = layer.editable and np.shares_memory(values, layer.data)
        if not here or tracker.was_edited(layer):
            continue
        if not np.array_equal(values[each.window], each.before):
            continue
        values[each.window] = each.now
        if ResultInfo.from_layer(layer).checksum is not None:
            update_info(layer, checksum=each.checksum)
        layer.refresh()
        shown += 1
    return shown


def describe_undo(outcome: AlikeOutcome, shown: int) -> str:
    """Say what came of it."""
    words = [f"{pluralise(len(outcome.files), 'file')} as before."]
    if shown:
        words.append(f"{pluralise(shown, 'layer')} read again.")
    return " ".join([*words, *outcome.problems[:3]])
