"""From clicks in an image to the mask of one object: which window, at what zoom, and what is kept.

The head looks at a window of a fixed number of pixels. If the object turns out to reach beyond it,
the window is doubled and its features are averaged over 2 x 2 pixels: a large object is seen as
small ones are, a little more coarsely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from napari_unet.core.instances.mask import ObjectMask
from napari_unet.nn.unet.click_head import ClickHead, Prompts, activate

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.prompts.clicks import Click, ClickSet
    from napari_unet.core.tiles import Window
    from napari_unet.nn.inference.embeddings import FrameFeatures
    from napari_unet.nn.interactive.initial_mask import InitialMask

EDGE = {2: 128, 3: 48}
"""Edge length of the window that the head looks at, in its own pixels."""
LEVELS = {2: 4, 3: 2}
"""How often the window may be doubled, and its own size."""
ROOM = 1.6
"""A window is so many times as large as what is known of the object, or larger."""
RING = 6
"""Width of what counts as the surroundings of an object, in network pixels."""


@dataclass(frozen=True)
class ClickWindow:
    """A window of a frame, and how its pixels lie in the stack's and in the head's.

    Attributes
    ----------
    window
        In network pixels.
    factor
        Network pixels averaged into one of the head's, along each axis.
    ratio
        Network pixels a stack pixel, along each axis.
    size
        The frame's, in stack pixels.
    """

    window: Window
    factor: int
    ratio: tuple[float, ...]
    size: tuple[int, ...]

    @property
    def in_stack(self) -> Window:
        """The stack's pixels whose centres lie in the window."""
        return tuple(
            slice(max(0, math.ceil(w.start / r - 0.5)), min(n, math.floor(w.stop / r - 0.5) + 1))
            for w, r, n in zip(self.window, self.ratio, self.size, strict=True)
        )

    def to_head(self, places: np.ndarray) -> np.ndarray:
        """Turn positions in the stack (N, ndim) into such in the head's window, float32."""
        start = np.array([w.start for w in self.window])
        network = (places + 0.5) * np.array(self.ratio)
        return np.asarray((network - start) / self.factor - 0.5, np.float32)

    def enlarged(self, values: np.ndarray) -> np.ndarray:
        """Resample the head's answer to the stack's pixels in the window, linearly."""
        for axis, (w, r, place) in enumerate(
            zip(self.window, self.ratio, self.in_stack, strict=True)
        ):
            at = ((np.arange(place.start, place.stop) + 0.5) * r - w.start) / self.factor - 0.5
            if len(at) == values.shape[axis] and np.allclose(at, np.arange(len(at))):
                continue
            at = np.clip(at, 0, values.shape[axis] - 1)
            low = np.minimum(at.astype(int), max(0, values.shape[axis] - 2))
            share = (at - low).astype(np.float32)
            share = share.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            high = np.minimum(low + 1, values.shape[axis] - 1)
            values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        return values


