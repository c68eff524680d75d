"""From image files to label files: one file, or all images of a folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.output_location import OutputLocation, is_output_location
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.atomic import plain_name
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.readers import is_zarr
from napari_unet.core.io.stack import list_images, open_stack
from napari_unet.core.progress import FrameDone
from napari_unet.core.tracking.linking import check_linkable
from napari_unet.core.volumes.modes import resolve_volume_mode

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.progress import Progress
    from napari_unet.core.settings import PredictSettings
    from napari_unet.core.tracking.linking import LinkSettings, Tracks
    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True)
class FileJob:
    """One image to segment, and the file that its labels go to.

    The source is a path, or an address on another computer; a target of None lies beside the data.
    """

    source: Path | str
    target: Path | None

    def place(self, name: str) -> OutputLocation:
        """Return where blockwise labels go; `name` as for `OutputLocation.resolve`."""
        return OutputLocation.resolve(self.target, self.source, name)

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a run in blocks to go on with."""
        if self.target is None or not is_output_location(self.target):
            return False
        return self.place("").unfinished.exists()

    @property
    def is_done(self) -> bool:
        """Whether the labels are there, whole."""
        return self.target is not None and self.target.exists() and not self.is_unfinished


@dataclass(frozen=True)
class BlockOptions:
    """How a stack is gone through in blocks; see `nn.blockwise.large.BlockwiseRequest`."""

    block: int | None = None
    resume: bool = False
    scheduler: str | None = None
    level: int = 0

    @property
    def wanted(self) -> bool:
        """Whether something was asked for that only blocks can do."""
        return self.resume or self.scheduler is not None or self.block is not None

    def of(self, job: FileJob) -> BlockOptions:
        """Return the options for one of many files: those made in one piece are not resumed."""
        if job.target is None or is_output_location(job.target):
            return self
        return replace(self, resume=False)


def is_batch(source: Path | str) -> bool:
    """Tell whether a path is a folder of images, not an image."""
    return not isinstance(source, str) and source.is_dir() and not is_zarr(source)


def plan_jobs(source: Path | str, target: Path | None) -> list[FileJob]:
    """List what is to be done: a file alone, or each image of a folder.

    The labels of a folder's images get the images' names with the ending ``.tif``, those of a Zarr
    ``.zarr``; images that differ in their ending only keep it, as in ``a.png.tif``.

    Raises
    ------
    InputError
        There is no such file or folder, or no image in the folder.
    OutputError
        The results would take the images' place, or go to a file instead of a folder.
    """
    if isinstance(source, str):
        return [FileJob(source, target)]
    if not source.exists():
        raise InputError(f"{source} does not exist; check the spelling and the folder.")
    if target is not None and target.exists() and source.samefile(target):
        raise OutputError(f"{target} is the input, too; choose another place for the output.")
    if not is_batch(source):
        return [FileJob(source, target)]
    if target is None:
        raise OutputError("the output is missing; give a folder, as the input is one.")
    images = list_images(source)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; give a folder, as the input is one.")
    return plan_files(images, target)


def plan_files(images: Sequence[Path], folder: Path) -> list[FileJob]:
    """Name the labels of images from anywhere, all of which go to one folder.

    The labels get the images' names with the ending ``.tif``; images of equal names keep their
    endings, as in ``a.png.tif``, and if that does not help their folders' names, too. Those of a
    Zarr end with ``.zarr``: they are made block by block, for the image may exceed the memory.

    Raises
    ------
    OutputError
        The labels of an image would take its place.
    """
    ways = (plain_name, lambda path: path.name, lambda path: f"{path.parent.name} {path.name}")
    counts = [Counter(way(image).casefold() for image in images) for way in ways]
    jobs = []
    for number, image in enumerate(images, 1):
        names = [way(image) for way in ways]
        alone = [n for n, count in zip(names, counts, strict=True) if count[n.casefold()] == 1]
        name = alone[0] if alone else f"{names[-1]} {number}"
        target = folder / f"{name}{'.zarr' if is_zarr(image) else '.tif'}"
        if target.exists() and image.exists() and target.samefile(image):
            raise OutputError(f"{target} is an image of the list; choose another folder.")
        jobs.append(FileJob(image, target))
    return jobs


