"""A model's training set: what was corrected on all images on which the user worked with it.

It is read from the journals; nothing is kept twice. A journal belongs to a model if its beginning
names the model, one of its ancestors or one of its descendants.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.core.annotations.edits import DROPPED, LABELS, Edit
from napari_unet.core.annotations.header import JournalFile, find_journals, image_fingerprint
from napari_unet.core.annotations.image_source import ImageSource
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.annotations.patches import extract_patches
from napari_unet.core.annotations.reader import JournalReader
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.models.store import get_family
from napari_unet.core.progress import Progress
from napari_unet.core.training.samples import Sample, Samples

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from napari_unet.core.annotations.patches import Patch
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index


@dataclass(frozen=True)
class Correction:
    """The corrections of one image with one labels layer: a row of the training set.

    Attributes
    ----------
    place
        The journal, and what it begins with: the image's name, the model.
    path
        Where the image lies; "" if it lay in memory only.
    frames
        Frames that teach something, by their index along the leading axes.
    objects
        Objects that were edited, added, deleted or confirmed; where labels are classes, edits.
    pixels
        Pixels that are known or sketched.
    date
        Of the last correction, in seconds since 1970.
    dropped
        The user withdrew all of it (or some of it, where `frames` is not empty).
    problem
        Why it cannot be trained on, in a sentence; "" if it can.
    """

    place: JournalFile
    path: str
    frames: tuple[Index, ...]
    objects: int
    pixels: int
    date: float
    dropped: bool
    problem: str = ""

    @property
    def name(self) -> str:
        """The image's name."""
        return self.place.header.name


def list_corrections(
    model: str | os.PathLike[str] | None = None, *, earlier: Iterable[Correction] = ()
) -> Iterator[Correction]:
    """Yield a model's training set, the last one worked on first; it takes a while.

    Journals in which nothing was corrected are passed by, those that cannot be read have a
    `problem`.

    Parameters
    ----------
    model
        Name or path; None: every journal of this home.
    earlier
        What was listed before: journals that have not changed since are not read again.

    Raises
    ------
    ModelError
        There is no such model.
    """
    cards = [] if model is None else get_family(model)
    hashes, names = {card.hash for card in cards}, {card.name for card in cards}
    read = {(row.place.path, row.date): row for row in earlier if not row.problem}
    for place in find_journals():
        header = place.header
        belongs = header.model_hash in hashes if header.model_hash else header.model in names
        if model is None or belongs:
            row = read.get((place.path, place.modified))
            yield from _summary(place) if row is None else (row,)


def drop(
    correction: Correction, index: Index | None = None, *, journal: Journal | None = None
) -> None:
    """Withdraw a correction, or one of its frames, from every training set.

    The journal and its labels stay; what is corrected there later counts again.

    Parameters
    ----------
    journal
        The correction's journal, where this program has it open for writing.

    Raises
    ------
    InputError
        The journal is open in another window, or gone.
    OutputError
        It cannot be written.
    """
    frames = correction.frames if index is None else (index,)
    if journal is None:
        with Journal.open(correction.place.path) as opened:
            drop(correction, index, journal=opened)
        return
    for frame in frames:
        journal.mark(DROPPED, frame)


def list_patches(
    corrections: Iterable[Correction],
    ndim: int,
    remarks: list[str],
    *,
    touched: bool = True,
    classes: bool | None = None,
    opened: Iterable[Stack] | dict[str, Stack] = (),
) -> Iterator[tuple[Correction, Patch]]:
    """Yield the parts of the images that teach something, as planes (2) or volumes (3).

    An image that cannot be used is passed by, with a sentence in `remarks`. The stacks in `opened`
    may be given by what `image_fingerprint` says of them, which takes a while to find out.
    """
    stacks = (
        opened
        if isinstance(opened, dict)
        else {image_fingerprint(stack): stack for stack in opened}
    )
    for correction in corrections:
        try:
            yield from (
                (correction, cut) for cut in _cuts(correction, ndim, touched, classes, stacks)
            )
        except UnetError as error:
            remarks.append(f"The corrections of {correction.name} are left out. {error}")


