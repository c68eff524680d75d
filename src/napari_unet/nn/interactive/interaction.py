"""What a click among objects means: begin one, take one up, correct it, or go on to the next.

Each action is a generator that leaves the labels alone: it returns the change that is to be made to
them, by whoever shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.instances.label_edits import (
    MERGE,
    SPLIT,
    LabelEdit,
    merge_objects,
    remove_object,
    split_object,
)
from napari_unet.core.instances.mask import ObjectMask, find_object, joined, part_at
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.clicks import Click, ClickSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.interactive.active_object import ActiveObject
    from napari_unet.nn.interactive.session import ClickSession


END = "end"
"""The source of the answer that ends a session."""
GAP = 2
"""So many planes apart, two masks may be one object, if they overlap seen from above."""


@dataclass(frozen=True)
class Answer:
    """What came of an action.

    Attributes
    ----------
    change
        Of the labels. Whoever makes it does `reset` next.
    source
        What the change is, for the journal.
    clicks
        Those that the change is the answer to.
    again
        The action itself is still to be done, after the change.
    moved
        Whether undo or redo found something in the session.
    """

    change: LabelEdit | None = None
    source: str = ""
    clicks: ClickSet = field(default_factory=ClickSet)
    again: bool = False
    moved: bool = True


Steps = Generator[Progress, None, Answer]
Action = Callable[["ClickSession"], Steps]


def can_grow(session: ClickSession) -> bool:
    """Tell whether objects are followed through planes: those of a 2D model in a stack."""
    return session.model.spec.ndim == 2 and "Z" in session.stack.labels_axes


def take_click(
    session: ClickSession, click: Click, *, join: bool = False, grow: bool = False
) -> Steps:
    """Take a click in.

    Without an object at hand, a click on one of the labels takes it up as it is; elsewhere a new
    one begins. With one, a click corrects it; one that lies on another object of the labels, or
    would give a piece that does not hang together with it, keeps it and goes on to the next.

    Parameters
    ----------
    join
        The click belongs to the object at hand, wherever it is.
    grow
        See `keep`.

    Raises
    ------
    InputError
        The click lies outside the image, a first one is negative, or there is no object to keep.
    """
    label, shown = _label_at(session, click), session.shown
    if not session.shown.area:
        if label:
            session.refine(click.place)
        if not label or not click.positive:
            session.add(click)
        return Answer()
    others = click.positive and not join
    if others and label not in (0, shown.label) and not session.overwrite:
        return replace((yield from keep(session, grow)), again=True)
    session.add(click)
    answer = session.shown.masks[session.locate(click)[0]]
    if others and _part_apart(session, shown, answer, click) is not None:
        session.undo()
        return replace((yield from keep(session, grow)), again=True)
    return Answer()


def take_box(
    session: ClickSession, low: Sequence[float], high: Sequence[float], *, grow: bool = False
) -> Steps:
    """Begin with a box; an object at hand is kept first. Arguments as for `ClickSession.box`."""
    if session.shown.area:
        return replace((yield from keep(session, grow)), again=True)
    session.box(low, high)
    return Answer()


def keep(session: ClickSession, grow: bool = False) -> Steps:
    """Return the change that puts the object at hand into the labels.

    Parameters
    ----------
    grow
        A new object is followed through the neighbouring planes first, unless it was already.

    Raises
    ------
    InputError
        There is no object, or nothing is left of it beside others.
    """
    if not session.shown.area:
        raise InputError("There is no object to keep; click on one first.")
    shown = session.shown
    if grow and shown.label is None and not shown.grown and can_grow(session):
        yield from session.grow()
    source = "click" if shown.label is None else "refine"
    return Answer(session.proposal(), source, shown.clicks)


def finish(session: ClickSession, grow: bool = False) -> Steps:
    """Keep the object at hand, if there is one; then answer `END`. Arguments as for `keep`."""
    if session.shown.area:
        return replace((yield from keep(session, grow)), again=True)
    return Answer(source=END)


def grow_object(session: ClickSession) -> Steps:
    """Follow the object at hand through the neighbouring planes."""
    yield from session.grow()
    return Answer()


def undo(session: ClickSession) -> Steps:
    """Take the last step on the object at hand back."""
    answer = yield from _moved(session, session.undo)
    return replace(answer, source="undo")


def redo(session: ClickSession) -> Steps:
    """Do the step on the object at hand again that was taken back.

    Raises
    ------
    InputError
        There is an object at hand, and no step on it to do again.
    """
    answer = yield from _moved(session, session.redo)
    return replace(answer, source="redo")


def reset(session: ClickSession) -> Steps:
    """Drop the object at hand."""
    yield from ()
    session.reset()
    return Answer()


def edit_objects(
    session: ClickSession, what: str, clicks: Sequence[Click], *, volume: bool = False
) -> Steps:
    """Divide, join or delete objects of the labels; an object at hand is kept first.

    Parameters
    ----------
    what
        `SPLIT`, `MERGE` or `DELETE` of `napari_unet.core.instances.label_edits`.
    clicks
        As many as its `EDITS` says.
    volume
        Objects reach through planes; without it they are told apart plane by plane.

    Raises
    ------
    InputError
        The clicks do not lie on objects, or not in one plane (volume).
    """
    if session.shown.area:
        return replace((yield from keep(session)), again=True)
    for click in clicks:
        session.locate(click)
    axes, labels = session.stack.labels_axes, session.labels
    leading = len(axes) - (3 if volume and "Z" in axes else 2)
    index = clicks[0].pixel[:leading]
    if any(click.pixel[:leading] != index for click in clicks):
        raise InputError("The two clicks lie in different slices or frames; click in one of them.")
    places = [click.pixel[leading:] for click in clicks]
    if what == SPLIT:
        yield Progress(0, 0, "splitting")

        def distances(window: Window) -> np.ndarray | None:
            # A 2D model sees nothing of an object of a volume: that is divided by its shape alone.
            if len(window) != session.model.spec.ndim:
                return None
            return session.predictor(index).features.read_distances(window)

        change = split_object(labels, places[0], places[1], index, distances)
    elif what == MERGE:
        change = merge_objects(labels, places[0], places[1], index)
    else:
        change = remove_object(labels, places[0], index)
    return Answer(change, what, ClickSet(tuple(clicks)))


def preview(
    session: ClickSession, click: Click, *, join: bool = False
) -> Generator[Progress, None, Mapping[Index, ObjectMask] | None]:
    """Return what would be seen after a click; None if that is late, or there is no answer.

    Arguments as for `take_click`. Where the click would begin another object, both are returned.
    """
    label, shown = _label_at(session, click), session.shown
    others = click.positive and not join
    if not session.shown.area:
        if label:
            index, pixel = session.locate(click)
            return {index: find_object(session.labels, pixel, index)[1]}
        if not click.positive:
            return None
    elif others and label not in (0, shown.label) and not session.overwrite:
        return shown.masks  # it would be kept as it is
    yield Progress(0, 0, "preview")
    masks = session.preview(click)
    if masks is not None and others and session.shown.area:
        index, _ = session.locate(click)
        if (part := _part_apart(session, shown, masks[index], click)) is not None:
            there = shown.masks.get(index)
            return {**shown.masks, index: part if there is None else joined(there, part)}
    return masks


def _label_at(session: ClickSession, click: Click) -> int:
    index, pixel = session.locate(click)
    return int(np.asarray(session.labels[(*index, *pixel)]))


def _moved(session: ClickSession, move: Callable[[], object]) -> Steps:
    before = session.shown
    yield from ()
    move()
    moved = session.shown is not before
    if not moved:
        if before.masks:  # the labels' turn comes when nothing is at hand
            raise InputError("There is nothing to redo.")
        session.reset()  # what was taken back earlier is no more to be done again
    return Answer(moved=moved)


def _part_apart(
    session: ClickSession, before: ActiveObject, mask: ObjectMask, click: Click
) -> ObjectMask | None:
    """Return the piece at a click, if it does not touch what there was before; None if it does.

    Parameters
    ----------
    mask
        The answer to the click, in its frame.
    """
    index, pixel = session.locate(click)
    part = part_at(mask, pixel)
    if part is None:
        return None  # the place belongs to another object, which is protected
    letters = session.stack.labels_axes[: len(index)]
    near = [m for other, m in before.masks.items() if _is_near(other, index, letters)]
    touches = any((other.within(part.window) & part.inside).any() for other in near)
    return None if touches else part


def _is_near(one: Index, other: Index, letters: str) -> bool:
    pairs = zip(one, other, letters, strict=True)
    return all(abs(a - b) <= (GAP if letter == "Z" else 0) for a, b, letter in pairs)
