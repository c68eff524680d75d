"""Corrections as samples to train on, bounded in memory however much was annotated."""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING

from napari_unet.core.annotations.header import identify
from napari_unet.core.annotations.training_set import list_patches
from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.progress import Progress
from napari_unet.core.training.samples import Sample, Samples

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from napari_unet.core.annotations.patches import Patch
    from napari_unet.core.annotations.training_set import Correction
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index


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
    head, stacks = head or InstanceHead(), {identify(stack): stack for stack in opened}
    remarks: list[str] = []
    chosen = _Lottery(budget)
    for number, correction in enumerate(corrections):
        yield Progress(number, len(corrections), "images")
        kind, theirs = _kind(head), correction.place.begin.head
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
    return Sample.of(
        measured[frame](cut.image(picked)),
        truth.labels,
        head,
        known=truth.known,
        group=_group(owner, cut),
        source=owner.place.begin.image,
        origin=tuple(span.start for span in cut.window),
        sketched=truth.sketched if truth.sketched.any() else None,
    )


def _class_problem(head: InstanceHead | SemanticHead, cut: Patch) -> str | None:
    most = int(cut.truth.labels[cut.truth.known].max(initial=0))
    if isinstance(head, SemanticHead) and most >= head.classes:
        return f"It has class {most}; the model knows 0 to {head.classes - 1}."
    return None


def _group(owner: Correction, cut: Patch) -> str:
    place = " ".join(map(str, cut.index))
    return f"{owner.name} {owner.place.begin.image[-8:]} [{place}]"


def _kind(head: InstanceHead | SemanticHead) -> str:
    return "semantic" if isinstance(head, SemanticHead) else "instance"
