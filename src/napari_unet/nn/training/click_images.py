"""What clicks are trained on: pictures with objects, and the features that the trunk sees in them.

A view is a piece of a picture, zoomed, turned and varied, run through the frozen trunk once. Many
windows are cut out of it before another takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from napari_unet.core.image.diameters import working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.unet.click_head import activate

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.training.samples import Sample, Samples
    from napari_unet.nn.inference.model import Model

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
    def of(cls, samples: Samples) -> LabelledImages:
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
    return Normaliser.from_stack(stack, (), 2, picked)(stack.read((), window, picked))


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