def _cuts(
    correction: Correction,
    ndim: int,
    touched: bool,
    classes: bool | None,
    stacks: dict[str, Stack],
) -> Iterator[Patch]:
    header, found = correction.place.header, False
    if ndim == 3 and "Z" not in header.axes:
        raise InputError("They are planes; this model works on volumes.")
    source = ImageSource(header, correction.place.path.parent, correction.path, stacks)
    with JournalReader(correction.place.path) as journal:
        for cut in extract_patches(journal, source, ndim, touched=touched, classes=classes):
            found = True
            yield cut
    if correction.frames and not found and source.stack is None:
        raise InputError("The image lay in memory only and was not kept; open it again.")


def _summary(place: JournalFile) -> Iterator[Correction]:
    """Read a journal through; nothing is yielded if nothing was corrected in it."""
    date = place.modified  # before it is read: what is written meanwhile counts as newer
    try:
        with JournalReader(place.path) as journal:
            if not (touched := journal.frames()):
                return
            pixels: Counter[Index] = Counter()
            for plane in journal.frames(2):
                frame = plane[: len(journal.header.leading)]
                pixels[frame] += int(read_annotation_mask(journal, plane).seen.sum())
            path = journal.header.path
            gone = bool(path) and not Path(path).exists()
            yield Correction(
                place=place,
                path=path,
                frames=tuple(frame for frame in touched if pixels[frame]),
                objects=sum(_objects(journal, frame) for frame in touched),
                pixels=pixels.total(),
                date=date,
                dropped=any(mark.meaning == DROPPED for mark in journal.marks()),
                problem=f"Its image {path} is gone; put it back or open it." if gone else "",
            )
    except UnetError as error:
        yield Correction(place, place.header.path, (), 0, 0, date, False, str(error))


def _objects(journal: JournalReader, frame: Index) -> int:
    """Count the objects that were touched since the frame was dropped; of classes, the edits."""
    ids: list[int] = []
    for event in journal.history(frame):
        if isinstance(event, Edit):
            if event.canvas == LABELS:
                ids += [len(ids)] if journal.header.head == "semantic" else event.ids
        elif event.meaning == DROPPED and event.box == journal.box(frame):
            ids.clear()
    return len(set(ids))


BUDGET = 2**27
"""Pixels of all samples together: about 4 GB of memory."""
_WHAT = {"instance": "objects", "semantic": "classes"}


