"""Interactive segmentation of one object after the other: click, undo, refine, grow, commit.

`ClickSession` holds the object that is being segmented, with its history. What a click means among
the objects of the labels (correct this one, or keep it and begin the next) is in `interaction`.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.instances.label_edits import (
    LabelEdit,
    check_label,
    check_writable,
    new_label,
    place_object,
)
from napari_unet.core.instances.mask import find_object
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.progress import PLANES, Progress
from napari_unet.core.prompts.clicks import Click, ClickSet, UndoStack, box_mask, locate
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.diameter_estimation import resolve_diameter
from napari_unet.nn.inference.embeddings import FeatureCache, StackFeatures
from napari_unet.nn.inference.model_input import check_fit
from napari_unet.nn.interactive.active_object import (
    ActiveObject,
    add_click,
    exclude_others,
    from_box,
    from_mask,
    propagate,
)
from napari_unet.nn.interactive.mask_predictor import InitialMask, MaskPredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.tiles import Index
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.unet.click_head import ClickHead


class ClickSession:
    """Segments objects that are clicked on, with the features of an automatic model.

    Masks leave the pixels of other objects alone if `labels` are given and `overwrite` is off. A
    click has as many coordinates as the labels have axes. Threads may share a session; an answer
    that comes after the session has changed is dropped.

    Parameters
    ----------
    model
        A model with a click head.
    image
        A stack, or anything that `open_stack` takes.
    labels
        Integers of the stack's labels shape, indexed by slices: the objects there are already.
    settings
        How the model is run: channel, diameter, number format. Give those of a segmentation to see
        the image as it did; without a diameter it is estimated.
    overwrite
        Whether pixels of other objects may be taken.
    cache
        Features of the image that were computed already, and those to come.

    Raises
    ------
    UnetError
        The model has no click head, or does not fit the image.
    """

    def __init__(
        self,
        model: Model,
        image: Stack | np.ndarray | Any,
        labels: Any = None,
        *,
        settings: PredictSettings | None = None,
        overwrite: bool = False,
        cache: FeatureCache | None = None,
    ) -> None:
        if model.click is None:
            raise ModelError(
                f"The model {model.name!r} has no click head; choose a model that has one, or give "
                "it one with scripts/train_clicks.py."
            )
        self.stack = open_stack(image)
        check_fit(self.stack, model)
        self.model = model
        settings = settings or PredictSettings()
        self.settings, _ = resolve_diameter(self.stack, model, replace(settings, survey=False))
        self.overwrite = overwrite
        self.cache = cache or FeatureCache()
        self.labels = labels
        if labels is not None:
            self._check(labels)
        self.generation = 0
        self._history: UndoStack[ActiveObject] = UndoStack(ActiveObject())
        self._features = StackFeatures(self.stack, model, self.settings, self.cache)
        self._head, self._initial = model.click.ready(), InitialMask.from_model(model)
        self._newest_preview = 0
        self._lock = threading.RLock()

    @property
    def shown(self) -> ActiveObject:
        """The active object."""
        return self._history.now

    @property
    def mask(self) -> np.ndarray:
        """The active object, bool of the labels' shape."""
        # Of an array of zeros only the pages that are written take memory.
        whole: Any = np.zeros(self.stack.labels_shape, bool)
        for index, mask in self.shown.masks.items():
            whole[(*index, *mask.window)] = mask.inside
        return np.asarray(whole)

    def use(self, head: ClickHead) -> None:
        """Use another click head, made `ready`; the image's features are kept."""
        with self._lock:
            self._head = head
            self.reset()

    def predictor(self, index: Index) -> MaskPredictor:
        """Return what answers clicks in a frame, by its position along the leading axes."""
        return MaskPredictor(self._features.at(index), self._head, self._initial)

    def add(self, click: Click) -> np.ndarray:
        """Add a click and return the `mask`.

        If nothing is left of the active object, a positive click begins another one.

        Raises
        ------
        InputError
            The click lies outside the image, or a first click is negative.
        """
        self._advance(lambda active: self._add(active, click))
        return self.mask

    def box(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """Begin with a box around the object and return the `mask`.

        Parameters
        ----------
        low, high
            Two opposite corners, coordinates as those of a click; both in one frame. For a model of
            volumes, a box in one plane is taken for the middle of one that is as deep as wide.

        Raises
        ------
        InputError
            The box has no pixels inside the image, or reaches over several frames.
        """
        index, box = box_mask(low, high, self.stack, self.model.spec.ndim)
        self._advance(lambda _: from_box(index, box, self.predictor, self._protected))
        return self.mask

    def begin(self, mask: Any) -> np.ndarray:
        """Begin with a mask of the object, such as another program's, and return the `mask`.

        Later clicks correct it. It is no object of the labels: for those there is `refine`.

        Parameters
        ----------
        mask
            bool, or numbers that are 0 outside the object; of the labels' shape.

        Raises
        ------
        InputError
            The mask has another shape, or no pixels.
        """
        given, shape = np.asarray(mask), self.stack.labels_shape
        if given.shape != shape or given.dtype.kind not in "buif":
            raise InputError(
                f"The mask is {given.dtype} of shape {given.shape}; give bool of shape {shape}."
            )
        inside = given != 0
        if not inside.any():
            raise InputError("The mask has no pixels; give one of an object, or click on one.")
        self._advance(lambda _: from_mask(inside, self.model.spec.ndim, self._protected))
        return self.mask

    def refine(self, place: Sequence[float]) -> np.ndarray:
        """Make an object of the labels the active one: later clicks correct it, its id stays.

        Raises
        ------
        InputError
            There are no labels, or no object at that place.
        """
        if self.labels is None:
            raise InputError("There are no labels to refine; give the session the labels.")
        index, pixel = self.locate(Click(tuple(place)))
        label, mask = find_object(self.labels, pixel, index)
        begun = ActiveObject(ClickSet(), {index: mask}, label, {index: mask})
        self._advance(lambda _: begun)
        return self.mask

    def grow(self) -> Iterator[Progress]:
        """Follow the object through the neighbouring planes; yield after each of them.

        Raises
        ------
        InputError
            There is no Z axis to follow it along, or no object.
        """
        axes = self.stack.labels_axes
        if self.model.spec.ndim == 3 or "Z" not in axes:
            reason = "the model answers in volumes" if "Z" in axes else "the image has no Z axis"
            raise InputError(f"There are no planes to grow through: {reason}.")
        begun, generation = self.shown, self.generation
        if not begun.area:
            raise InputError("There is no object to grow; click on one first.")
        masks, depth = dict(begun.masks), self.stack.labels_shape[axes.index("Z")]
        for done, (index, mask) in enumerate(propagate(begun, self.predictor, depth), 1):
            if generation != self.generation:
                return
            masks[index] = exclude_others(mask, index, begun.label, self._protected)
            yield Progress(done, depth - len(begun.masks), PLANES)
        self._advance(lambda _: replace(begun, masks=masks, grown=True), generation)

    def preview(self, click: Click) -> Mapping[Index, ObjectMask] | None:
        """Return the masks that a click would give, by frame; the session stays as it is.

        None if a newer preview was requested meanwhile, or the session has changed.
        """
        with self._lock:
            self._newest_preview += 1
            number, generation = self._newest_preview, self.generation
        following = self._add(self.shown, click)
        late = number != self._newest_preview or generation != self.generation
        return None if late else following.masks

    def undo(self) -> np.ndarray:
        """Undo the last step (a click, a box, growth) and return the `mask`."""
        return self._moved(self._history.undo)

    def redo(self) -> np.ndarray:
        """Redo the last step that was undone and return the `mask`."""
        return self._moved(self._history.redo)

    def reset(self) -> None:
        """Drop the active object, for a new one."""
        with self._lock:
            self.generation += 1
            self._history = UndoStack(ActiveObject())

    def proposal(self, labels: Any = None, label: int | None = None) -> LabelEdit:
        """Return the change that `commit` would make; arguments and errors as there."""
        labels = self.labels if labels is None else labels
        if labels is None:
            raise InputError("There are no labels to put the object into; give some.")
        self._check(labels)
        check_writable(labels)
        shown = self.shown
        if label is not None:
            number = check_label(label, labels)
        else:
            number = shown.label or new_label(labels)
        return place_object(
            labels, shown.masks, number, replaced=shown.replaced, overwrite=self.overwrite
        )

    def commit(self, labels: Any = None, label: int | None = None) -> LabelEdit:
        """Put the object into labels and get ready for the next one.

        A window, whose layers are changed in its own thread, takes the change from `proposal` and
        calls `reset` once it is made.

        Parameters
        ----------
        labels
            Changed in place; the session's own if not given.
        label
            The object's id. Not given: that of the object that is refined, or else a new one.

        Returns
        -------
        LabelEdit
            What was changed; its `undo` reverts it.

        Raises
        ------
        InputError
            There is no object, nothing is left of it beside others, or the labels do not fit or
            cannot hold its id.
        """
        change = self.proposal(labels, label)
        change.apply(self.labels if labels is None else labels)
        self.reset()
        return change

    def locate(self, click: Click) -> tuple[Index, Index]:
        """Return the frame that a click is in, and its pixel there; see `core.prompts.clicks`."""
        return locate(click, self.stack, self.model.spec.ndim)

    def warm(self, place: Sequence[float]) -> Iterator[Progress]:
        """Compute the features around a place, there first; yield after each part of them."""
        index, pixel = self.locate(Click(tuple(place)))
        yield from self.predictor(index).warm(pixel)

    def _advance(
        self, step: Callable[[ActiveObject], ActiveObject], generation: int | None = None
    ) -> None:
        """Make a step, unless the session has changed while it was computed."""
        begun = self.generation if generation is None else generation
        following = step(self.shown)
        with self._lock:
            if begun == self.generation:
                self.generation += 1
                self._history.push(following)

    def _moved(self, move: Callable[[], bool]) -> np.ndarray:
        with self._lock:
            self.generation += 1
            move()
            return self.mask

    def _add(self, active: ActiveObject, click: Click) -> ActiveObject:
        index, _ = self.locate(click)
        return add_click(active, click, index, self.predictor, self._protected)

    @property
    def _protected(self) -> Any:
        """The labels whose pixels may not be taken; None if there are none."""
        return None if self.overwrite else self.labels

    def _check(self, labels: Any) -> None:
        if not (hasattr(labels, "shape") and hasattr(labels, "dtype")):
            raise InputError(
                f"The labels are a {type(labels).__name__}; give an array of integers of shape "
                f"{self.stack.labels_shape}."
            )
        shape, dtype = tuple(labels.shape), np.dtype(labels.dtype)
        if shape != self.stack.labels_shape or dtype.kind not in "ui":
            raise InputError(
                f"The labels are {dtype} of shape {shape}; give integers of shape "
                f"{self.stack.labels_shape}."
            )
