"""From an image file to a label file: where the labels go, whether in blocks, and the run."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.output_location import OutputLocation, is_output_location
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import (
    TIFF_SUFFIXES,
    check_exists,
    check_input_stays,
    image_stem,
    is_image_folder,
    is_zarr,
    list_images,
    split_inner,
)
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import hash_labels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.io.zarr_groups import image_group
from napari_unet.core.progress import FrameDone, map_steps
from napari_unet.core.tracking import check_linkable
from napari_unet.core.volumes.volume_mode import resolve_volume_mode

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.progress import Progress
    from napari_unet.core.settings.tasks import LinkSettings, PredictSettings
    from napari_unet.core.tracking import Tracks
    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True)
class FileJob:
    """One image to segment, and the file that its labels go to.

    Attributes
    ----------
    source
        A path, or an address on another computer.
    target
        None: among the labels of the OME-Zarr that the source is.
    series
        Which image of a source that holds several, see `open_stack`.
    """

    source: Path | str
    target: Path | None
    series: int | None = None

    def open(self, axes: str | None = None, level: int = 0) -> Stack:
        """Open the image; see `open_stack`."""
        return open_stack(self.source, axes, level=level, series=self.series)

    def output_location(self, name: str) -> OutputLocation:
        """Return where labels made in blocks go; `name` as for `OutputLocation`."""
        source = self.source
        if self.target is None and not isinstance(source, str):
            source = image_group(source, self.series)
        return OutputLocation.resolve(self.target, source, name)

    @property
    def is_unfinished(self) -> bool:
        """Whether there is an unfinished run in blocks."""
        if self.target is None or not is_output_location(self.target):
            return False
        return self.output_location("").is_unfinished

    def is_done(self, *, linked: bool) -> bool:
        """Return whether the labels are there and complete, for `segment --resume` of a folder.

        Whatever made them, so that no image has to be read to know; the Batch panel asks
        `run.find_finished`, which wants the same model, data and settings.

        Parameters
        ----------
        linked
            Whether the table of tracks belongs to them.
        """
        if self.target is None or not self.target.exists() or self.is_unfinished:
            return False
        return not linked or tracks_path(self.target).exists()


@dataclass(frozen=True)
class BlockOptions:
    """Options of a run in blocks, see `nn.blockwise.plan.BlockwiseRequest`; level of the image."""

    block: int | None = None
    resume: bool = False
    scheduler: str | None = None
    level: int = 0

    @property
    def requested(self) -> bool:
        """Whether an option is given that needs blocks."""
        return self.resume or self.scheduler is not None or self.block is not None

    def for_job(self, job: FileJob, *, linked: bool) -> BlockOptions:
        """Return the options for one of many files; labels made in one go are not resumed."""
        if not linked and (job.target is None or is_output_location(job.target)):
            return self
        return replace(self, resume=False)


def is_batch(source: Path | str) -> bool:
    """Return whether a path is a folder of images, not an image or an address."""
    return not isinstance(source, str) and is_image_folder(source)


def plan_jobs(source: Path | str, target: Path | None, series: int | None = None) -> list[FileJob]:
    """Return a job for a file, or one for each image in a folder, see `plan_files`.

    A file's labels may go to a folder that is there. An image that lies in several files of the
    folder gets one job.

    Raises
    ------
    InputError
        The source does not exist, or holds no image.
    OutputError
        The labels would replace the images, or the target of a folder is a file.
    """
    if isinstance(source, str):
        return [FileJob(source, target, series)]
    check_exists(source)
    file = split_inner(source)[0]
    if target is not None and target.exists() and file.samefile(target):
        raise OutputError(f"{target} is the input, too; choose another place for the output.")
    if target is not None:
        check_input_stays(source, target)
    if not is_batch(source):
        if target is not None and is_image_folder(target) and target.suffix.lower() != ".zarr":
            return [replace(job, series=series) for job in plan_files([source], target)]
        return [FileJob(source, target, series)]
    if target is None:
        raise OutputError("the output is missing; give a folder, as the input is one.")
    images = list_images(source)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; give a folder, as the input is one.")
    images = without_parts(images)[0]
    return [replace(job, series=series) for job in plan_files(images, target)]


def without_parts(images: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Leave out files that hold parts of an image of which another file of the list is the first.

    Returns
    -------
    kept
        The images that are left.
    parts
        The files that are left out, each with the one that stands for its image.
    """
    from napari_unet.core.io.tiff import files_of_image

    kept: list[Path] = []
    parts: dict[Path, Path] = {}
    firsts: dict[tuple[Path, ...], Path] = {}
    for image in images:
        tiff = image.suffix.lower() in TIFF_SUFFIXES and image.is_file()
        files = tuple(path.absolute() for path in files_of_image(image)) if tiff else ()
        if files and files in firsts:
            parts[image] = firsts[files]
            continue
        if files:
            firsts[files] = image
        kept.append(image)
    return kept, parts


