"""The windows that the click head is trained on: objects, and what a user may have clicked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.prompts.clicks import Click, ClickSet
from napari_unet.core.prompts.simulation import first_click, next_click
from napari_unet.nn.interactive.mask_predictor import pooled
from napari_unet.nn.training.click_images import EDGE, PictureSource, TrainingView, make_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unet.core.training.config import TrainConfig
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.interactive.mask_predictor import InitialMask

POOL = 48
"""Views from which windows are cut."""
FIRST = 8
"""Views at the beginning."""
REPLACE = 2
"""Steps after which one more comes, and the oldest of a full pool goes."""
LEVELS = (0.55, 0.3, 0.15)
"""How often a step's windows show the trunk's pixels, 2 x 2 and 4 x 4 of them as one."""
FITS = (0.1, 1.1)
"""Objects are clicked on in windows in which they are this large, as a share of the window ..."""
LARGE = 0.3
"""... but so many may be larger: a head must see that an object goes on beyond its window ..."""
SMALL = 0.04
"""... and where the window shows the trunk's own pixels, smaller: it is never looked at closer."""
REDRAWN, DRAWN = 0.4, (-0.09, 0.07)
"""How often an outline is drawn anew, further in or out, by these shares of the object's size: by
one image's annotator outlines lie where the next one's do not, and it is later clicks that tell."""
GUESSED = 0.8
"""How often what is clicked on anew comes with the automatic object at that place, if any."""
BEGIN = {"click": 0.7, "object": 0.16, "box": 0.14}
"""How often an object is clicked on anew, was there in a wrong shape, or had a box drawn around."""


@dataclass
class Window:
    """One window of a view with one object in it, and what was clicked so far.

    Attributes
    ----------
    seen
        float32 (C, Y, X), in the head's pixels.
    target
        float32 (Y, X): the share of each pixel that belongs to the object.
    previous
        bool (Y, X): the mask so far.
    clicks
        The clicks so far.
    """

    seen: Tensor
    target: Tensor
    previous: np.ndarray
    clicks: ClickSet

    @property
    def truth(self) -> np.ndarray:
        """The object, bool (Y, X)."""
        return self.target.numpy() > 0.5


