"""Blockwise runs of the Segment panel, for stacks whose labels do not fit into memory.

The engine (`nn.blockwise.run`) writes an OME-Zarr label image; the layer shows provisional labels
while blocks are finished, and the image itself at the end. What is finished stays on the disk, and
running again resumes it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.estimate import RunEstimated
from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.blockwise.run_directory import open_preview
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.files import image_stem, is_zarr, make_folder
from napari_unet.core.io.ome_zarr_labels import COARSEST
from napari_unet.core.io.zarr_groups import image_group, zarr_path
from napari_unet.core.models.store import home
from napari_unet.core.progress import Progress
from napari_unet.core.volumes.volume_mode import AUTO, JOINED
from napari_unet.gui.jobs.job import DONE
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.navigation import WHOLE
from napari_unet.gui.layers.overlay_layer import remove_layer
from napari_unet.gui.layers.result_info import (
    ResultInfo,
    add_result,
    labels_checksum,
    seal_result,
    update_info,
)
from napari_unet.gui.segment.run import SegmentRun

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image

    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.jobs.engine import Request

IN_MEMORY = 2**31
"""Labels of more bytes than this, as uint16, go to the disk even if the user names no place."""


def writes_to_disk(image: Image, request: Request) -> bool:
    """Tell whether a run is blockwise: it was requested, or its labels are too large."""
    if request.region != WHOLE:
        return False
    if request.save_in or request.scheduler:
        return True
    return _exceeds_memory(full_resolution(image).shape)


def _exceeds_memory(shape: tuple[int, ...]) -> bool:
    return 2 * math.prod(shape) > IN_MEMORY


def choose_output_location(image: Image, request: Request) -> OutputLocation:
    """Return where the labels of a layer go.

    In this order: where the user says; into the OME-Zarr that the layer shows, or beside the Zarr
    array that it shows, if that can be written; into the folder ``results`` of the user's data. A
    finished result is never replaced: the new one gets a number.

    Raises
    ------
    OutputError
        The user's place is no ``.zarr``.
    """
    if request.save_in:
        return OutputLocation.resolve(request.save_in, None, request.model)
    if (source := _find_zarr(image)) is not None:
        with suppress(OutputError):
            beside = OutputLocation.beside(source, request.model)
            beside.check(True)
            return _number_apart(beside)
    folder = home() / "results"
    make_folder(folder)
    name = image_stem(Path(image.name)).replace("/", "_") or "image"
    return _number_apart(OutputLocation(folder / f"{name} {request.model}.zarr"))


def _find_zarr(image: Image) -> Path | None:
    """Return the Zarr on this computer that a layer shows, if any."""
    path = file_of(image)
    if path is not None and is_zarr(found := Path(path)):
        return image_group(found)
    return zarr_path(full_resolution(image))


def _number_apart(location: OutputLocation) -> OutputLocation:
    """Return the location, or one with a number that holds no finished result."""
    number, found = 2, location
    while found.path.exists() and not found.is_unfinished:
        path = location.path
        found = replace(location, path=path.with_name(f"{path.stem} {number}{path.suffix}"))
        number += 1
    return found


class BlockwiseRun(SegmentRun):
    """One blockwise run; see `SegmentRun`. Its layer shows arrays on the disk."""

    _location: OutputLocation | None = None
    _estimate = ""
    _checksum: int | None = None

    def describe(self) -> str:
        """Return the progress as a line, below what the run was estimated to take."""
        line = super().describe()
        return f"{self._estimate}\n{line}" if self._estimate else line

    def summary(self, state: str) -> str:
        """Return how the run ended and where its result is, as a line."""
        line = super().summary(state)
        if self._location is None:
            return line
        if state != DONE:
            if not (self._location.unfinished / "blocks").exists():
                return line
            return f"{line} Run again to go on: finished blocks are in {self._location.unfinished}."
        failed = len(self.result.provenance.get("failed_blocks", []))
        if failed:
            line += f" {failed} blocks could not be read and are empty; run again to try them."
        return f"{line} Saved in {self._location.path}."

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
        self._location = choose_output_location(image, request)
        self._placement = placement
        self._watch(True)
        return self._with_checksum(blockwise_steps(stack, request, self._location))

    def _with_checksum(self, work: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
        """Run the blocks, and add up the labels that are shown from memory, in the job's thread."""
        result = yield from work
        if isinstance(result.labels, np.ndarray):
            self._checksum = labels_checksum(result.labels)
        return result

    def _take(self, item: Progress) -> None:
        super()._take(item)
        if isinstance(item, RunEstimated) and item.estimate is not None:
            self._estimate = item.estimate.line()
        elif getattr(item, "window", None):  # a `BlockDone`, whose module loads torch
            self._show_preview()

    def _show_preview(self) -> None:
        assert self._location is not None
        preview = self._location.unfinished / "preview"
        if self.layer is not None or self.lost or not preview.exists():
            return
        self.layer = self._unfinished_layer(preview)
        if self.layer is None:
            levels = open_preview(preview)
            self.layer = self._add(levels if self._stays_on_disk(levels[0]) else levels[0])
            update_info(self.layer, preview=str(preview))
        self.layer.editable = False

    def _unfinished_layer(self, preview: Path) -> Any:
        """Return the layer in which an earlier, unfinished run shows the same preview, if any."""
        for layer in self.viewer.layers:
            if ResultInfo.from_layer(layer).preview == str(preview):
                return layer
        return None

    def _add(self, data: Any) -> Any:
        assert self._placement is not None
        name = f"{self.image.name} {self.request.model}"
        return add_result(self.viewer, data, self.image, name, self._placement)

    @staticmethod
    def _stays_on_disk(labels: Any) -> bool:
        """Tell whether labels are shown from the disk, in several levels, instead of from memory.

        The same answer for the preview and for the result: a layer cannot get or lose levels.
        """
        shape = labels.shape
        return max(shape[-2:]) > COARSEST and _exceeds_memory(shape)

    def _leave_layer(self, state: str) -> None:
        """Show the finished image; in memory, where it can be edited, if it is small."""
        self._watch(False)
        shown = self.layer if self.layer in self.viewer.layers else None
        if self._location is None:
            return
        if state != DONE:
            if shown is not None and not (self._location.unfinished / "preview").exists():
                remove_layer(self.viewer, shown)
            return
        data = self.result.labels
        if self._stays_on_disk(data):
            data = self._location.open_levels()
        if shown is None and not self.lost:  # left by a run that ended after its last block
            shown = self.layer = self._unfinished_layer(self._location.unfinished / "preview")
        if shown is not None:
            shown.data = data
        elif not self.lost:
            shown = self.layer = self._add(data)
        if shown is None:
            return
        update_info(shown, preview=None)
        if isinstance(data, np.ndarray):
            seal_result(shown, self.result.provenance, True, self._checksum)
        else:
            update_info(shown, provenance=self.result.provenance)
            shown.editable = False


def blockwise_steps(
    stack: Stack, request: Request, location: OutputLocation
) -> Generator[Progress, None, Any]:
    """Load the model and go through the blocks, in a job's thread; an unfinished run is resumed.

    If the unfinished run is of another image, model or settings, its blocks are of no use, and the
    run starts anew. Labels that fit into memory are read into it, where they can be edited.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.blockwise.plan import BlockwiseRequest, OtherRunError
    from napari_unet.nn.blockwise.run import segment_blocks

    model, settings = loaded_model(request.model, request.device), request.settings
    if settings.volumes == AUTO:  # as in a run in memory: planes appear one by one
        settings = replace(settings, volumes=JOINED)
    blockwise = BlockwiseRequest(
        stack,
        location,
        settings,
        resume=location.is_unfinished,
        scheduler=request.scheduler or None,
        preview=not request.scheduler,
    )
    try:
        result = yield from segment_blocks(blockwise, model)
    except OtherRunError:
        anew = replace(blockwise, resume=False, overwrite=True)
        result = yield from segment_blocks(anew, model)
    if result.labels.nbytes > IN_MEMORY:
        return result
    return replace(result, labels=np.asarray(result.labels[...]))
