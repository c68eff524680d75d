"""Segment a list of images, one after the other; a file that fails does not end the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.batch.file_job import BlockOptions, is_batch, segment_file, without_parts
from napari_unet.core.errors import UnetError
from napari_unet.core.io.files import check_exists, list_images
from napari_unet.core.io.provenance import differing_settings, hash_stack, read_provenance
from napari_unet.core.progress import Progress, map_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from napari_unet.batch.file_job import FileJob
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.inference.model import Model

logger = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class FileProgress(Progress):
    """Progress or result of one file of a list.

    Attributes
    ----------
    number
        Index of the file in the list.
    state
        "running", "done" or "failed".
    objects
        Number of objects, when it is done.
    reason
        Reason of the failure.
    remarks
        What is unusual about the image.
    """

    number: int = 0
    state: str = RUNNING
    objects: int = 0
    reason: str = ""
    remarks: tuple[str, ...] = ()


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List images, and those in folders, each once; an image in several files by its first.

    Raises
    ------
    InputError
        A path does not exist, or a folder holds no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        check_exists(path)
        listed = without_parts(list_images(path))[0] if is_batch(path) else [path]
        found |= dict.fromkeys(listed)
    return list(found)


def find_finished(
    job: FileJob, card: ModelCard, settings: PredictSettings
) -> dict[str, Any] | None:
    """Return the provenance of labels that this model made with these settings of this image.

    None if they are missing, unfinished, made otherwise, or the image has changed since.
    """
    if job.target is None or not job.target.exists():
        return None
    try:
        provenance = read_provenance(job.target)
        if provenance.get("failed_blocks") or job.is_unfinished:
            return None
        if any(differing_settings(provenance, card.hash, settings)):
            return None
        same = provenance.get("data_hash") == hash_stack(job.open())
    except UnetError:
        return None
    return provenance if same else None


def batch_steps(
    jobs: Sequence[FileJob],
    card: ModelCard,
    load: Callable[[], Model],
    settings: PredictSettings,
    overwrite: bool = False,
) -> Generator[FileProgress, None, None]:
    """Segment files; yield progress after each tile and each file.

    Closing the generator ends the run after the current tile: finished files stay, and of the
    current one nothing, or the finished blocks of a Zarr. Files that are finished already are
    skipped, so that running again goes on where it ended.

    Parameters
    ----------
    card, load
        The model's card, and a function that loads the model, called for the first unfinished file.
    overwrite
        Whether labels that were made otherwise are replaced.

    Raises
    ------
    UnetError
        The model cannot be loaded. Errors of files are yielded.
    """
    model: Model | None = None
    for number, job in enumerate(jobs):
        yield FileProgress(0, 0, "looking at the file", number)
        provenance = find_finished(job, card, settings)
        if provenance is None:
            if model is None:
                yield FileProgress(0, 0, "loading the model", number)
                model = load()
            try:
                provenance = yield from _segment(job, number, model, settings, overwrite)
            except Exception as error:  # nothing that one file does ends the run of the others
                yield FileProgress(0, 0, "files", number, FAILED, reason=_reason(error))
                continue
        if empty := len(provenance.get("failed_blocks", ())):
            reason = f"{empty} blocks could not be read and are empty; run again to try them."
            yield FileProgress(1, 1, "files", number, FAILED, reason=reason)
            continue
        yield FileProgress(1, 1, "files", number, DONE, int(provenance.get("objects", 0)))


def _segment(
    job: FileJob, number: int, model: Model, settings: PredictSettings, overwrite: bool
) -> Generator[FileProgress, None, dict[str, Any]]:
    from napari_unet.nn.blockwise.plan import OtherRunError

    options = BlockOptions(resume=job.is_unfinished)
    steps = segment_file(job, model, settings, overwrite=overwrite, blocks=options)
    try:
        return (yield from _file_progress(steps, number))
    except OtherRunError:  # an unfinished run of another image, model or settings is replaced
        if job.target is not None and job.target.exists() and not overwrite:
            raise
    return (yield from _file_progress(segment_file(job, model, settings, overwrite=True), number))


def _file_progress(steps: Any, number: int) -> Generator[FileProgress, None, dict[str, Any]]:
    """Yield the steps as records of a file; remarks on it stay in those that follow."""
    remarks: tuple[str, ...] = ()

    def record(step: Any) -> FileProgress:
        nonlocal remarks
        remarks += tuple(remark.text for remark in getattr(step, "remarks", ()))
        return FileProgress(step.done, step.total, step.what, number, remarks=remarks)

    provenance: dict[str, Any] = yield from map_steps(steps, record)
    return provenance


def _reason(error: Exception) -> str:
    """Return why a file failed, in one line; unforeseen errors are logged with their traceback."""
    if isinstance(error, UnetError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this image."
    logger.error("a file failed", exc_info=error)
    return f"{type(error).__name__}: {error}"