class ViewPool:
    """The views of a training at a step, and at those after it."""

    def __init__(
        self, model: Model, sources: Sequence[PictureSource], seed: int, step: int
    ) -> None:
        self._model, self._sources, self._seed = model, sources, seed
        self._views: list[TrainingView] = []
        for early in range(max(0, step - POOL * REPLACE) // REPLACE * REPLACE, step):
            self.turned(early)

    def turned(self, step: int) -> list[TrainingView]:
        """Return the views for a step, some of them new; steps are asked for in their order."""
        if step % REPLACE:
            return self._views
        rng = np.random.default_rng([self._seed, step, 1])
        for _ in range(1 if step else FIRST):
            source = self._sources[int(rng.integers(len(self._sources)))]
            view = make_view(self._model, source, rng)
            if view.objects:
                self._views = [*self._views, view][-POOL:]
        if not self._views:
            raise InputError("The pictures show no objects; give images with labels.")
        return self._views


def draw_windows(
    views: Sequence[TrainingView],
    settings: TrainConfig,
    rng: np.random.Generator,
    guess: InitialMask,
) -> list[Window]:
    """Cut windows of one zoom around objects that fit, with the clicks and masks to begin with."""
    factor = 2 ** int(rng.choice(len(LEVELS), p=LEVELS))
    edge = min(settings.crop * factor, EDGE)
    windows: list[Window] = []
    for attempt in range(20 * settings.batch):
        view = views[int(rng.integers(len(views)))]
        layer, label, box = view.objects[int(rng.integers(len(view.objects)))]
        size = max(s.stop - s.start for s in box) / edge
        least = SMALL if factor == 1 else FITS[0]
        most = math.inf if rng.random() < LARGE else FITS[1]
        if attempt < 10 * settings.batch and not least < size < most:
            continue
        inside = redrawn(view.layers[layer] == label, box, rng)
        window = _cut(view, inside, box, edge, factor, rng)
        windows.append(_begun(window, rng, guess))
        if len(windows) == settings.batch:
            break
    return windows


def redrawn(inside: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Draw an object's outline as another annotator might, or leave it."""
    if rng.random() >= REDRAWN:
        return inside
    size = math.sqrt(np.count_nonzero(inside[box]))
    margin = math.ceil(DRAWN[1] * size) + 1
    around = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    part = inside[around]
    depth = ndimage.distance_transform_edt(part)
    # Thin objects get thinner, but do not vanish.
    outwards = max(rng.uniform(*DRAWN) * size, -0.4 * float(depth.max()))
    signed = np.where(part, depth - 0.5, 0.5 - ndimage.distance_transform_edt(~part))
    drawn = inside.copy()
    drawn[around] = signed > -outwards
    return drawn


def _cut(
    view: TrainingView,
    inside: np.ndarray,
    box: tuple[slice, slice],
    edge: int,
    factor: int,
    rng: np.random.Generator,
) -> Window:
    """Cut a window that shows an object, as it comes to lie by its first click, or by its mask."""
    by_click = rng.random() < 0.5
    at = np.array(first_click(inside[box], rng).pixel) + [s.start for s in box]
    middle = at if by_click else np.array([(s.start + s.stop) / 2 for s in box])
    starts = [
        int(np.clip(round(m + rng.normal(0, 2)) - edge // 2, 0, n - edge)) // factor * factor
        for m, n in zip(middle, inside.shape, strict=True)
    ]
    y, x = (slice(a, a + edge) for a in starts)
    seen = pooled(view.seen[None, :, y, x], factor)[0]
    target = pooled(torch.from_numpy(inside[y, x].astype(np.float32))[None, None], factor)[0, 0]
    return Window(seen, target, np.zeros(target.shape, bool), ClickSet())


def _begun(window: Window, rng: np.random.Generator, guess: InitialMask) -> Window:
    """Give a window what a user begins with."""
    truth = window.truth
    if not truth.any():  # so small, or so thin, that no pixel is half full
        at = np.unravel_index(int(window.target.argmax()), truth.shape)
        window.clicks = ClickSet((Click(tuple(float(a) for a in at)),))
        return window
    begin = str(rng.choice(list(BEGIN), p=list(BEGIN.values())))
    if begin == "box":
        window.previous = _box(truth, rng)
        return window
    if begin == "object":
        window.previous = _deformed(truth, rng)
        if rng.random() < 0.5:  # from one plane to the next it is the middle that is clicked
            click = next_click(truth, window.previous, rng)
        else:
            click = first_click(truth)
    else:
        click = first_click(truth, rng)
        if rng.random() < GUESSED:
            window.previous = guess.at(window.seen, click.place)
    window.clicks = ClickSet((click,) if click else ())
    return window


def _box(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a box around an object as people do: nearly right."""
    found = np.zeros(truth.shape, bool)
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    sides = []
    for span in (rows, columns):
        slack = 0.05 * (span[-1] - span[0] + 1) + 0.7
        low, high = span[0] + rng.normal(0, slack), span[-1] + 1 + rng.normal(0, slack)
        sides.append(slice(max(0, round(low)), max(round(low) + 1, round(high), 1)))
    found[tuple(sides)] = True
    return found


def _deformed(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make an object wrong: shifted, larger or smaller, a part missing or too much."""
    size = math.sqrt(np.count_nonzero(truth))
    shift = np.round(rng.normal(0, 0.08 * size + 0.5, 2)).astype(int)
    wrong = ndimage.shift(truth, shift, order=0)
    depth = ndimage.distance_transform_edt(wrong) - ndimage.distance_transform_edt(~wrong)
    wrong = depth > rng.normal(0, 0.06 * size + 0.3)
    for _ in range(int(rng.integers(0, 3))):
        centre = np.array(_any_pixel(truth, rng)) + rng.normal(0, 0.3 * size, 2)
        y, x = np.ogrid[: truth.shape[0], : truth.shape[1]]
        disc = np.hypot(y - centre[0], x - centre[1]) < size * rng.uniform(0.1, 0.45)
        wrong = wrong | disc if rng.random() < 0.5 else wrong & ~disc
    return np.asarray(wrong)


def _any_pixel(truth: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    at = int(rng.choice(np.flatnonzero(truth)))
    return tuple(int(i) for i in np.unravel_index(at, truth.shape))
