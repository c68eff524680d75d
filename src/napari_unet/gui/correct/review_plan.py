"""A review of labels: what there is to look at, in which order, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.alike.descriptors import Candidate, describe_objects, object_masks
from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask
from napari_unet.core.progress import Progress
from napari_unet.core.review.gain import NetworkSigns, expected_gain, gain_signs
from napari_unet.core.review.order import OBJECT, PLACE, ReviewItem, ReviewOrder, worth
from napari_unet.core.review.outcome import Outcomes
from napari_unet.core.review.squares import Squares

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.correct.alike_search import AlikeQuery
    from napari_unet.nn.inference.uncertainty import UncertainRegion


@dataclass(frozen=True, eq=False)
class ReviewFrame:
    """One frame as it was when the review began.

    Attributes
    ----------
    before
        Its labels ([Z,] Y, X), a copy.
    squares
        That divide it.
    first_square
        The number of its first square among those of all frames.
    """

    before: np.ndarray
    squares: Squares
    first_square: int


@dataclass(eq=False)
class ReviewPlan:
    """What there is to look at.

    Attributes
    ----------
    query
        The labels, and the model that doubts.
    order
        Leads through it.
    objects
        All objects, by their number in the order.
    places
        Places where an object may be missing, by their number.
    frames
        All frames, by their index.
    """

    query: AlikeQuery
    order: ReviewOrder
    objects: list[Candidate]
    places: list[UncertainRegion]
    frames: dict[Index, ReviewFrame]
    _counted: set[tuple[Index, int]] = field(default_factory=set)

    def where(self, item: ReviewItem) -> tuple[Index, Window]:
        """Return the frame and the window of an item."""
        if item.kind == OBJECT:
            found = self.objects[item.number]
            return found.index, found.mask.window
        if item.kind == PLACE:
            place = self.places[item.number]
            return place.index, place.window
        for index, frame in self.frames.items():
            number = item.number - frame.first_square
            if 0 <= number < len(frame.squares):
                return index, frame.squares.window(number)
        raise InputError("There is no such square in the review.")

    def mask(self, item: ReviewItem) -> ObjectMask:
        """Return what is to be outlined of an item."""
        if item.kind == OBJECT:
            return self.objects[item.number].mask
        _, window = self.where(item)
        return ObjectMask(window, np.ones([w.stop - w.start for w in window], bool))

    def was_edited(self, item: ReviewItem, labels: Any) -> bool:
        """Return whether the labels differ from those at the beginning, where an item is."""
        index, window = self.where(item)
        before = self.frames[index].before[window]
        changed = before != np.asarray(labels[(*index, *window)])
        if item.kind == OBJECT:
            changed &= self.objects[item.number].mask.inside
        return bool(changed.any())

    def settle(self, item: ReviewItem, labels: Any) -> None:
        """Note what came of an item, from the labels as they are right now.

        Parameters
        ----------
        labels
            In the order of the journal, indexed by slices.
        """
        index, window = self.where(item)
        frame = self.frames[index]
        around = _grown(window, frame.before.shape)
        before = frame.before[around]
        outcomes = Outcomes.from_labels(before, np.asarray(labels[(*index, *around)]))
        if item.kind == OBJECT:
            (label,) = self.objects[item.number].labels
            self.order.judge(item, *outcomes.of(label))
            return
        added = self._added(index, around, window, outcomes, labels)
        if item.kind == PLACE:
            self.order.judge(item, 0, len(added))
        else:
            self.order.judge_square(item, added)

    def _added(
        self, index: Index, around: Window, window: Window, outcomes: Outcomes, labels: Any
    ) -> list[int]:
        """Return, for each object added in a window, the place that leads to it, or -1."""
        now = np.asarray(labels[(*index, *around)])
        found = []
        for label in outcomes.missed.tolist():
            pixels = np.argwhere(now == label) + [w.start for w in around]
            middle = pixels.mean(0)
            inside = all(w.start <= m < w.stop for m, w in zip(middle, window, strict=True))
            if not inside or (index, label) in self._counted:
                continue
            self._counted.add((index, label))
            leads = (
                number
                for number, place in enumerate(self.places)
                if place.index == index and _reaches(place.window, pixels)
            )
            found.append(next(leads, -1))
        return found


def _reaches(window: Window, pixels: np.ndarray) -> bool:
    low, high = [w.start for w in window], [w.stop for w in window]
    return bool(((pixels >= low) & (pixels < high)).all(1).any())


def _grown(window: Window, shape: tuple[int, ...]) -> Window:
    """Return a window with its own size around it."""
    return tuple(
        slice(max(0, 2 * w.start - w.stop), min(n, 2 * w.stop - w.start))
        for w, n in zip(window, shape, strict=True)
    )


def plan_review(query: AlikeQuery, seed: int) -> Generator[Progress, None, ReviewPlan]:
    """Find what there is to look at in labels, and order it by what a look is worth.

    Raises
    ------
    InputError
        There are no objects, or the labels do not fit the image or the model.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.model_input import get_channels
    from napari_unet.nn.inference.uncertainty import find_uncertain_regions

    recording = query.recording
    model = loaded_model(query.model, query.device)
    if recording.geometry is None:
        raise InputError("The image of the labels is not open, or does not fit; choose it.")
    if model.spec.head != "instance" or model.spec.ndim != recording.learner.ndim:
        raise InputError(
            f"The model {query.model!r} does not find objects like these labels; choose the model "
            "that made them."
        )
    stack = recording.geometry.stack
    labels = recording.geometry.array(recording.data)
    frames: dict[Index, ReviewFrame] = {}
    squares = 0
    for index in stack.indices(model.spec.ndim):
        before = np.array(labels[index])
        frames[index] = ReviewFrame(before, Squares.of_labels(before.shape, before), squares)
        squares += len(frames[index].squares)
        yield Progress(0, 0, "copying the labels")
    regions = yield from find_uncertain_regions(
        stack, model, query.settings, labels=lambda index: frames[index].before, signs=True
    )
    known = {(place.index, place.label): place for place in regions if place.label}
    objects: list[Candidate] = []
    looks: list[np.ndarray] = []
    channels = tuple(sorted(set(get_channels(stack, model, query.settings))))
    for index, frame in frames.items():
        yield Progress(len(objects), 0, "objects")
        masks = object_masks(frame.before)
        image = stack.read(index, tuple(slice(0, n) for n in frame.before.shape), channels)
        looks.append(describe_objects(list(masks.values()), frame.before, image.astype(float)))
        objects += [Candidate(index, (label,), mask) for label, mask in masks.items()]
    if not objects:
        raise InputError("There are no objects in the labels; run Segment first.")
    found = [known.get((item.index, item.labels[0])) for item in objects]
    doubts = np.array([0.0 if place is None else place.score for place in found])
    seen = [NetworkSigns() if p is None or p.signs is None else p.signs for p in found]
    sizes = np.array([item.mask.area for item in objects], float)
    extents, descriptors = sizes / np.median(sizes), np.concatenate(looks)
    gain = expected_gain(gain_signs(doubts, seen, descriptors), extents)
    places = [place for place in regions if not place.label]
    value, missing = worth(gain, descriptors, np.array([place.score for place in places]))
    order = ReviewOrder(value, missing, squares, seed, extents)
    return ReviewPlan(query, order, objects, places, frames)
