"""A model's training set: samples made of the corrections of all images, in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING

from napari_unet.core.annotations.header import image_fingerprint
from napari_unet.core.annotations.image_source import ImageSource
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.patches import extract_patches
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.labels.object_check import PER_OBJECT, mask_pieces
from napari_unet.core.progress import Progress
from napari_unet.core.training.samples import Samples
from napari_unet.core.training.training_sample import Sample

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from napari_unet.core.annotations.corrections import Correction
    from napari_unet.core.annotations.patches import Patch
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index

PIXEL_BUDGET = 2**27
"""Pixels of all samples together: about 4 GB of memory."""
_CONTENT = {"instance": "objects", "semantic": "classes"}


def list_patches(
    corrections: Iterable[Correction],
    ndim: int,
    remarks: list[str],
    *,
    touched: bool = True,
    classes: bool | None = None,
    opened: Iterable[Stack] | dict[str, Stack] = (),
) -> Iterator[tuple[Correction, Patch]]:
    """Yield the patches of corrected images, as planes (2) or volumes (3).

    An image that cannot be used is skipped, with a sentence added to `remarks`. The stacks in
    `opened` may be given by their fingerprint, which takes a while to compute.
    """
    if isinstance(opened, dict):
        stacks = opened
    else:
        stacks = {image_fingerprint(stack): stack for stack in opened}
    for correction in corrections:
        try:
            for patch in _patches(correction, ndim, touched, classes, stacks):
                yield correction, patch
        except UnetError as error:
            remarks.append(f"The corrections of {correction.name} are left out. {error}")


def to_samples(
    corrections: Sequence[Correction],
    head: InstanceHead | SemanticHead | None = None,
    *,
    ndim: int = 2,
    channels: int = 3,
    touched: bool = True,
    as_classes: bool = False,
    opened: Iterable[Stack] = (),
    budget: int = PIXEL_BUDGET,
) -> Generator[Progress, None, tuple[Samples, list[str]]]:
    """Gather samples to train on, bounded in memory however much was annotated.

    Parameters
    ----------
    corrections
        Of `list_corrections`.
    head
        Whose targets to compute; an instance head if not given.
    ndim, channels
        Of the network: 2 for planes, 3 for volumes; input channels.
    touched
        Whether what was touched is known; otherwise only marks and scribbles count.
    as_classes
        For a semantic head: labels that were recorded as objects are taken for classes, as the user
        asks for it.
    opened
        Stacks that are open in the window: images that lie in no file are read from them.
    budget
        Pixels of all samples together. If there are more, some are drawn, the same each time.

    Yields
    ------
    Progress
        Of corrections.

    Returns
    -------
    Samples, list of str
        Samples whose `group` is image and frame, and whose `source` and `origin` are the image and
        the position in it, so that a validation set can be held out without leaks; and a sentence
        for each image that was left out, or whose labels look like a mask.

    Raises
    ------
    InputError
        Nothing is left to train on.
    """
    head = head or InstanceHead()
    stacks = {image_fingerprint(stack): stack for stack in opened}
    content = _CONTENT["semantic" if isinstance(head, SemanticHead) else "instance"]
    remarks: list[str] = []
    draw = _PatchDraw(budget)
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        recorded = _CONTENT[correction.journal.header.head]
        if content != recorded and not (as_classes and content == "classes"):
            remarks.append(
                f"The corrections of {correction.name} are left out. They were made of "
                f"{recorded}; this model finds {content}."
            )
            continue
        found = list_patches(
            [correction], ndim, remarks, touched=touched, classes=content == "classes",
            opened=stacks,
        )  # fmt: skip
        for owner, patch in found:
            yield Progress(number, len(corrections), "images")
            draw.add(f"{owner.journal.path} {patch.index} {patch.window}", owner, patch)
    if draw.left_out:
        remarks.append(f"{draw.left_out} parts of the corrected images did not fit into memory.")
    items: list[Sample] = []
    normalisers: dict[tuple[Path, Index], Normaliser] = {}
    for owner, patch in draw.chosen():
        yield Progress(len(corrections), len(corrections), "images")
        if (problem := _class_problem(head, patch)) is not None:
            remarks.append(f"A part of the corrections of {owner.name} is left out. {problem}")
            continue
        if content == "objects" and (doubt := _mask_doubt(owner, patch)) not in remarks:
            remarks.extend(filter(None, [doubt]))
        items.append(_to_sample(owner, patch, head, channels, normalisers))
    yield Progress(len(corrections), len(corrections), "images")
    if not items:
        why = f" {remarks[0]}" if remarks else ""
        raise InputError(
            "There are no corrections to learn from; correct some objects, or mark a frame or box "
            f"as checked.{why}"
        )
    return Samples(items, head), remarks


class _PatchDraw:
    """Draws patches until the pixel budget is spent, whatever order they come in.

    Each patch draws a number, the hash of its name; those with the smallest numbers are kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.spent, self.left_out = budget, 0, 0
        self._heap: list[tuple[int, str, Correction, Patch]] = []

    def add(self, name: str, owner: Correction, patch: Patch) -> None:
        """Add a patch, under a name that no other one has."""
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        heapq.heappush(self._heap, (-number, name, owner, patch))
        self.spent += patch.pixels
        while self.spent > self.budget and len(self._heap) > 1:
            *_, removed = heapq.heappop(self._heap)
            self.spent -= removed.pixels
            self.left_out += 1

    def chosen(self) -> Iterator[tuple[Correction, Patch]]:
        """Yield the patches that were drawn, by name."""
        for _, _, owner, patch in sorted(self._heap, key=lambda entry: entry[1]):
            yield owner, patch


