"""Runs of the Segment panel over stacks larger than the memory: block by block to the disk.

The engine writes an OME-Zarr label image (`nn.blockwise.large`); the layer shows its provisional
labels while blocks are finished, and the image itself at the end. What is finished stays on the
disk, and running again goes on from there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.assemble import open_preview
from napari_unet.core.blockwise.estimate import Preflight
from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.atomic import make_folder, plain_name, user_path
from napari_unet.core.io.ome_zarr import COARSEST, zarr_path
from napari_unet.core.io.readers import is_zarr
from napari_unet.core.models.store import home
from napari_unet.core.progress import Progress
from napari_unet.core.volumes.modes import AUTO, JOINED
from napari_unet.gui.jobs.job import DONE
from napari_unet.gui.layers.convert import WHOLE, full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY, Placement, seal_result
from napari_unet.gui.segment.run import SegmentRun

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image

    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.jobs.engine import Request

IN_MEMORY = 2**31
"""Labels of more bytes than this, as uint16, go to the disk unless the user says where to."""


def goes_in_blocks(image: Image, request: Request) -> bool:
    """Tell whether a run writes to the disk: it was asked to, or its labels are too large."""
    if request.region != WHOLE:
        return False
    if request.save_in or request.scheduler:
        return True
    shape = full_resolution(image).shape
    return 2 * int(np.prod(shape, dtype=np.int64)) > IN_MEMORY


def label_place(image: Image, request: Request) -> OutputLocation:
    """Return where the labels of a layer go.

    That is where the user says, else into the OME-Zarr that the layer was opened from or made of,
    or beside such a Zarr array, if that may be written, else into the folder ``results`` of the
    user's data. A number tells it from a finished result, which is never replaced.

    Raises
    ------
    OutputError
        The place is no ``.zarr``.
    """
    if request.save_in:
        return OutputLocation.of(request.save_in, None, request.model)
    if (source := _source(image)) is not None:
        with suppress(OutputError):
            beside = OutputLocation.beside(source, request.model)
            beside.check(True)
            return _free(beside)
    folder = home() / "results"
    make_folder(folder)
    name = plain_name(Path(image.name)).replace("/", "_") or "image"
    return _free(OutputLocation(folder / f"{name} {request.model}.zarr"))


def _source(image: Image) -> Path | None:
    """Return the Zarr on this computer that a layer shows, if it shows one."""
    path = image.source.path
    if path is not None and is_zarr(found := user_path(path)):
        return found.absolute()
    return zarr_path(full_resolution(image))


def _free(place: OutputLocation) -> OutputLocation:
    """Return the place, or one of a like name that holds no finished result."""
    number, found = 2, place
    while found.path.exists() and not found.unfinished.exists():
        stem, suffix = place.path.stem, place.path.suffix
        found = replace(place, path=place.path.with_name(f"{stem} {number}{suffix}"))
        number += 1
    return found


class BlockwiseRun(SegmentRun):
    """One run in blocks; see `SegmentRun`."""

    _place: OutputLocation | None = None
    _about = ""

    def describe(self) -> str:
        """Return the progress as a line; at first, what the run needs."""
        line = super().describe()
        return f"{self._about}\n{line}" if self._about else line

    def summary(self, state: str) -> str:
        """Return how the run ended, and where its result is."""
        line = super().summary(state)
        if self._place is None:
            return line
        if state != DONE:
            if not (self._place.unfinished / "blocks").exists():
                return line
            return f"{line} Run again to go on: finished blocks are in {self._place.unfinished}."
        failed = len(self.result.provenance.get("failed_blocks", []))
        if failed:
            line += f" {failed} blocks could not be read and are empty; run again to try them."
        return f"{line} Saved in {self._place.path}."

    def _begin(self) -> Generator[Any, None, Any]:
        image, request = self.image, self.request
        stack, axes = layer_stack(image), layer_axes(image)
        shape = full_resolution(image).shape
        placement = Placement(axes, stack.labels_axes, tuple(shape))
        if placement.shown != stack.labels_axes:
            raise InputError(
                f"Labels of {image.name!r} cannot be shown from the disk, for its axes are {axes}; "
                "give it the order T, C, Z, Y, X, or run `napari-unet segment` in a terminal."
            )
        self._place = label_place(image, request)
        self._placement = placement
        self._watch(True)
        return block_work(stack, request, self._place)

    def _take(self, item: Progress) -> None:
        super()._take(item)
        if isinstance(item, Preflight) and item.needs is not None:
            self._about = item.needs.line()
        elif getattr(item, "window", None):
            self._show_preview()

    def _show_preview(self) -> None:
        assert self._place is not None
        preview = self._place.unfinished / "preview"
        if self.layer is not None or self.lost or not preview.exists():
            return
        self.layer = self._unfinished_layer(preview)
        if self.layer is None:
            levels = open_preview(preview)
            self.layer = self._add(levels if self._stays_on_disk(levels[0]) else levels[0])
            self.layer.metadata[RESULT_KEY]["preview"] = str(preview)
        self.layer.editable = False

    def _unfinished_layer(self, preview: Path) -> Any:
        """Return the layer that an earlier, unfinished run left of the same preview, if any."""
        for layer in self.viewer.layers:
            if layer.metadata.get(RESULT_KEY, {}).get("preview") == str(preview):
                return layer
        return None

    def _add(self, data: Any) -> Any:
        assert self._placement is not None
        name = f"{self.image.name} {self.request.model}"
        mark = {"base": name, IMAGE: str(self.image.unique_id), "runs": []}
        layer = self.viewer.add_labels(
            data, name=name, metadata={RESULT_KEY: mark}, **self._placement.geometry(self.image)
        )
        layer.metadata[RESULT_KEY]["name"] = layer.name
        return layer

    @staticmethod
    def _stays_on_disk(labels: Any) -> bool:
        """Tell whether an array of labels stays there, and has coarser levels to look at.

        Both of what is shown meanwhile and of the result: a layer cannot get or lose its levels.
        """
        shape = labels.shape
        return max(shape[-2:]) > COARSEST and 2 * int(np.prod(shape, dtype=np.int64)) > IN_MEMORY

    def _leave_layer(self, state: str) -> None:
        """Show the finished image; in memory, where it can be edited, if it is small."""
        self._watch(False)
        shown = self.layer if self.layer in self.viewer.layers else None
        if self._place is None:
            return
        if state != DONE:
            if shown is not None and not (self._place.unfinished / "preview").exists():
                self.viewer.layers.remove(shown)
            return
        data = self.result.labels
        if self._stays_on_disk(data):
            data = self._place.open_levels()
        if shown is None and not self.lost:  # of a run that ended when its blocks were through
            shown = self.layer = self._unfinished_layer(self._place.unfinished / "preview")
        if shown is not None:
            shown.data = data
        elif not self.lost:
            shown = self.layer = self._add(data)
        if shown is None:
            return
        shown.metadata[RESULT_KEY].pop("preview", None)
        if isinstance(data, np.ndarray):
            seal_result(shown, self.result.provenance, True)
        else:
            shown.metadata[RESULT_KEY]["passport"] = self.result.provenance
            shown.editable = False


def block_work(
    stack: Stack, request: Request, place: OutputLocation
) -> Generator[Progress, None, Any]:
    """Load the model and go through the blocks, in a job's thread; an unfinished run goes on.

    Labels that memory holds are read into it: there they can be edited.

    One of another image, model or settings is in the way of nothing but itself: what it had
    computed does not fit any more, so the run begins anew.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.blockwise.plan import OtherRunError
    from napari_unet.nn.blockwise.run import BlockwiseRequest, segment_blocks

    model, settings = loaded_model(request.model, request.device), request.settings
    if settings.volumes == AUTO:  # as in a run in memory: plane by plane something is to be seen
        settings = replace(settings, volumes=JOINED)
    large = BlockwiseRequest(
        stack,
        place,
        settings,
        resume=place.unfinished.exists(),
        scheduler=request.scheduler or None,
        preview=not request.scheduler,
    )
    try:
        result = yield from segment_blocks(large, model)
    except OtherRunError:
        anew = replace(large, resume=False, overwrite=True)
        result = yield from segment_blocks(anew, model)
    if result.labels.nbytes > IN_MEMORY:
        return result
    return replace(result, labels=np.asarray(result.labels[...]))
