"""From image files to label files: one file, or all images of a folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.files import plain_name
from napari_unet.core.labelplace import LabelPlace, is_label_place
from napari_unet.core.readers import is_zarr
from napari_unet.core.results import create_output
from napari_unet.core.spec import FrameDone, InputError, OutputError
from napari_unet.core.stack import list_images, open_stack

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unet.core.spec import PredictSettings, Progress
    from napari_unet.core.stack import Stack
    from napari_unet.nn.model import Model


@dataclass(frozen=True)
class FileJob:
    """One image to segment, and the file that its labels go to.

    The source is a path, or an address on another computer; a target of None lies beside the data.
    """

    source: Path | str
    target: Path | None


@dataclass(frozen=True)
class BlockOptions:
    """How a stack is gone through in blocks; see `nn.large.LargeRequest`."""

    block: int | None = None
    resume: bool = False
    scheduler: str | None = None
    level: int = 0

    @property
    def wanted(self) -> bool:
        """Whether something was asked for that only blocks can do."""
        return self.resume or self.scheduler is not None or self.block is not None


def is_batch(source: Path | str) -> bool:
    """Tell whether a path is a folder of images, not an image."""
    return not isinstance(source, str) and source.is_dir() and not is_zarr(source)


def plan_jobs(source: Path | str, target: Path | None) -> list[FileJob]:
    """List what is to be done: a file alone, or each image of a folder.

    The labels of a folder's images get the images' names with the ending ``.tif``; images that
    differ in their ending only keep it, as in ``a.png.tif``.

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
    stems = [plain_name(image) for image in images]
    count = Counter(stem.casefold() for stem in stems)
    names = [
        stem if count[stem.casefold()] == 1 else image.name
        for stem, image in zip(stems, images, strict=True)
    ]
    targets = [target / f"{name}.tif" for name in names]
    return [FileJob(*job) for job in zip(images, targets, strict=True)]


def segment_file(
    job: FileJob,
    model: Model,
    settings: PredictSettings,
    axes: str | None = None,
    overwrite: bool = False,
    blocks: BlockOptions | None = None,
) -> Generator[Progress, None, dict[str, Any]]:
    """Segment an image file into a label file, yielding after every tile and every frame.

    The label file appears when all is done; whatever ends the run before leaves nothing.

    Returns
    -------
    dict
        The result's passport.

    Raises
    ------
    UnetError
        The image cannot be read or does not fit the model, or the labels cannot be written.
    """
    from napari_unet.nn.segment import segment_steps

    blocks = blocks or BlockOptions()
    stack = open_stack(job.source, axes, level=blocks.level)
    if job.target is None or goes_in_blocks(job.target, blocks):
        return (yield from _segment_blocks(job, stack, model, settings, overwrite, blocks))
    place = (job.target, stack.labels_shape, stack.labels_axes, np.uint32, stack.voxel_size_um)
    with create_output(*place, overwrite=overwrite) as output:
        passport, largest = yield from _passport(
            segment_steps(stack, model, settings, out=output.array)
        )
        output.finish(np.uint16 if largest < 2**16 else np.uint32, passport)
    return passport


def goes_in_blocks(target: Path | None, blocks: BlockOptions) -> bool:
    """Tell whether labels are made block by block: all that become an OME-Zarr.

    Raises
    ------
    OutputError
        Something was asked for that another kind of file cannot do.
    """
    if target is None or is_label_place(target):
        return True
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
    from napari_unet.nn.large import LargeRequest, segment_blocks

    request = LargeRequest(
        stack,
        LabelPlace.of(job.target, job.source, model.name),
        settings,
        block=blocks.block,
        resume=blocks.resume,
        overwrite=overwrite,
        scheduler=blocks.scheduler,
    )
    result = yield from segment_blocks(request, model)
    return result.passport


def _passport(steps: Any) -> Generator[Progress, None, tuple[dict[str, Any], int]]:
    """Pass the steps on; return the passport and the most objects in any frame."""
    largest = 0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value.passport, largest
        if isinstance(step, FrameDone):
            largest = max(largest, step.objects)
        yield step
