"""The window in which an object's outline is refined, at up to the image's own resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.interactive.click_window import ClickWindow, sample_linearly
from napari_unet.nn.unet.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.prompts.clicks import ClickSet
    from napari_unet.nn.unet.refiner import Refiner

COARSEST, FINEST = 2, 4
"""Pixels of the refiner along one of the click head's, at least and at most."""
PIXELS = 224 * 224
"""Pixels of a refiner's window, at most: what a processor works through in a few milliseconds."""
MARGIN = (8, 0.3)
"""Width of what is looked at around an object: the click head's pixels, and a share of its size."""
LEAST = 1.5
"""Fewer pixels than so many for one of the network's show a large object no better."""
SURE = 6.0
"""What lies deeper than so many pixels inside the click head's mask stays: of an object that is
much larger than those that were learned from, the refiner would see the inside as background."""
POSSIBLE = -2.0
"""Logit of the click head from which on a pixel may belong to the object."""


@dataclass(frozen=True)
class Outline:
    """What a refiner sees of one object.

    Attributes
    ----------
    window
        Where it lies in the frame, in the refiner's pixels.
    frame
        The frame at the refiner's resolution.
    logit, image
        float32 (Y, X): the click head's answer, enlarged, and the mean of the image's channels.
    clicks
        Positive and negative ones in the window, float32 (n, 2) in its pixels.
    """

    window: ClickWindow
    frame: Frame
    logit: np.ndarray
    image: np.ndarray
    clicks: tuple[np.ndarray, np.ndarray]

    @classmethod
    def around(
        cls, logit: np.ndarray, click_window: ClickWindow, frame: Frame, clicks: ClickSet
    ) -> Outline | None:
        """Look at the object that a click head's logit, float32 (Y, X), shows in a window.

        None if it is so large that the refiner would see it hardly better than the network does.

        Parameters
        ----------
        frame
            As the trunk sees it.
        clicks
            On the object.
        """
        places = [clicks.places(positive=sign, ndim=2) for sign in (True, False)]
        box = _extent(logit, click_window.to_head(places[0]))
        fineness = _fineness(box, click_window)
        if fineness < LEAST * click_window.factor:
            return None
        shape = tuple(max(1, round(n * fineness / click_window.factor)) for n in frame.shape)
        ratios = [m / n for m, n in zip(shape, frame.shape, strict=True)]
        spans, at = [], []
        for part, w, ratio, size in zip(box, click_window.window, ratios, shape, strict=True):
            ends = [w.start + end * click_window.factor for end in (part.start, part.stop)]
            span = slice(math.floor(ends[0] * ratio), min(size, math.ceil(ends[1] * ratio)))
            middles = (np.arange(span.start, span.stop) + 0.5) / ratio
            spans.append(span)
            at.append((middles - w.start) / click_window.factor - 0.5)
        fine = replace(frame, shape=shape)
        in_stack = tuple(m / n for m, n in zip(shape, frame.size, strict=True))
        window = ClickWindow(tuple(spans), 1, in_stack, frame.size)
        positive, negative = (_inside(window.to_head(p), spans) for p in places)
        image = fine.read(window.window).mean(0)
        return cls(window, fine, sample_linearly(logit, at), image, (positive, negative))

    def refined(self, refiner: Refiner) -> np.ndarray:
        """Return the corrected logit, float32 (Y, X)."""
        device = next(refiner.parameters()).device
        logit, image = (torch.from_numpy(v)[None].to(device) for v in (self.logit, self.image))
        prompts = Prompts.from_clicks([self.clicks[0]], [self.clicks[1]], image[None])
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            refined = refiner(logit, image, prompts)
        values: np.ndarray = refined[0].cpu().numpy()
        inside = ndimage.distance_transform_edt(self.logit > 0) > SURE
        return np.asarray(np.where(inside, np.maximum(values, self.logit), values))


def _extent(logit: np.ndarray, positive: np.ndarray) -> tuple[slice, ...]:
    """Return the box around the object and what is around it, in the click head's pixels."""
    possible = logit > POSSIBLE
    parts, _ = ndimage.label(possible)
    index = np.clip(np.floor(positive + 0.5).astype(int), 0, np.array(logit.shape) - 1)
    chosen = np.unique(parts[tuple(index.T)])
    if (chosen > 0).any():
        possible = np.isin(parts, chosen[chosen > 0])
    places = np.concatenate([np.argwhere(possible), index])
    if not len(places):
        return tuple(slice(0, n) for n in logit.shape)
    low, high = places.min(0), places.max(0) + 1
    margin = math.ceil(MARGIN[0] + MARGIN[1] * float((high - low).max()))
    return tuple(
        slice(max(0, int(a) - margin), min(n, int(b) + margin))
        for a, b, n in zip(low, high, logit.shape, strict=True)
    )


def _fineness(box: Sequence[slice], click_window: ClickWindow) -> float:
    """Return how many of the refiner's pixels lie along one of the click head's.

    As many as the image has, from `COARSEST` to `FINEST`, if the window does not get too large.
    """
    pixels = math.prod(max(1, s.stop - s.start) for s in box)
    there = math.ceil(click_window.factor / min(click_window.ratio) - 0.1)
    return min(max(there, COARSEST), FINEST, math.sqrt(PIXELS / pixels))


def _inside(places: np.ndarray, spans: Sequence[slice]) -> np.ndarray:
    sizes = np.array([s.stop - s.start for s in spans])
    return places[((places > -0.5) & (places < sizes - 0.5)).all(1)]