def segment_file(
    job: FileJob,
    model: Model,
    settings: PredictSettings,
    axes: str | None = None,
    overwrite: bool = False,
    link: LinkSettings | None = None,
    blocks: BlockOptions | None = None,
) -> Generator[Progress, None, dict[str, Any]]:
    """Segment an image file into a label file, yielding after every tile and every frame.

    The label file appears when all is done; whatever ends the run before leaves nothing.

    Parameters
    ----------
    link
        How objects are linked through time, so that their numbers are those of tracks; the tracks
        are written beside the labels (`tracks_path`). Not given: each frame is numbered apart.

    Returns
    -------
    dict
        The result's provenance.

    Raises
    ------
    UnetError
        The image cannot be read or does not fit the model, or the labels cannot be written.
    """
    from napari_unet.nn.inference.segment import segment_steps

    blocks = blocks or BlockOptions()
    stack = open_stack(job.source, axes, level=blocks.level)
    if link is not None:
        way = resolve_volume_mode(settings.volumes, model.spec.ndim, model.spec.head, stack)
        check_linkable(stack.labels_axes, model.spec.head, way)
    if job.target is None or goes_in_blocks(job.target, blocks, linked=link is not None):
        return (yield from _segment_blocks(job, stack, model, settings, overwrite, blocks))
    if link is not None and tracks_path(job.target).exists() and not overwrite:
        raise OutputError(
            f"{tracks_path(job.target)} exists already; choose another name, or overwrite it "
            "(--overwrite)."
        )
    place = (job.target, stack.labels_shape, stack.labels_axes, np.uint32, stack.voxel_size_um)
    with create_output(*place, overwrite=overwrite, place=stack.labels_place) as output:
        provenance, largest = yield from _provenance(
            segment_steps(stack, model, settings, out=output.array)
        )
        tracks = None
        if link is not None:
            tracks = yield from _linked(stack, output.array, link)
            largest, provenance["tracks"] = tracks.count, tracks.count
        output.finish(np.uint16 if largest < 2**16 else np.uint32, provenance)
    if tracks is not None:
        tracks.write_csv(tracks_path(job.target))
    return provenance


def tracks_path(target: Path) -> Path:
    """Return where the tracks of a label file are written: a table beside it."""
    return target.with_name(f"{plain_name(target)}.tracks.csv")


def _linked(stack: Stack, labels: Any, link: LinkSettings) -> Generator[Progress, None, Tracks]:
    """Give the labels of all frames the numbers of their tracks, where they lie."""
    from napari_unet.nn.inference.linking import link_steps

    image = stack.data if stack.axes == stack.labels_axes else None
    tracks = yield from link_steps(
        labels,
        stack.labels_axes,
        link,
        out=labels,
        voxel_size_um=stack.voxel_size_um,
        image=image,
    )
    return tracks


def goes_in_blocks(target: Path | None, blocks: BlockOptions, *, linked: bool = False) -> bool:
    """Tell whether labels are made block by block: all that become an OME-Zarr and are not linked.

    Raises
    ------
    OutputError
        Something was asked for that another kind of file cannot do.
    """
    if linked and (target is None or blocks.wanted):
        raise OutputError(
            "Objects are linked (--link) in a result of its own, made in one go: give an output, "
            "and leave out --resume, --scheduler and --block."
        )
    if target is None or is_output_location(target):
        return not linked
    if blocks.wanted:
        raise OutputError(
            f"{target} cannot be written in blocks (--resume, --scheduler, --block); give an "
            "output that ends with .zarr."
        )
    return False


def _segment_blocks(
    job: FileJob,
    stack: Stack,
    model: Model,
    settings: PredictSettings,
    overwrite: bool,
    blocks: BlockOptions,
) -> Generator[Progress, None, dict[str, Any]]:
    from napari_unet.nn.blockwise.plan import BlockwiseRequest
    from napari_unet.nn.blockwise.run import segment_blocks

    request = BlockwiseRequest(
        stack,
        job.place(model.name),
        settings,
        block=blocks.block,
        resume=blocks.resume,
        overwrite=overwrite,
        scheduler=blocks.scheduler,
    )
    result = yield from segment_blocks(request, model)
    return result.provenance


def _provenance(steps: Any) -> Generator[Progress, None, tuple[dict[str, Any], int]]:
    """Pass the steps on; return the provenance and the most objects in any frame."""
    largest = 0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value.provenance, largest
        if isinstance(step, FrameDone):
            largest = max(largest, step.objects)
        yield step
