"""What a click means among the objects of the labels: begin, refine or correct one, or keep it.

Each action is a generator over a `ClickSession` that leaves the labels alone. It returns the change
that is to be made to them: in a window, layers are changed in the window's own thread.
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
from napari_unet.core.instances.mask import ObjectMask, connected_part, find_object, union
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
"""Masks of planes so far apart may be one object, if they overlap seen from above: one plane
between them may have been left out."""


@dataclass(frozen=True)
class Answer:
    """The result of an action.

    Attributes
    ----------
    change
        Of the labels. Whoever makes it calls `reset` next.
    source
        What the change is, for the journal.
    clicks
        Those that led to the change.
    again
        The action itself has to be repeated, after the change.
    moved
        False: undo or redo found nothing in the session, and is for the labels.
    """

    change: LabelEdit | None = None
    source: str = ""
    clicks: ClickSet = field(default_factory=ClickSet)
    again: bool = False
    moved: bool = True


Steps = Generator[Progress, None, Answer]
Action = Callable[["ClickSession"], Steps]


def can_grow(session: ClickSession) -> bool:
    """Return whether objects can be followed through planes: by a 2D model in a stack."""
    return session.model.spec.ndim == 2 and "Z" in session.stack.labels_axes


def take_click(
    session: ClickSession, click: Click, *, join: bool = False, grow: bool = False
) -> Steps:
    """Add a click to the active object, refine an object of the labels, or begin a new one.

    Without an active object, a click on an object of the labels refines it; elsewhere a new one
    begins. With one, a click corrects it; a click on another object of the labels, or one that
    would add a piece apart from it, keeps it and begins the next.

    Parameters
    ----------
    join
        The click belongs to the active object, wherever it is.
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
    """Begin with a box; an active object is kept first. Arguments as for `ClickSession.box`."""
    if session.shown.area:
        return replace((yield from keep(session, grow)), again=True)
    session.box(low, high)
    return Answer()


def take_stroke(session: ClickSession, clicks: Sequence[Click], *, grow: bool = False) -> Steps:
    """Begin with a stroke along an object; an active object is kept first.

    Parameters
    ----------
    clicks
        Places on the stroke, in one frame.
    grow
        See `keep`.

    Raises
    ------
    InputError
        One of them lies outside the image.
    """
    if session.shown.area:
        return replace((yield from keep(session, grow)), again=True)
    for done, click in enumerate(clicks):
        yield Progress(done, 0, "places")
        session.add(click)
    return Answer()


def keep(session: ClickSession, grow: bool = False) -> Steps:
    """Return the change that puts the active object into the labels.

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
    """Keep the active object, if there is one; then answer `END`. Arguments as for `keep`."""
    if session.shown.area:
        return replace((yield from keep(session, grow)), again=True)
    return Answer(source=END)


def grow_object(session: ClickSession) -> Steps:
    """Follow the active object through the neighbouring planes."""
    yield from session.grow()
    return Answer()


def undo(session: ClickSession) -> Steps:
    """Undo the last step on the active object."""
    answer = yield from _moved(session, session.undo)
    return replace(answer, source="undo")


def redo(session: ClickSession) -> Steps:
    """Redo the step on the active object that was undone.

    Raises
    ------
    InputError
        There is an active object, and no step on it to redo.
    """
    answer = yield from _moved(session, session.redo)
    return replace(answer, source="redo")


def reset(session: ClickSession) -> Steps:
    """Drop the active object."""
    yield from ()
    session.reset()
    return Answer()


def edit_objects(
    session: ClickSession, what: str, clicks: Sequence[Click], *, volume: bool = False
) -> Steps:
    """Split, merge or delete objects of the labels; an active object is kept first.

    Parameters
    ----------
    what
        `SPLIT`, `MERGE` or `DELETE` of `napari_unet.core.instances.label_edits`.
    clicks
        As many as `EDITS` there requires.
    volume
        Objects extend through planes; without it each plane has objects of its own.

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
    """Return the masks by frame after a click; None if that is late, or there is no answer.

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
            return {**shown.masks, index: part if there is None else union(there, part)}
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
        if before.masks:  # the labels' own history is for when there is no active object
            raise InputError("There is nothing to redo.")
        session.reset()  # steps that were undone earlier cannot be redone any more
    return Answer(moved=moved)


def _part_apart(
    session: ClickSession, before: ActiveObject, mask: ObjectMask, click: Click
) -> ObjectMask | None:
    """Return the piece at a click, if it is apart from the object before; None if it touches it.

    Parameters
    ----------
    mask
        The answer to the click, in its frame.
    """
    index, pixel = session.locate(click)
    part = connected_part(mask, pixel)
    if part is None:
        return None  # the place belongs to another object, which is protected
    letters = session.stack.labels_axes[: len(index)]
    near = [m for other, m in before.masks.items() if _is_near(other, index, letters)]
    touches = any((other.within(part.window) & part.inside).any() for other in near)
    return None if touches else part


def _is_near(one: Index, other: Index, letters: str) -> bool:
    pairs = zip(one, other, letters, strict=True)
    return all(abs(a - b) <= (GAP if letter == "Z" else 0) for a, b, letter in pairs)
