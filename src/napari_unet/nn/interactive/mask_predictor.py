"""From clicks in a frame to the mask of one object: which window, at what zoom, what comes of it.

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
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.clicks import extract_object
from napari_unet.core.tiles import relative_window
from napari_unet.nn.interactive.click_window import ClickWindow
from napari_unet.nn.interactive.refined_window import Outline
from napari_unet.nn.unet.click_head import ClickHead, activate
from napari_unet.nn.unet.net import out_channels
from napari_unet.nn.unet.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from napari_unet.core.prompts.clicks import Click, ClickSet
    from napari_unet.core.settings.tasks import DecodeSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.embeddings import FrameFeatures
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.unet.refiner import Refiner


EDGE = {2: 128, 3: 48}
"""Edge length of the window that the head looks at in planes and volumes, in its own pixels."""
LEVELS = {2: 4, 3: 2}
"""How many sizes of windows there are, each twice as large as the one before."""
PADDING = 1.6
"""A window is so many times as large as what is known of the object, or larger: the object may be
larger than that, and the head has to see what is around it."""
FINER = 3
"""Outlines are refined in images that are so many times as fine as the network's pixels: those with
objects of 66 px and more. Smaller ones gain nothing (`benchmarks/clicks.md`)."""
SURROUNDINGS = 6
"""Width of what counts as the surroundings of an object, in network pixels."""


@dataclass(frozen=True)
class InitialMask:
    """The mask that a first click begins with: the object of the automatic head at that place.

    Most objects that are clicked on were seen by the automatic head, too, if not well enough. So
    the click head does not begin with nothing, and learns when to trust what it is given.

    Attributes
    ----------
    maps
        How many maps K the automatic head has.
    decoding
        Of an instance head; None: the maps are those of classes.
    """

    maps: int
    decoding: DecodeSettings | None

    @classmethod
    def from_model(cls, model: Model) -> InitialMask:
        """Decode as a model does."""
        decoding = model.decoding if model.spec.head == "instance" else None
        return cls(out_channels(model.spec), decoding)

    def at(self, seen: Tensor, place: Sequence[float]) -> np.ndarray:
        """Return the object at a place, bool (*spatial), False everywhere where there is none.

        Parameters
        ----------
        seen
            float32 (C, *spatial): what the click head sees, the activated maps last.
        place
            Along each of the spatial axes, in pixels.
        """
        labels = self._objects(seen[-self.maps :].float().cpu().numpy())
        pixel = tuple(int(np.floor(p + 0.5)) for p in place)
        inside = all(0 <= p < n for p, n in zip(pixel, labels.shape, strict=True))
        label = labels[pixel] if inside else 0
        return np.asarray((labels == label) & (label > 0))

    def _objects(self, maps: np.ndarray) -> np.ndarray:
        if self.decoding:
            return decode_instances(maps, self.decoding)
        labels = np.zeros(maps.shape[1:], np.int32)
        for name in range(1, len(maps)):
            parts, _ = ndimage.label(maps.argmax(0) == name)
            labels[parts > 0] = parts[parts > 0] + labels.max()
        return labels


@dataclass(frozen=True)
class MaskPredictor:
    """Predicts the mask of a clicked object in one frame.

    Attributes
    ----------
    features
        Of the frame.
    head
        The model's click head, made `ready`.
    initial
        What a first click begins with.
    """

    features: FrameFeatures
    head: ClickHead
    initial: InitialMask

    def answer(self, clicks: ClickSet, previous: ObjectMask | None = None) -> ObjectMask:
        """Return the object, from clicks, its previous mask, or both.

        An object may be larger than the largest window: then the window lies around the last
        click, and the answer is about that window alone.
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
            click_window = self._choose_window(clicks, previous, level)
            logit = self._logit(click_window, clicks, previous)
            probability = click_window.enlarged(_sigmoid(logit))
            # Mostly nothing at all reaches the border, and the object need not be looked for yet.
            if level == levels[-1] or not self._leaves(click_window, probability > 0.5):
                break
            found = extract_object(probability, click_window.in_stack, clicks)
            if not self._leaves(click_window, found.inside):
                break
        if self.head.refiner is not None and self._refines:
            outline = Outline.around(logit, click_window, self.features.frame, clicks)
            if outline is not None:
                self._refine(self.head.refiner, outline, probability, click_window)
        return extract_object(probability, click_window.in_stack, clicks)

    def warm(self, pixel: Index) -> Iterator[Progress]:
        """Compute the features that clicks around a pixel need; yield after each part of them.

        First comes the window that a first click there looks at, then what is around it.
        """
        frame, edge = self.features.frame, EDGE[self.features.spec.ndim]
        at = [round((p + 0.5) * r) for p, r in zip(pixel, self._ratio, strict=True)]
        reaches = (edge // 2, edge, 2 * edge)
        for done, reach in enumerate(reaches, 1):
            window = [
                slice(max(0, a - reach), min(n, a + reach))
                for a, n in zip(at, frame.shape, strict=True)
            ]
            self.features.read(tuple(window))
            yield Progress(done, len(reaches), "features")

    def contrast(self, mask: ObjectMask) -> np.ndarray:
        """Return the mean difference of an object's features from those around it, (width + 1,)."""
        frame = self.features.frame
        spans = zip(mask.cropped().window, self._ratio, frame.shape, strict=True)
        window = tuple(
            slice(
                max(0, math.floor(w.start * r) - SURROUNDINGS),
                min(n, math.ceil(w.stop * r) + SURROUNDINGS),
            )
            for w, r, n in spans
        )
        with torch.inference_mode():
            seen = self.features.read(window)[None].float()
            click_window = ClickWindow(window, 1, self._ratio, frame.size)
            inside = self._before(click_window, mask, seen)[0, 0].cpu().numpy() > 0.5
            values = seen[0].cpu().numpy()
        near = ndimage.distance_transform_edt(~inside) if inside.any() else np.zeros(inside.shape)
        around = (near > 1) & (near <= SURROUNDINGS)
        if not inside.any() or not around.any():
            return np.zeros(len(values), np.float32)
        return np.asarray(values[:, inside].mean(1) - values[:, around].mean(1))

    def _is_wide(self, clicks: ClickSet, previous: ObjectMask | None) -> bool:
        """Return whether what is known of the object is larger than the largest window."""
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

    @property
    def _refines(self) -> bool:
        """Whether the image shows so much more than the network's pixels that it helps."""
        return max(self._ratio) * FINER <= 1

    def _first_level(self, clicks: ClickSet, previous: ObjectMask | None) -> int:
        ndim = self.features.spec.ndim
        low, high = self._extent(clicks, previous)
        enough = PADDING * float((high - low).max()) / EDGE[ndim]
        return min(LEVELS[ndim] - 1, max(0, math.ceil(math.log2(max(enough, 1)))))

    def _choose_window(
        self, clicks: ClickSet, previous: ObjectMask | None, level: int
    ) -> ClickWindow:
        """Choose the window around what is known, inside the frame, on the grid of the level."""
        frame, factor = self.features.frame, 2**level
        edge = EDGE[self.features.spec.ndim] * factor
        window = []
        for middle, n in zip(self._extent(clicks, previous).mean(0), frame.shape, strict=True):
            start = min(max(0, round(middle) - edge // 2), max(0, n - edge)) // factor * factor
            window.append(slice(start, min(n, start + edge)))
        return ClickWindow(tuple(window), factor, self._ratio, frame.size)

    def _logit(
        self, click_window: ClickWindow, clicks: ClickSet, previous: ObjectMask | None
    ) -> np.ndarray:
        """Run the head; return the object's logit in the head's pixels, float32."""
        features, ndim = self.features, self.features.spec.ndim
        with torch.inference_mode():
            window = features.read(click_window.window)[None]
            maps = activate(features.spec, features.runner.read(window[:, :-1]))
            seen = pooled(torch.cat((window.float(), maps), 1), click_window.factor)
            places = [
                click_window.to_head(clicks.places(positive=sign, ndim=ndim))
                for sign in (True, False)
            ]
            inside = [_drop_outside(at, seen.shape[2:]) for at in places]
            width = features.spec.width + 1
            if previous is None and len(inside[0]):
                found = self.initial.at(seen[0], inside[0][0].tolist())
                before = torch.from_numpy(found.astype(np.float32))[None, None].to(seen.device)
            else:
                before = self._before(click_window, previous, seen)
            prompts = Prompts.from_clicks(inside[:1], inside[1:], before)
            logit = self.head(seen[:, :width], seen[:, width:], prompts)
            return np.asarray(logit[0].cpu().numpy())

    def _refine(
        self,
        refiner: Refiner,
        outline: Outline,
        probability: np.ndarray,
        click_window: ClickWindow,
    ) -> None:
        """Replace the probability, in the window's stack pixels, by the refined one around it."""
        with torch.inference_mode():
            refined = _sigmoid(outline.refined(refiner))
        # Its pixels are not the click head's: it may reach a little further.
        there, seen = outline.window.in_stack, click_window.in_stack
        both = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(there, seen, strict=True)
        )
        enlarged = outline.window.enlarged(refined)
        probability[relative_window(both, seen)] = enlarged[relative_window(both, there)]

    def _before(
        self, click_window: ClickWindow, previous: ObjectMask | None, like: Tensor
    ) -> Tensor:
        """Return the previous mask in the head's pixels, (1, 1, *spatial)."""
        shape = like.shape[2:]
        if previous is None:
            return torch.zeros(1, 1, *shape, device=like.device)
        seen = torch.from_numpy(previous.within(click_window.in_stack).astype(np.float32))[
            None, None
        ]
        pool: Any = F.adaptive_avg_pool2d if len(shape) == 2 else F.adaptive_avg_pool3d
        found: Tensor = pool(seen, shape)
        return found.to(like.device)

    def _leaves(self, click_window: ClickWindow, inside: np.ndarray) -> bool:
        """Return whether a mask reaches the window's border where the frame goes on beyond it.

        It is bool, of the stack's pixels in the window.
        """
        for axis, (w, n) in enumerate(
            zip(click_window.window, self.features.frame.shape, strict=True)
        ):
            if w.start > 0 and inside.take(0, axis).any():
                return True
            if w.stop < n and inside.take(-1, axis).any():
                return True
        return False


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.asarray(torch.from_numpy(logit).sigmoid().numpy())


def _largest(ndim: int) -> int:
    """Return the edge length of the largest window, in network pixels."""
    return EDGE[ndim] << (LEVELS[ndim] - 1)


def pooled(values: Tensor, factor: int) -> Tensor:
    """Average (N, C, *spatial) over blocks of `factor` pixels; smaller ones at the far end."""
    if factor == 1:
        return values
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    return pool(values, factor, ceil_mode=True)


def _drop_outside(places: np.ndarray, shape: torch.Size) -> np.ndarray:
    inside = (places > -0.5) & (places < np.array(shape) - 0.5)
    return places[inside.all(1)]