@dataclass(frozen=True)
class MaskPredictor:
    """Answers clicks in one frame.

    Attributes
    ----------
    features
        Of the frame.
    head
        The model's click head, made `ready`.
    guess
        What a first click begins with.
    """

    features: FrameFeatures
    head: ClickHead
    guess: InitialMask

    def answer(self, clicks: ClickSet, previous: ObjectMask | None = None) -> ObjectMask:
        """Return the object that clicks and its previous mask, at least one of them, point to.

        What is known may be larger than the largest window: then it is seen around the last click,
        and the answer is about its own window alone.
        """
        ndim = self.features.spec.ndim
        if len(clicks) and self._is_wide(clicks, previous):
            window = self._widest(clicks.clicks[-1])
            clicks = clicks.inside(window)
            before = None if previous is None else ObjectMask(window, previous.within(window))
            previous = before if before is not None and before.area else None
            if previous is None and not any(click.positive for click in clicks.clicks):
                return ObjectMask(window, np.zeros([w.stop - w.start for w in window], bool), 0.0)
        levels = range(self._first_level(clicks, previous), LEVELS[ndim])
        for level in levels:
            view = self._view(clicks, previous, level)
            probability = self._probability(view, clicks, previous)
            mask = _settled(view, probability, clicks)
            if level == levels[-1] or not self._leaves(view, mask):
                break
        return mask

    def contrast(self, mask: ObjectMask) -> np.ndarray:
        """Return by how much an object's features differ from those around it, (width + 1,)."""
        frame = self.features.frame
        spans = zip(mask.cropped().window, self._ratio, frame.shape, strict=True)
        window = tuple(
            slice(max(0, math.floor(w.start * r) - RING), min(n, math.ceil(w.stop * r) + RING))
            for w, r, n in spans
        )
        with torch.inference_mode():
            seen = self.features.read(window)[None].float()
            view = ClickWindow(window, 1, self._ratio, frame.size)
            inside = self._before(view, mask, seen)[0, 0].cpu().numpy() > 0.5
            values = seen[0].cpu().numpy()
        near = ndimage.distance_transform_edt(~inside) if inside.any() else np.zeros(inside.shape)
        around = (near > 1) & (near <= RING)
        if not inside.any() or not around.any():
            return np.zeros(len(values), np.float32)
        return np.asarray(values[:, inside].mean(1) - values[:, around].mean(1))

    def _is_wide(self, clicks: ClickSet, previous: ObjectMask | None) -> bool:
        """Tell whether what is known of the object does not fit into the largest window."""
        low, high = self._extent(clicks, previous)
        return bool((high - low).max() > _largest(len(low)))

    def _widest(self, click: Click) -> Window:
        """Return the largest window around a click, in stack pixels."""
        frame, half = self.features.frame, _largest(len(self._ratio)) / 2
        place = click.place[-len(frame.size) :]
        return tuple(
            slice(max(0, math.ceil(p - half / r)), min(n, math.floor(p + half / r) + 1))
            for p, r, n in zip(place, self._ratio, frame.size, strict=True)
        )

    def _extent(self, clicks: ClickSet, previous: ObjectMask | None) -> np.ndarray:
        """Return the box around what is known of the object: (2, ndim), in network pixels."""
        ndim = self.features.spec.ndim
        corners = [clicks.places(positive=True, ndim=ndim) + 0.5]
        if previous is not None and previous.area:
            window = previous.cropped().window
            corners.append(np.array([[w.start for w in window], [w.stop for w in window]]))
        known = np.concatenate(corners)
        if not len(known):  # negative clicks alone
            known = clicks.places(positive=False, ndim=ndim) + 0.5
        return np.asarray(np.stack([known.min(0), known.max(0)]) * np.array(self._ratio))

    @property
    def _ratio(self) -> tuple[float, ...]:
        frame = self.features.frame
        return tuple(m / n for m, n in zip(frame.shape, frame.size, strict=True))

    def _first_level(self, clicks: ClickSet, previous: ObjectMask | None) -> int:
        ndim = self.features.spec.ndim
        low, high = self._extent(clicks, previous)
        enough = ROOM * float((high - low).max()) / EDGE[ndim]
        return min(LEVELS[ndim] - 1, max(0, math.ceil(math.log2(max(enough, 1)))))

    def _view(self, clicks: ClickSet, previous: ObjectMask | None, level: int) -> ClickWindow:
        """Choose the window around what is known, inside the frame, on the grid of the level."""
        frame, factor = self.features.frame, 2**level
        edge = EDGE[self.features.spec.ndim] * factor
        window = []
        for middle, n in zip(self._extent(clicks, previous).mean(0), frame.shape, strict=True):
            start = min(max(0, round(middle) - edge // 2), max(0, n - edge)) // factor * factor
            window.append(slice(start, min(n, start + edge)))
        return ClickWindow(tuple(window), factor, self._ratio, frame.size)

    def _probability(
        self, view: ClickWindow, clicks: ClickSet, previous: ObjectMask | None
    ) -> np.ndarray:
        """Run the head; return the object's probability in the view's stack pixels, float32."""
        features, ndim = self.features, self.features.spec.ndim
        with torch.inference_mode():
            window = features.read(view.window)[None]
            maps = activate(features.spec, features.runner.read(window[:, :-1]))
            seen = pooled(torch.cat((window.float(), maps), 1), view.factor)
            places = [
                view.to_head(clicks.places(positive=sign, ndim=ndim)) for sign in (True, False)
            ]
            inside = [_those_inside(at, seen.shape[2:]) for at in places]
            width = features.spec.width + 1
            if previous is None and len(inside[0]):
                found = self.guess.at(seen[0], inside[0][0].tolist())
                before = torch.from_numpy(found.astype(np.float32))[None, None].to(seen.device)
            else:
                before = self._before(view, previous, seen)
            prompts = Prompts.from_clicks(inside[:1], inside[1:], before)
            logit = self.head(seen[:, :width], seen[:, width:], prompts)[0]
            return view.enlarged(logit.sigmoid().cpu().numpy())

    def _before(self, view: ClickWindow, previous: ObjectMask | None, like: Tensor) -> Tensor:
        """Return the previous mask in the head's pixels, (1, 1, *spatial)."""
        shape = like.shape[2:]
        if previous is None:
            return torch.zeros(1, 1, *shape, device=like.device)
        seen = torch.from_numpy(previous.within(view.in_stack).astype(np.float32))[None, None]
        pool: Any = F.adaptive_avg_pool2d if len(shape) == 2 else F.adaptive_avg_pool3d
        found: Tensor = pool(seen, shape)
        return found.to(like.device)

    def _leaves(self, view: ClickWindow, mask: ObjectMask) -> bool:
        """Tell whether a mask reaches the window's border where the frame goes on beyond it."""
        for axis, (w, n) in enumerate(zip(view.window, self.features.frame.shape, strict=True)):
            if w.start > 0 and mask.inside.take(0, axis).any():
                return True
            if w.stop < n and mask.inside.take(-1, axis).any():
                return True
        return False


def _largest(ndim: int) -> int:
    """Return the edge length of the largest window, in network pixels."""
    return EDGE[ndim] << (LEVELS[ndim] - 1)


def pooled(values: Tensor, factor: int) -> Tensor:
    """Average (N, C, *spatial) over blocks of `factor` pixels; those at the far end may be less."""
    if factor == 1:
        return values
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    return pool(values, factor, ceil_mode=True)


def _those_inside(places: np.ndarray, shape: torch.Size) -> np.ndarray:
    inside = (places > -0.5) & (places < np.array(shape) - 0.5)
    return places[inside.all(1)]


def _settled(view: ClickWindow, probability: np.ndarray, clicks: ClickSet) -> ObjectMask:
    """Turn probabilities into one object: what hangs together with the positive clicks.

    Clicks are obeyed in their own pixel, and holes without a negative click are filled.
    """
    window, ndim = view.in_stack, probability.ndim
    inside = probability > 0.5
    start = np.array([w.start for w in window])
    spots = {
        sign: _spots(clicks.places(positive=sign, ndim=ndim) - start, inside.shape)
        for sign in (True, False)
    }
    inside = (inside | spots[True]) & ~spots[False]
    parts, count = ndimage.label(inside)
    if spots[True].any():
        chosen = np.unique(parts[spots[True] & inside])
    elif count:
        chosen = np.array([1 + np.bincount(parts.ravel())[1:].argmax()])
    else:
        chosen = np.zeros(0, int)
    inside = np.isin(parts, chosen[chosen > 0])
    inside = _filled(inside, spots[False])
    certainty = float(probability[inside].mean()) if inside.any() else 0.0
    return ObjectMask(window, inside, certainty)


def _spots(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the pixels that places lie in, bool; no more: later clicks are on an object's rim."""
    found, pixels = np.zeros(shape, bool), np.floor(places + 0.5).astype(int)
    inside = ((pixels >= 0) & (pixels < np.array(shape))).all(1)
    found[tuple(pixels[inside].T)] = True
    return found


def _filled(inside: np.ndarray, open_: np.ndarray) -> np.ndarray:
    """Fill holes, unless something in them is marked as open."""
    parts, count = ndimage.label(~inside)
    if count < 2:
        return inside
    hole = np.ones(count + 1, bool)
    hole[0] = False
    for axis in range(inside.ndim):
        for end in (0, -1):
            hole[np.unique(parts.take(end, axis))] = False
    hole[np.unique(parts[open_])] = False
    return np.asarray(inside | hole[parts])
