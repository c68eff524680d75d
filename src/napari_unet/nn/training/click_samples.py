"""What the click head is trained on: windows of trunk features with an object and first clicks.

A view is a piece of a picture, zoomed, turned and varied, and run through the frozen trunk once.
Many samples are cut out of it before another view takes its place.
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
from napari_unet.core.prompts.clicks import Click, ClickSet
from napari_unet.core.prompts.simulation import first_click, next_click
from napari_unet.core.training.rehearsal import resize_labels
from napari_unet.nn.interactive.mask_predictor import pooled
from napari_unet.nn.unet.click_head import activate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unet.core.training.config import TrainConfig
    from napari_unet.core.training.samples import Samples
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.interactive.mask_predictor import InitialMask


EDGE = 288
"""Edge length of a view, in network pixels."""
SMALLEST = 12
"""Objects of fewer pixels in a view are not clicked on."""

POOL = 48
"""Number of views that samples are cut from."""
FIRST = 8
"""Number of views at the beginning."""
REPLACE = 2
"""Steps after which a view is added, and the oldest of a full pool removed."""
LEVELS = (0.55, 0.3, 0.15)
"""Probabilities that a step works on the trunk's pixels, or on 2 x 2 or 4 x 4 of them pooled."""
OBJECT_SIZES = (0.1, 1.1)
"""Sizes of the objects that are clicked on, as shares of the window's edge ..."""
LARGE = 0.3
"""... with this share of larger ones: the head must see objects that go on beyond the window ..."""
SMALL = 0.04
"""... and smaller ones at the finest level, as there is no closer look at them."""
REDRAWN, REDRAW_RANGE = 0.4, (-0.09, 0.07)
"""How often an outline is drawn anew, further in or out by these shares of the object's size:
annotators draw outlines differently, and only later clicks tell which one is meant."""
WITH_INITIAL_MASK = 0.65
"""How often a first click comes with the automatic object at that position, if there is one."""
STARTS = {"click": 0.7, "object": 0.16, "box": 0.14}
"""How often an object is new, exists in a wrong shape, or has a box drawn around it."""

Picture = tuple[np.ndarray, np.ndarray]
"""A normalised image, float32 (C, Y, X), and layers of labels (L, Y, X)."""


@dataclass(frozen=True)
class TrainingView:
    """A piece of a picture as the click head sees it.

    Attributes
    ----------
    inputs
        float32 (width + 1 + K, Y, X): features, mean of the image's channels, activated maps.
    layers
        Labels, unsigned integers (L, Y, X).
    objects
        Layer, label and bounding box of each object.
    """

    inputs: Tensor
    layers: np.ndarray
    objects: list[tuple[int, int, tuple[slice, slice]]]


class PictureSource(Protocol):
    """Source of random pictures with labels."""

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Draw a picture for a network with this number of channels and working diameter (px)."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """Pictures from labelled images, zoomed around the network's working diameter."""

    samples: Samples
    weights: np.ndarray

    @classmethod
    def from_samples(cls, samples: Samples) -> LabelledImages:
        """Draw the samples as often as the trunk's training does."""
        return cls(samples, samples.weights())

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Cut a piece out of one image, around one of its objects."""
        sample = self.samples.items[int(rng.choice(len(self.weights), p=self.weights))]
        spread = 1.0 if rng.random() < 0.3 else 0.25
        zoom = working_scale(sample.diameter, diameter) * float(np.exp(rng.normal(0, spread)))
        zoom = float(np.clip(zoom, 0.1, 6.0))
        window = _place(sample, rng, EDGE / zoom)
        image, labels = sample.image[(slice(None), *window)], sample.labels[window]
        shape = tuple(max(1, round(n * zoom)) for n in labels.shape)
        return _varied(resize(image, shape), rng), resize_labels(labels, shape)[None]


def make_view(model: Model, source: PictureSource, rng: np.random.Generator) -> TrainingView:
    """Draw a picture, turn and flip it, and run it through a model's trunk."""
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
        inputs = torch.cat((features.float(), grey, maps), 1)[0]
    # Small pictures are padded with zeros, as convolutions pad them.
    short = [max(0, EDGE - n) for n in layers.shape[1:]]
    inputs = F.pad(inputs, (0, short[1], 0, short[0]))
    layers = np.pad(layers, ((0, 0), (0, short[0]), (0, short[1])))
    objects = [
        (number, label, box)
        for number, layer in enumerate(layers)
        for label, box in enumerate(ndimage.find_objects(layer.astype(np.int32)), 1)
        if box is not None and np.count_nonzero(layer[box] == label) >= SMALLEST
    ]
    return TrainingView(inputs, layers, objects)


