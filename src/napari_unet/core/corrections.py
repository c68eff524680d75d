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

from napari_unet.core.cuts import Cut, cuts_of
from napari_unet.core.edits import DROPPED, LABELS, Edit
from napari_unet.core.framesource import FrameSource
from napari_unet.core.heads import InstanceHead, SemanticHead
from napari_unet.core.journal import Journal
from napari_unet.core.journalbegin import JournalPlace, find_journals, identify
from napari_unet.core.known import frame_truth
from napari_unet.core.lineage import family
from napari_unet.core.samples import Sample, Samples
from napari_unet.core.spec import InputError, Progress, UnetError

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from napari_unet.core.stack import Stack

    Index = tuple[int, ...]

BUDGET = 2**27
"""Pixels of all samples together: about 4 GB of memory."""


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

    place: JournalPlace
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
        return self.place.begin.name


def list_corrections(model: str | os.PathLike[str] | None = None) -> Iterator[Correction]:
    """Yield a model's training set, the last one worked on first; it takes a while.

    Journals in which nothing was corrected are passed by, those that cannot be read have a
    `problem`.

    Parameters
    ----------
    model
        Name or path; None: every journal of this home.

    Raises
    ------
    ModelError
        There is no such model.
    """
    cards = [] if model is None else family(model)
    hashes, names = {card.hash for card in cards}, {card.name for card in cards}
    for place in find_journals():
        begin = place.begin
        belongs = begin.model_hash in hashes if begin.model_hash else begin.model in names
        if model is None or belongs:
            yield from _summary(place)


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


def cuts(
    corrections: Iterable[Correction],
    ndim: int,
    remarks: list[str],
    *,
    touched: bool = True,
    opened: Iterable[Stack] = (),
) -> Iterator[tuple[Correction, Cut]]:
    """Yield the parts of the images that teach something, as planes (2) or volumes (3).

    An image that cannot be used is passed by, with a sentence in `remarks`.
    """
    stacks = {identify(stack): stack for stack in opened}
    for correction in corrections:
        try:
            yield from ((correction, cut) for cut in _cuts(correction, ndim, touched, stacks))
        except UnetError as error:
            remarks.append(f"The corrections of {correction.name} are left out. {error}")


def _cuts(
    correction: Correction, ndim: int, touched: bool, stacks: dict[str, Stack]
) -> Iterator[Cut]:
    begin, found = correction.place.begin, False
    if ndim == 3 and "Z" not in begin.axes:
        raise InputError("They are planes; this model works on volumes.")
    source = FrameSource(begin, correction.place.path.parent, correction.path, stacks)
    with Journal.open(correction.place.path, write=False) as journal:
        for cut in cuts_of(journal, source, ndim, touched=touched):
            found = True
            yield cut
    if correction.frames and not found and source.stack is None:
        raise InputError("The image lay in memory only and was not kept; open it again.")


def to_samples(
    corrections: Sequence[Correction],
    head: InstanceHead | SemanticHead | None = None,
    *,
    ndim: int = 2,
    channels: int = 3,
    touched: bool = True,
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
    head, opened = head or InstanceHead(), tuple(opened)
    remarks: list[str] = []
    chosen = _Lottery(budget)
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        if (kind := _kind(head)) != correction.place.begin.head:
            remarks.append(
                f"The corrections of {correction.name} are left out. They are for a model with a "
                f"{correction.place.begin.head} head; this one's is {kind}."
            )
            continue
        for owner, cut in cuts([correction], ndim, remarks, touched=touched, opened=opened):
            chosen.add(f"{owner.place.path} {cut.index} {cut.window}", owner, cut)
    if chosen.left_out:
        remarks.append(f"{chosen.left_out} parts of the corrected images did not fit into memory.")
    items = []
    for owner, cut in chosen.tickets():
        if (problem := _class_problem(head, cut)) is not None:
            remarks.append(f"A part of the corrections of {owner.name} is left out. {problem}")
            continue
        items.append(_sample(owner, cut, head, channels))
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
        self._heap: list[tuple[int, str, Correction, Cut]] = []

    def add(self, name: str, owner: Correction, cut: Cut) -> None:
        """Take part with a cut, under a name that no other one has."""
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        heapq.heappush(self._heap, (-number, name, owner, cut))
        self.spent += cut.pixels
        while self.spent > self.budget and len(self._heap) > 1:
            *_, loser = heapq.heappop(self._heap)
            self.spent -= loser.pixels
            self.left_out += 1

    def tickets(self) -> Iterator[tuple[Correction, Cut]]:
        """Yield those that were drawn, by name."""
        for _, _, owner, cut in sorted(self._heap, key=lambda ticket: ticket[1]):
            yield owner, cut


def _sample(
    owner: Correction, cut: Cut, head: InstanceHead | SemanticHead, channels: int
) -> Sample:
    truth = cut.truth
    return Sample.of(
        cut.normalised(cut.stack.pick_channels(channels)),
        truth.labels,
        head,
        known=truth.known,
        group=_group(owner, cut),
        source=owner.place.begin.image,
        origin=tuple(span.start for span in cut.window),
        sketched=truth.sketched if truth.sketched.any() else None,
    )


def _class_problem(head: InstanceHead | SemanticHead, cut: Cut) -> str | None:
    most = int(cut.truth.labels[cut.truth.known].max(initial=0))
    if isinstance(head, SemanticHead) and most >= head.classes:
        return f"It has class {most}; the model knows 0 to {head.classes - 1}."
    return None


def _group(owner: Correction, cut: Cut) -> str:
    place = " ".join(map(str, cut.index))
    return f"{owner.name} {owner.place.begin.image[-8:]} [{place}]"


def _kind(head: InstanceHead | SemanticHead) -> str:
    return "semantic" if isinstance(head, SemanticHead) else "instance"


def _summary(place: JournalPlace) -> Iterator[Correction]:
    """Read a journal through; nothing is yielded if nothing was corrected in it."""
    try:
        with Journal.open(place.path, write=False) as journal:
            if not (touched := journal.frames()):
                return
            pixels: Counter[Index] = Counter()
            for plane in journal.frames(2):
                frame = plane[: len(journal.about.leading)]
                pixels[frame] += int(frame_truth(journal, plane).seen.sum())
            path = journal.about.path
            gone = bool(path) and not Path(path).exists()
            yield Correction(
                place=place,
                path=path,
                frames=tuple(frame for frame in touched if pixels[frame]),
                objects=sum(_objects(journal, frame) for frame in touched),
                pixels=pixels.total(),
                date=place.modified,
                dropped=any(mark.meaning == DROPPED for mark in journal.marks()),
                problem=f"Its image {path} is gone; put it back or open it." if gone else "",
            )
    except UnetError as error:
        yield Correction(place, place.begin.path, (), 0, 0, place.modified, False, str(error))


def _objects(journal: Journal, frame: Index) -> int:
    """Count the objects that were touched since the frame was dropped; of classes, the edits."""
    ids: list[int] = []
    for event in journal.history(frame):
        if isinstance(event, Edit):
            if event.canvas == LABELS:
                ids += [len(ids)] if journal.about.head == "semantic" else event.ids
        elif event.meaning == DROPPED and event.box == journal.box(frame):
            ids.clear()
    return len(set(ids))
