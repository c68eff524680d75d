"""Make a result again from its provenance, and say whether it is the same."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError, ModelError, UnetError
from napari_unet.core.evaluation.label_diff import diff_objects
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.files import check_exists, expand_path, image_exists, split_inner
from napari_unet.core.io.label_reader import fit_labels, read_labels
from napari_unet.core.io.ome_zarr import is_address
from napari_unet.core.io.provenance import are_labels, hash_stack, read_provenance
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.models.store import ModelEntry, list_models
from napari_unet.core.settings.tasks import EARLIER_DEFAULTS, LinkSettings, PredictSettings

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.progress import Progress
    from napari_unet.nn.inference.model import Model

IDENTICAL, RENAMED, DIFFERENT = "identical", "identical but for the objects' numbers", "different"


@dataclass(frozen=True)
class ReplayPlan:
    """What it takes to make a result again.

    Attributes
    ----------
    labels
        The result as it lies on the disk.
    provenance
        How it was made.
    stack
        The image.
    entry
        The model.
    strokes
        Corrections that were recorded since on labels of this image and model.
    reasons
        What is not as it was: the image, versions, the file itself.
    """

    labels: np.ndarray
    provenance: dict[str, Any]
    stack: Stack
    entry: ModelEntry
    strokes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ReplayResult:
    """What came of it.

    Attributes
    ----------
    verdict
        `IDENTICAL`, `RENAMED` or `DIFFERENT`.
    objects, before
        Number of objects now and in the result.
    pixels
        Share of the pixels that belong to other objects.
    same
        Objects that are the same pixel by pixel, or nearly so.
    reasons
        What may explain a difference.
    labels
        As they are now.
    """

    verdict: str
    objects: int
    before: int
    pixels: float
    same: int
    reasons: tuple[str, ...]
    labels: np.ndarray

    def line(self) -> str:
        """Return the verdict in a sentence."""
        if self.verdict != DIFFERENT:
            return f"{self.verdict}: {self.objects} objects, every pixel"
        return (
            f"different: {self.pixels:.3%} of the pixels; {self.same} of {self.before} objects are "
            f"the same, now there are {self.objects}"
        )


def plan_replay(
    result: Path, image: Path | str | None = None, axes: str | None = None
) -> ReplayPlan:
    """Find what a result was made with.

    Parameters
    ----------
    image
        The image or its address; None: the file of the recorded name beside the result, in the
        folder above or in the present one, or the OME-Zarr that the labels lie in.
    axes
        A letter for each axis of the image; None: as recorded, or the file's.

    Raises
    ------
    InputError
        The file is no result, or its image is not found.
    ModelError
        The model is not in the store.
    """
    result = expand_path(result)
    provenance = read_provenance(result)
    if "model_hash" not in provenance or "settings" not in provenance:
        raise InputError(f"{result} does not record how it was made; make it once more.")
    entry = find_by_hash(str(provenance["model_hash"]), str(provenance.get("model", "")))
    recorded = provenance.get("image") or {}
    place = image if image is not None else _find_image(result, str(recorded.get("name", "")))
    level, series = int(recorded.get("level") or 0), provenance.get("series")
    try:
        stack = open_stack(place, axes, level=level, series=series)
    except InputError:
        if series is None:
            raise
        series = None  # it is the one image itself, in a group of several
        stack = open_stack(place, axes, level=level)
    if axes is None and recorded.get("axes") not in (None, stack.axes):
        stack = open_stack(place, recorded["axes"], level=level, series=series)
    return plan_again(read_labels(result), provenance, stack, entry)


def plan_again(
    labels: np.ndarray, provenance: dict[str, Any], stack: Stack, entry: ModelEntry
) -> ReplayPlan:
    """Plan to make labels again that were made of a stack by a model of the store."""
    reasons = [*_other_data(provenance, stack), *_other_versions(provenance)]
    labels = fit_labels(labels, stack.labels_shape)  # a TIFF leaves out axes of one position
    wanted = provenance.get("labels_hash")
    if wanted is not None and not are_labels(labels, str(wanted)):
        reasons.append("the file's labels were changed since they were made")
    strokes = count_strokes(stack, entry)
    return ReplayPlan(labels, provenance, stack, entry, strokes, tuple(reasons))


def find_by_hash(model_hash: str, name: str) -> ModelEntry:
    """Return the model of the store whose weights have a hash.

    Raises
    ------
    ModelError
        There is none; the message says whether another one has its name.
    """
    entries = [entry for entry in list_models() if entry.card is not None]
    for entry in entries:
        if entry.card is not None and entry.card.hash == model_hash:
            return entry
    other = any(entry.name == name for entry in entries)
    there = f"; the model {name!r} of the store is another one" if other else ""
    raise ModelError(
        f"The result was made by the model {name!r} (SHA-256 {model_hash[:12]}), which is not in "
        f"the store{there}. Import it first."
    )


def _find_image(result: Path, name: str) -> Path:
    """Return the image of a result, by its recorded name."""
    if result.parent.name == "labels" and not is_address(str(result)):
        inside = result.parent.parent  # labels in the OME-Zarr of their image
        if (inside / "zarr.json").is_file() or (inside / ".zattrs").is_file():
            return inside
    folders = (result.absolute().parent, result.absolute().parent.parent, Path.cwd())
    for folder in folders:
        place = folder / name
        if name and image_exists(place) and not split_inner(place)[0].samefile(result):
            return place
    known = f"its image {name!r} is not beside it" if name else "it does not say of which image"
    raise InputError(f"{result} cannot be replayed: {known}; give the image as second argument.")


def _other_data(provenance: dict[str, Any], stack: Stack) -> list[str]:
    wanted = provenance.get("data_hash")
    if wanted is None or hash_stack(stack) == wanted:
        return []
    return ["the image is not the one that the result was made of (its values or axes differ)"]


def _other_versions(provenance: dict[str, Any]) -> list[str]:
    found = []
    for name, version in (provenance.get("versions") or {}).items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "missing"
        if here != version:
            found.append(f"{name} was {version}, is {here}")
    return found


def count_strokes(stack: Stack, entry: ModelEntry) -> int:
    """Count the corrections in effect on labels of an image that a model made."""
    wanted, total = entry.card.hash if entry.card else "", 0
    for file in find_journals(stack):
        if file.header.model_hash != wanted:
            continue
        try:
            with JournalReader(file.path) as reader:
                total += reader.undoable
        except UnetError:
            continue  # a damaged one says nothing
    return total


def replay_steps(plan: ReplayPlan, model: Model) -> Generator[Progress, None, ReplayResult]:
    """Make a result again; yield progress after each tile, and return what differs.

    Raises
    ------
    UnetError
        The image cannot be read or does not fit the model.
    """
    from napari_unet.nn.inference.linking import link_steps
    from napari_unet.nn.inference.segment import segment_steps

    known = {item.name for item in fields(PredictSettings)}
    recorded = EARLIER_DEFAULTS | plan.provenance["settings"]
    settings = PredictSettings(**{k: v for k, v in recorded.items() if k in known})
    stack = plan.stack
    done = yield from segment_steps(stack, model, settings)
    labels: np.ndarray = done.labels
    if link := plan.provenance.get("link"):
        yield from link_steps(
            labels,
            stack.labels_axes,
            LinkSettings(**link),
            out=labels,
            voxel_size_um=stack.voxel_size_um,
            image=stack.data if stack.axes == stack.labels_axes else None,
        )
    reasons = list(plan.reasons)
    for key, what in (("device", "device"), ("precision", "number format")):
        before, now = plan.provenance.get(key), done.provenance.get(key)
        if before is not None and before != now:
            reasons.append(f"the {what} was {before}, is {now} (it may round otherwise)")
    axes = stack.labels_axes
    inside = axes if link else str(done.provenance[OBJECT_AXES])  # tracks go through time
    leading = sum(letter not in inside for letter in axes)
    return compare(plan.labels, labels, tuple(reasons), leading)


def compare(
    before: np.ndarray, now: np.ndarray, reasons: tuple[str, ...] = (), leading: int = 0
) -> ReplayResult:
    """Compare a result with its replay.

    Parameters
    ----------
    leading
        How many axes count frames, each of which numbers its objects anew.
    """
    if before.shape != now.shape:
        more = f"the result is {before.shape}, the image gives {now.shape}"
        objects, old = (_count(labels, leading) for labels in (now, before))
        return ReplayResult(DIFFERENT, objects, old, 1.0, 0, (*reasons, more), now)
    objects, old = _count(now, leading), _count(before, leading)
    if np.array_equal(before, now):
        return ReplayResult(IDENTICAL, objects, old, 0.0, objects, (), now)
    frames = list(np.ndindex(before.shape[:leading]))
    if all(_is_renamed(before[index], now[index]) for index in frames):
        return ReplayResult(RENAMED, objects, old, 0.0, objects, (), now)
    same = 0
    for index in np.ndindex(before.shape[: max(leading, before.ndim - 3)]):
        same += diff_objects(before[index], now[index]).same
    differing = float(((before > 0) != (now > 0)).mean())
    kept = sum(_kept_pixels(before[index], now[index]) for index in frames)
    moved = max(differing, 1 - kept / before.size)
    return ReplayResult(DIFFERENT, objects, old, moved, same, reasons, now)


def _count(labels: np.ndarray, leading: int) -> int:
    """Count the objects of all frames."""
    frames = (labels[index] for index in np.ndindex(labels.shape[:leading]))
    return sum(len(np.unique(frame)) - int((frame == 0).any()) for frame in frames)


def _pairs(before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of labels (2, N) that pixels of a frame have, and how many have each."""
    return np.unique(
        np.stack([before.ravel(), now.ravel()]).astype(np.int64), axis=1, return_counts=True
    )


def _is_renamed(before: np.ndarray, now: np.ndarray) -> bool:
    """Return whether the objects of a frame are the same but for their numbers."""
    pairs, _ = _pairs(before, now)
    one_to_one = pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    return one_to_one and not ((pairs[0] == 0) ^ (pairs[1] == 0)).any()


def _kept_pixels(before: np.ndarray, now: np.ndarray) -> int:
    """Count the pixels of a frame that are in the object that most of theirs went to."""
    pairs, counts = _pairs(before, now)
    return sum(int(counts[pairs[0] == label].max()) for label in np.unique(pairs[0]))


def check_image(image: Path | str | None) -> Path | str | None:
    """Return the image as `plan_replay` takes it; raises InputError if it does not exist."""
    if image is None or is_address(str(image)):
        return None if image is None else str(image)
    path = expand_path(image)
    check_exists(path)
    return path