def _place(sample: Sample, rng: np.random.Generator, edge: float) -> tuple[slice, slice]:
    """Draw a window of a sample, up to `edge` pixels wide, with an object if there is one."""
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


def _varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary contrast, brightness, noise and sharpness of a normalised image a little."""
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


@dataclass
class ClickSample:
    """A window of a view with one object, and the clicks so far.

    Attributes
    ----------
    inputs
        float32 (C, Y, X), in the head's pixels: see `TrainingView`.
    target
        float32 (Y, X): the share of each pixel that belongs to the object.
    previous
        bool (Y, X): the mask after the last click.
    clicks
        All clicks so far.
    """

    inputs: Tensor
    target: Tensor
    previous: np.ndarray
    clicks: ClickSet

    @property
    def truth(self) -> np.ndarray:
        """The object, bool (Y, X)."""
        return self.target.numpy() > 0.5


class ViewPool:
    """The views of a training, replaced one by one as its steps go on."""

    def __init__(
        self, model: Model, sources: Sequence[PictureSource], seed: int, step: int
    ) -> None:
        self._model, self._sources, self._seed = model, sources, seed
        self._views: list[TrainingView] = []
        for early in range(max(0, step - POOL * REPLACE) // REPLACE * REPLACE, step):
            self.views_at(early)

    def views_at(self, step: int) -> list[TrainingView]:
        """Return the views for a step; call it once for every step, in order."""
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
    """Cut samples of one pooling level around objects of a suitable size, with first clicks."""
    factor = 2 ** int(rng.choice(len(LEVELS), p=LEVELS))
    edge = min(settings.crop * factor, EDGE)
    samples: list[ClickSample] = []
    for attempt in range(20 * settings.batch):
        view = views[int(rng.integers(len(views)))]
        layer, label, box = view.objects[int(rng.integers(len(view.objects)))]
        size = max(s.stop - s.start for s in box) / edge
        minimum = SMALL if factor == 1 else OBJECT_SIZES[0]
        maximum = math.inf if rng.random() < LARGE else OBJECT_SIZES[1]
        if attempt < 10 * settings.batch and not minimum < size < maximum:
            continue
        inside = redraw(view.layers[layer] == label, box, rng)
        sample = _cut(view, inside, box, edge, factor, rng)
        _start(sample, rng, guess)
        samples.append(sample)
        if len(samples) == settings.batch:
            break
    return samples


def redraw(inside: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Draw an object's outline as another annotator might, or leave it."""
    if rng.random() >= REDRAWN:
        return inside
    size = math.sqrt(np.count_nonzero(inside[box]))
    margin = math.ceil(REDRAW_RANGE[1] * size) + 1
    around = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    part = inside[around]
    depth = ndimage.distance_transform_edt(part)
    # Thin objects must not vanish.
    outwards = max(rng.uniform(*REDRAW_RANGE) * size, -0.4 * float(depth.max()))
    # Distances to the outline, which lies half a pixel from the pixels on either side.
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
    """Cut a window around an object, centred on its first click or on its bounding box."""
    by_click = rng.random() < 0.5
    at = np.array(first_click(inside[box], rng).pixel) + [s.start for s in box]
    middle = at if by_click else np.array([(s.start + s.stop) / 2 for s in box])
    starts = [
        int(np.clip(round(m + rng.normal(0, 2)) - edge // 2, 0, n - edge)) // factor * factor
        for m, n in zip(middle, inside.shape, strict=True)
    ]
    y, x = (slice(a, a + edge) for a in starts)
    inputs = pooled(view.inputs[None, :, y, x], factor)[0]
    target = pooled(torch.from_numpy(inside[y, x].astype(np.float32))[None, None], factor)[0, 0]
    return ClickSample(inputs, target, np.zeros(target.shape, bool), ClickSet())


def _start(sample: ClickSample, rng: np.random.Generator, guess: InitialMask) -> None:
    """Give a sample what a user starts with: a click, a mask or a box."""
    truth = sample.truth
    if not truth.any():  # so small or thin that no pixel is half covered
        at = np.unravel_index(int(sample.target.argmax()), truth.shape)
        sample.clicks = ClickSet((Click(tuple(float(a) for a in at)),))
        return
    start = str(rng.choice(list(STARTS), p=list(STARTS.values())))
    if start == "box":
        sample.previous = _box(truth, rng)
        return
    if start == "object":
        sample.previous = _deformed(truth, rng)
        if rng.random() < 0.5:  # propagated from one plane to the next, the middle is clicked
            click = next_click(truth, sample.previous, rng)
        else:
            click = first_click(truth)
    else:
        click = first_click(truth, rng)
        if rng.random() < WITH_INITIAL_MASK:
            sample.previous = guess.at(sample.inputs, click.place)
    sample.clicks = ClickSet((click,) if click else ())


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