def plan_files(images: Sequence[Path], folder: Path) -> list[FileJob]:
    """Return a job for each image, whose labels all go to one folder.

    Labels are named like their images with the suffix ``.tif``; images of equal names keep their
    suffix, as in ``a.png.tif``, and if that does not help the name of their folder, too. Labels of
    a Zarr end with ``.zarr`` and are made block by block, since the image may exceed the memory.

    Raises
    ------
    OutputError
        Labels would replace an image.
    """
    namings = (image_stem, lambda path: path.name, lambda path: f"{path.parent.name} {path.name}")
    counts = [Counter(_as_disks_see(name_of(image)) for image in images) for name_of in namings]
    jobs, taken = [], set[str]()
    for number, image in enumerate(images, 1):
        names = [name_of(image) for name_of in namings]
        seen = [_as_disks_see(name) for name in names]
        # The name of one may be that of another and its suffix: "a.png" and "a.png.bmp".
        free = [
            name
            for name, key, count in zip(names, seen, counts, strict=True)
            if count[key] == 1 and key not in taken
        ]
        name = free[0] if free else f"{names[-1]} {number}"
        taken.add(_as_disks_see(name))
        target = folder / f"{name}{'.zarr' if is_zarr(image) else '.tif'}"
        if target.exists() and image.exists() and target.samefile(image):
            raise OutputError(f"{target} is an image of the list; choose another folder.")
        jobs.append(FileJob(image, target))
    return jobs


def _as_disks_see(name: str) -> str:
    """Return a name as disks compare it that know no case, nor two spellings of one letter."""
    return unicodedata.normalize("NFC", name).casefold()


def segment_file(
    job: FileJob,
    model: Model,
    settings: PredictSettings,
    axes: str | None = None,
    overwrite: bool = False,
    link: LinkSettings | None = None,
    blocks: BlockOptions | None = None,
) -> Generator[Progress, None, dict[str, Any]]:
    """Segment an image file into a label file; yield progress after each tile and frame.

    The label file appears at the end; an error or an interrupt leaves nothing, or with blocks an
    unfinished run.

    Parameters
    ----------
    link
        How objects are linked through time, so that labels are numbered by track and the tracks are
        written beside them (`tracks_path`). None: the objects of each frame are numbered anew.

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
    stack = job.open(axes, blocks.level)
    if link is not None:
        mode = resolve_volume_mode(settings.volumes, model.spec.ndim, model.spec.head, stack)
        check_linkable(stack.labels_axes, model.spec.head, mode)
    if job.target is None or runs_in_blocks(job.target, blocks, linked=link is not None):
        return (yield from _segment_blocks(job, stack, model, settings, overwrite, blocks))
    if link is not None and tracks_path(job.target).exists() and not overwrite:
        raise OutputError(
            f"{tracks_path(job.target)} exists already; choose another name, or overwrite it "
            "(--overwrite)."
        )
    labels = (job.target, stack.labels_shape, stack.labels_axes, np.uint32, stack.voxel_size_um)
    with create_output(*labels, overwrite=overwrite, transform=stack.labels_transform) as output:
        provenance, largest = yield from _count_objects(
            segment_steps(stack, model, settings, out=output.array)
        )
        tracks = None
        if link is not None:
            tracks = yield from _link(stack, output.array, link)
            largest, provenance["tracks"] = tracks.count, tracks.count
            provenance["link"] = asdict(link)
        provenance["labels_hash"] = hash_labels(output.array)
        output.finish(np.uint16 if largest < 2**16 else np.uint32, provenance)
        if tracks is not None:  # before the labels are there: where they are, their tracks are, too
            tracks.write_csv(tracks_path(job.target))
    return provenance


def tracks_path(target: Path) -> Path:
    """Return the path of the table of tracks beside a label file."""
    return target.with_name(f"{image_stem(target)}.tracks.csv")


def _link(stack: Stack, labels: Any, link: LinkSettings) -> Generator[Progress, None, Tracks]:
    """Replace the labels of all frames by the numbers of their tracks."""
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


def runs_in_blocks(target: Path | None, blocks: BlockOptions, *, linked: bool = False) -> bool:
    """Return whether labels are made block by block: all OME-Zarrs that are not linked.

    Raises
    ------
    OutputError
        An option needs another kind of file, or does not go with linking.
    """
    if linked and (target is None or blocks.requested):
        raise OutputError(
            "Objects are linked (--link) in a result of its own, made in one go: give an output, "
            "and leave out --resume, --scheduler and --block."
        )
    if target is None or is_output_location(target):
        return not linked
    if blocks.requested:
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
        job.output_location(model.name),
        settings,
        block=blocks.block,
        resume=blocks.resume,
        overwrite=overwrite,
        scheduler=blocks.scheduler,
    )
    result = yield from segment_blocks(request, model)
    return result.provenance


def _count_objects(steps: Any) -> Generator[Progress, None, tuple[dict[str, Any], int]]:
    """Pass the steps on; return the provenance and the most objects in any frame."""
    largest = 0

    def count(step: Progress) -> Progress:
        nonlocal largest
        if isinstance(step, FrameDone):
            largest = max(largest, step.objects)
        return step

    result = yield from map_steps(steps, count)
    return result.provenance, largest
