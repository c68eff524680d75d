"""The same edit of all objects that are alike, worked out in a job's thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.alike.group_edits import RESHAPE, edit_all
from napari_unet.core.alike.result_file import ResultFile
from napari_unet.core.annotations.header import image_fingerprint
from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.instances.label_edits import SPLIT
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise
from napari_unet.gui.jobs.engine import KeptFeatures

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np

    from napari_unet.core.alike.descriptors import Candidate
    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.correct.alike_search import Alike, SearchedImage


@dataclass(eq=False)
class AlikeOutcome:
    """What the same edit of many objects came to; filled while it goes on.

    Attributes
    ----------
    edits
        Of layers, which are to be recorded in the window's thread.
    files
        Files that were changed, as they are now.
    done, left_out
        How many objects are edited, and how many cannot be.
    problems
        Images that were left out, a sentence each.
    left
        Files that are to be undone, and are not yet.
    """

    edits: list[tuple[SearchedImage, GroupEdit]] = field(default_factory=list)
    files: list[ResultFile] = field(default_factory=list)
    done: int = 0
    left_out: int = 0
    problems: list[str] = field(default_factory=list)
    left: list[ResultFile] = field(default_factory=list)

    def describe(self, done: str, images: int) -> str:
        """Say what came of it.

        Parameters
        ----------
        done
            What was done to the objects, such as "deleted".
        images
            How many were searched.
        """
        each = ", as one step" if images == 1 else ", as one step in each image"
        left = f" {self.left_out} could not be {done}." if self.left_out else ""
        words = [f"{pluralise(self.done, 'object')} {done}{each}.{left}"]
        if self.files:
            words.append(f"{pluralise(len(self.files), 'file')} changed.")
        return " ".join([*words, *self.problems[:3]])


def edit_alike(
    alike: Alike, chosen: Sequence[int], opened: Sequence[Stack], outcome: AlikeOutcome
) -> Generator[Progress, None, None]:
    """Work out the same edit of the chosen objects; files are changed, one after the other.

    Each file is changed as a whole or not at all; where it is closed, those before stay.

    Parameters
    ----------
    opened
        The images that are open: of one that was opened since it was searched, the file stays.

    Raises
    ------
    InputError
        The labels were changed since they were searched, or the model cannot do this.
    """
    if not alike.images[0].is_current():
        raise InputError("The labels were changed meanwhile; press A to look again.")
    by_image = [
        (image, [alike.items[place] for place in chosen if place in image.places])
        for image in alike.images
    ]
    for image, items in by_image:
        if items and image.recording is not None and image.recording.geometry is not None:
            geometry = image.recording.geometry
            labels = geometry.array(image.recording.data)
            edit = yield from _edit_image(alike, image, geometry.stack, labels, items)
            outcome.edits.append((image, edit))
    files = [(image, items) for image, items in by_image if items and image.file is not None]
    shown = {image_fingerprint(stack) for stack in opened} if files else set()
    for number, (image, items) in enumerate(files):
        yield Progress(number, len(files), "files")
        assert image.file is not None
        try:
            _, stack, values = ResultFile.read(image.file.source, image.file.target)
            if image_fingerprint(stack) in shown:
                raise InputError("it was opened meanwhile; press A to look again.")
            edit = yield from _edit_image(alike, image, stack, values, items)
            if edit.done:
                outcome.files.append(image.file.change(edit, f"{alike.kind} alike"))
        except UnetError as error:
            outcome.problems.append(f"{image.name}: {error}")
            continue
        outcome.done, outcome.left_out = outcome.done + edit.done, outcome.left_out + edit.left_out


def undo_files(
    files: Sequence[ResultFile], outcome: AlikeOutcome
) -> Generator[Progress, None, None]:
    """Take the last edit of files back, in their journals and in the files.

    Those that cannot be written, as on a full disk, stay in `outcome.left`, to be tried again.
    """
    for number, file in enumerate(files):
        yield Progress(number, len(files), "files")
        try:
            outcome.files.append(file.undo())
        except UnetError as error:
            outcome.problems.append(f"{file.source.name}: {error}")
            if isinstance(error, OutputError):
                continue
        outcome.left.remove(file)


def _edit_image(
    alike: Alike, image: SearchedImage, stack: Stack, labels: Any, items: Sequence[Candidate]
) -> Generator[Progress, None, GroupEdit]:
    """Work out the edit of objects of one image; splits and shapes are the network's."""
    query, kind = alike.query, alike.kind
    if kind not in (SPLIT, RESHAPE):
        return (yield from edit_all(labels, items, kind))
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.diameter_estimation import resolve_diameter
    from napari_unet.nn.inference.embeddings import StackFeatures
    from napari_unet.nn.interactive.mask_predictor import InitialMask, MaskPredictor

    model = loaded_model(query.model, query.device)
    if kind == RESHAPE and model.click is None:
        raise InputError(
            f"The model {model.name!r} has no click head, which reshapes objects; choose another."
        )
    kept = query.kept if image is alike.images[0] else KeptFeatures()
    settings, _ = resolve_diameter(stack, model, image.settings)
    features = StackFeatures(stack, model, settings, kept.open(model))

    def distance_map(index: Index, window: Window) -> np.ndarray | None:
        return features.at(index).read_distances(window) if model.has_features else None

    def reshape(item: Candidate) -> ObjectMask | None:
        from napari_unet.nn.interactive.active_object import click_on

        assert model.click is not None
        head, initial = model.click.ready(), InitialMask.from_model(model)
        return click_on(item.mask, MaskPredictor(features.at(item.index), head, initial))

    return (yield from edit_all(labels, items, kind, distance_map=distance_map, reshape=reshape))