def to_samples(
    corrections: Sequence[Correction],
    head: InstanceHead | SemanticHead | None = None,
    *,
    ndim: int = 2,
    channels: int = 3,
    touched: bool = True,
    as_classes: bool = False,
    opened: Iterable[Stack] = (),
    budget: int = BUDGET,
) -> Generator[Progress, None, tuple[Samples, list[str]]]:
    """Gather samples to train on, bounded in memory.

    Parameters
    ----------
    corrections
        Of `list_corrections`.
    head
        Whose targets to compute; an instance head if not given.
    ndim, channels
        Of the network: 2 for planes, 3 for volumes; input channels.
    touched
        Whether what was touched is known, or only marks and scribbles count.
    as_classes
        For a semantic head: labels that were recorded as objects are taken for classes, because the
        user says so.
    opened
        As for `list_corrections`.
    budget
        Pixels of all samples together. Where there are more, a part is drawn, the same each time.

    Yields
    ------
    Progress
        Of corrections.

    Returns
    -------
    Samples, list of str
        Samples whose `group` is image and frame, and whose `source` and `origin` are the image and
        the place in it, so that a validation set can be held out without leaks; and a sentence for
        each image that was left out.

    Raises
    ------
    InputError
        Nothing is left to train on.
    """
    head, stacks = head or InstanceHead(), {image_fingerprint(stack): stack for stack in opened}
    remarks: list[str] = []
    chosen = _Lottery(budget)
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        kind, theirs = _kind(head), correction.place.header.head
        if kind != theirs and not (as_classes and kind == "semantic"):
            remarks.append(
                f"The corrections of {correction.name} are left out. They were made of "
                f"{_WHAT[theirs]}; this model finds {_WHAT[kind]}."
            )
            continue
        found = list_patches(
            [correction], ndim, remarks, touched=touched, classes=kind == "semantic", opened=stacks
        )
        for owner, cut in found:
            yield Progress(number, len(corrections), "images")
            chosen.add(f"{owner.place.path} {cut.index} {cut.window}", owner, cut)
    if chosen.left_out:
        remarks.append(f"{chosen.left_out} parts of the corrected images did not fit into memory.")
    items: list[Sample] = []
    measured: dict[tuple[Path, Index], Normaliser] = {}
    for owner, cut in chosen.tickets():
        yield Progress(len(corrections), len(corrections), "images")
        if (problem := _class_problem(head, cut)) is not None:
            remarks.append(f"A part of the corrections of {owner.name} is left out. {problem}")
            continue
        items.append(_sample(owner, cut, head, channels, measured))
    yield Progress(len(corrections), len(corrections), "images")
    if not items:
        why = f" {remarks[0]}" if remarks else ""
        raise InputError(
            "There are no corrections to learn from; correct some objects, or mark a frame or box "
            f"as checked.{why}"
        )
    return Samples(items, head), remarks


class _Lottery:
    """Draws cuts until the budget of pixels is spent; their order does not matter."""

    def __init__(self, budget: int) -> None:
        self.budget, self.spent, self.left_out = budget, 0, 0
        self._heap: list[tuple[int, str, Correction, Patch]] = []

    def add(self, name: str, owner: Correction, cut: Patch) -> None:
        """Take part with a cut, under a name that no other one has."""
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        heapq.heappush(self._heap, (-number, name, owner, cut))
        self.spent += cut.pixels
        while self.spent > self.budget and len(self._heap) > 1:
            *_, loser = heapq.heappop(self._heap)
            self.spent -= loser.pixels
            self.left_out += 1

    def tickets(self) -> Iterator[tuple[Correction, Patch]]:
        """Yield those that were drawn, by name."""
        for _, _, owner, cut in sorted(self._heap, key=lambda ticket: ticket[1]):
            yield owner, cut


def _sample(
    owner: Correction,
    cut: Patch,
    head: InstanceHead | SemanticHead,
    channels: int,
    measured: dict[tuple[Path, Index], Normaliser],
) -> Sample:
    truth, frame = cut.truth, (owner.place.path, cut.index)
    picked = cut.stack.pick_channels(channels)
    if frame not in measured:
        measured[frame] = cut.normaliser(picked)
    return Sample.from_image(
        measured[frame](cut.image(picked)),
        truth.labels,
        head,
        known=truth.known,
        group=_group(owner, cut),
        source=owner.place.header.image,
        origin=tuple(span.start for span in cut.window),
        scribbled=truth.scribbled if truth.scribbled.any() else None,
    )


def _class_problem(head: InstanceHead | SemanticHead, cut: Patch) -> str | None:
    most = int(cut.truth.labels[cut.truth.known].max(initial=0))
    if isinstance(head, SemanticHead) and most >= head.classes:
        return f"It has class {most}; the model knows 0 to {head.classes - 1}."
    return None


def _group(owner: Correction, cut: Patch) -> str:
    place = " ".join(map(str, cut.index))
    return f"{owner.name} {owner.place.header.image[-8:]} [{place}]"


def _kind(head: InstanceHead | SemanticHead) -> str:
    return "semantic" if isinstance(head, SemanticHead) else "instance"
