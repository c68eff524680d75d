"""What clicks are trained on: pictures with objects, and the features that the trunk sees in them.

A view is a piece of a picture, zoomed, turned and varied, run through the frozen trunk once. Many
windows are cut out of it before another takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.clicks import Click, ClickSet, first_click, next_click
from napari_unet.nn.interactive.mask_predictor import pooled
from napari_unet.nn.unet.click_head import activate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unet.core.training.config import TrainConfig
    from napari_unet.core.training.samples import Sample, Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.interactive.initial_mask import InitialMask


EDGE = 288
"""Edge length of a view, in network pixels."""
SMALLEST = 12
"""Objects of fewer pixels in a view are not clicked on."""

Picture = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class TrainingView:
    """A piece of a picture as the click head sees it.

    Attributes
    ----------
    seen
        float32 (width + 1 + K, Y, X): features, the image's mean, the activated maps.
    layers
        Unsigned integers (L, Y, X).
    objects
        Layer, label and box of each object.
    """

    seen: Tensor
    layers: np.ndarray
    objects: list[tuple[int, int, tuple[slice, slice]]]


class PictureSource(Protocol):
    """Something that draws pictures: float32 (C, Y, X), normalised, and layers (L, Y, X)."""

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Draw a picture for a network of so many channels and objects of that diameter."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """Pictures from labelled images, zoomed about the size that the network knows."""

    samples: Samples
    weights: np.ndarray

    @classmethod
    def from_samples(cls, samples: Samples) -> LabelledImages:
        """Balance the samples as the trunk's training does."""
        return cls(samples, samples.weights())

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Cut a piece out of one image, around one of its objects."""
        sample = self.samples.items[int(rng.choice(len(self.weights), p=self.weights))]
        spread = 1.0 if rng.random() < 0.3 else 0.25
        zoom = working_scale(sample.diameter, diameter) * float(np.exp(rng.normal(0, spread)))
        zoom = float(np.clip(zoom, 0.2, 6.0))
        window = _place(sample, rng, EDGE / zoom)
        image, labels = sample.image[(slice(None), *window)], sample.labels[window]
        shape = tuple(max(1, round(n * zoom)) for n in labels.shape)
        return _varied(resize(image, shape), rng), _nearest(labels, shape)[None]


def normalised(image: np.ndarray, channels: int) -> np.ndarray:
    """Return a picture (Y, X) or (Y, X, 3) as the network sees it, float32 (C, Y, X)."""
    colour = image.ndim == 3
    stack = open_stack(image, axes="YXS" if colour else "YX")
    picked = stack.pick_channels(channels, None)
    window = tuple(slice(0, n) for n in image.shape[:2])
    return Normaliser.of(stack, (), 2, picked)(stack.read((), window, picked))


def make_view(model: Model, source: PictureSource, rng: np.random.Generator) -> TrainingView:
    """Draw a picture, turn it, and look at it through a model's trunk."""
    image, layers = source.draw(rng, model.spec.in_channels, model.diameter)
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    image, layers = (np.rot90(values, turns, (1, 2)) for values in (image, layers))
    if flip:
        image, layers = image[..., ::-1], layers[..., ::-1]
    runner = model.runner(model.choose_precision())
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
    with torch.inference_mode():
        features = runner.trunk(pixels)
        maps = activate(model.spec, runner.read(features))
        grey = pixels.mean(1, keepdim=True).to(maps)
        seen = torch.cat((features.float(), grey, maps), 1)[0]
    # Beyond a small picture there is nothing: what convolutions see there, too.
    short = [max(0, EDGE - n) for n in layers.shape[1:]]
    seen = F.pad(seen, (0, short[1], 0, short[0]))
    layers = np.pad(layers, ((0, 0), (0, short[0]), (0, short[1])))
    objects = [
        (number, label, box)
        for number, layer in enumerate(layers)
        for label, box in enumerate(ndimage.find_objects(layer.astype(np.int32)), 1)
        if box is not None and np.count_nonzero(layer[box] == label) >= SMALLEST
    ]
    return TrainingView(seen, layers, objects)


def _place(sample: Sample, rng: np.random.Generator, edge: float) -> tuple[slice, slice]:
    """Choose a window of a sample, of up to `edge` pixels, that shows an object if there is one."""
    shape = sample.labels.shape
    centre = rng.uniform(0, shape)
    candidates = np.argwhere(sample.labels[::4, ::4] > 0) * 4
    if len(candidates):
        centre = candidates[rng.integers(len(candidates))] + rng.normal(0, edge / 6, 2)
    starts = [
        int(np.clip(c - edge / 2, 0, max(0, n - edge))) for c, n in zip(centre, shape, strict=True)
    ]
    y, x = (slice(a, min(n, a + round(edge))) for a, n in zip(starts, shape, strict=True))
    return y, x


def _nearest(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample labels to another shape."""
    places = [
        np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
        for n, m in zip(labels.shape, shape, strict=True)
    ]
    return np.asarray(labels[np.ix_(*places)])


def _varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary contrast, brightness, noise and sharpness of a normalised picture a little."""
    if rng.random() < 0.5:
        return image
    varied = image * rng.uniform(0.6, 1.4) + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.1:
        varied = 1 - varied
    if rng.random() < 0.3:
        varied = ndimage.gaussian_filter(varied, (0, *(rng.uniform(0.3, 1.2),) * 2))
    if rng.random() < 0.5:
        varied = varied + rng.normal(0, rng.uniform(0, 0.1), varied.shape)
    return np.asarray(varied, np.float32)


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
class ClickSample:
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


def draw_click_samples(
    views: Sequence[TrainingView],
    settings: TrainConfig,
    rng: np.random.Generator,
    guess: InitialMask,
) -> list[ClickSample]:
    """Cut windows of one zoom around objects that fit, with the clicks and masks to begin with."""
    factor = 2 ** int(rng.choice(len(LEVELS), p=LEVELS))
    edge = min(settings.crop * factor, EDGE)
    windows: list[ClickSample] = []
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
) -> ClickSample:
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
    return ClickSample(seen, target, np.zeros(target.shape, bool), ClickSet())


def _begun(window: ClickSample, rng: np.random.Generator, guess: InitialMask) -> ClickSample:
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