def _to_sample(
    owner: Correction,
    patch: Patch,
    head: InstanceHead | SemanticHead,
    channels: int,
    normalisers: dict[tuple[Path, Index], Normaliser],
) -> Sample:
    """Build a sample of a patch; a frame's normaliser is measured once for all of its patches."""
    header, mask, frame = owner.journal.header, patch.mask, (owner.journal.path, patch.index)
    picked = patch.stack.pick_channels(channels, header.channel)
    if frame not in normalisers:
        normalisers[frame] = patch.normaliser(picked)
    return Sample.from_image(
        normalisers[frame](patch.image(picked)),
        mask.labels,
        head,
        known=mask.known,
        group=f"{owner.name} {header.image[-8:]} [{' '.join(map(str, patch.index))}]",
        source=header.image,
        origin=tuple(span.start for span in patch.window),
        scribbled=mask.scribbled if mask.scribbled.any() else None,
        assumed=mask.assumed if mask.assumed.any() else None,
        voxel_size_um=patch.stack.voxel_size_um,
    )


def _class_problem(head: InstanceHead | SemanticHead, patch: Patch) -> str | None:
    highest = int(patch.mask.labels[patch.mask.known].max(initial=0))
    if isinstance(head, SemanticHead) and highest >= head.classes:
        return f"It has class {highest}; the model knows 0 to {head.classes - 1}."
    return None


def _mask_doubt(owner: Correction, patch: Patch) -> str:
    """Return a remark if labels look like a mask; an object may lie in a few pieces, or be cut."""
    labels = patch.mask.labels
    if mask_pieces(labels, "ZYX"[-labels.ndim :], labels.ndim) <= PER_OBJECT:
        return ""
    return (
        f"{owner.name} has one object in many pieces, as in a mask; if each is an object, number "
        "them: napari-unet convert --labels-as components."
    )


def _patches(
    correction: Correction,
    ndim: int,
    touched: bool,
    classes: bool | None,
    stacks: dict[str, Stack],
) -> Iterator[Patch]:
    header, found = correction.journal.header, False
    if ndim == 3 and "Z" not in header.axes:
        raise InputError("They are planes; this model works on volumes.")
    source = ImageSource(header, correction.journal.path.parent, correction.path, stacks)
    with JournalReader(correction.journal.path) as journal:
        for patch in extract_patches(journal, source, ndim, touched=touched, classes=classes):
            found = True
            yield patch
    if correction.frames and not found and source.stack is None:
        raise InputError("The image lay in memory only and was not kept; open it again.")
