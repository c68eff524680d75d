"""Generated images with labels: objects other than nuclei, to train and measure clicks on.

Shapes are drawn first, as layers of labels; then each object gets an appearance, and the image the
faults of a microscope. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.training.click_samples import EDGE, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

Rng = np.random.Generator

SMALLEST = 40
"""Objects of fewer pixels are dropped: nobody would click on them."""


@dataclass(frozen=True)
class SyntheticImage:
    """A generated image and its objects.

    Attributes
    ----------
    image
        float32 (Y, X), or (Y, X, 3) for a coloured one.
    layers
        uint16 (L, Y, X): objects of one layer lie in those of the layer below.
    kind
        Kind of its shapes, one of `KINDS`.
    """

    image: np.ndarray
    layers: np.ndarray
    kind: str


def make_synthetic_image(
    seed: int | list[int], size: int = 256, kind: str | None = None
) -> SyntheticImage:
    """Generate an image.

    Parameters
    ----------
    seed
        Of everything in it.
    size
        Edge length in pixels.
    kind
        One of `KINDS`; drawn if not given.
    """
    rng = np.random.default_rng(seed)
    kind = kind or str(rng.choice(list(KINDS)))
    base = KINDS[kind](rng, size)
    layers = [base]
    if kind != "fibres" and rng.random() < 0.4:
        layers.append(_nested(rng, base))
    image = draw_objects(rng, layers, flat=kind == "textures")
    clean = np.stack([largest_parts(layer, SMALLEST) for layer in layers])
    return SyntheticImage(photograph(rng, image), clean, kind)


def _blobs(rng: Rng, size: int) -> np.ndarray:
    """Scatter roundish shapes; later ones lie on those before, so that many touch."""
    labels = np.zeros((size, size), np.uint16)
    typical = log_uniform(rng, 7, 45)
    count = int(np.clip(rng.uniform(0.15, 0.9) * (size / (2 * typical)) ** 2, 2, 150))
    roughness = rng.choice([0.05, 0.15, 0.3])
    aspect = log_uniform(rng, 1, 3)
    for number in range(1, count + 1):
        radius = typical * rng.lognormal(0, 0.25)
        stamp(labels, number, rng.uniform(0, size, 2), star_shape(rng, radius, roughness, aspect))
    return labels


def _cells(rng: Rng, size: int) -> np.ndarray:
    """Divide the plane into cells, with membranes of some width between them."""
    labels = territories(rng, size, log_uniform(rng, 20, 90), log_uniform(rng, 1, 2))
    width = rng.uniform(0.7, 3)
    apart = ndimage.distance_transform_edt(~borders(labels)) > width
    if rng.random() < 0.3:  # some cells are not there
        labels[np.isin(labels, rng.choice(labels.max() + 1, labels.max() // 3))] = 0
    return np.asarray(np.where(apart, labels, 0), np.uint16)


def _textures(rng: Rng, size: int) -> np.ndarray:
    """Divide the plane into regions that meet without a line."""
    labels = territories(rng, size, log_uniform(rng, 45, 130), 1)
    return np.asarray(labels, np.uint16)


def _islands(rng: Rng, size: int) -> np.ndarray:
    """Cut through smooth noise: irregular shapes, with bays and holes."""
    height = smooth_noise(rng, size, log_uniform(rng, 5, 18))
    labels, _ = ndimage.label(height > rng.uniform(0.2, 1.0))
    return np.asarray(labels, np.uint16)


def _fibres(rng: Rng, size: int) -> np.ndarray:
    """Draw winding threads, one over the other."""
    labels = np.zeros((size, size), np.uint16)
    width, bend = log_uniform(rng, 1.5, 7), rng.uniform(0.01, 0.06)
    for number in range(1, int(rng.integers(3, 14))):
        steps = int(rng.uniform(0.3, 1.3) * size)
        turns = ndimage.gaussian_filter1d(rng.normal(0, 1, steps), 8) * 8 * bend
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
        path = rng.uniform(0, size, 2) + np.cumsum([np.sin(heading), np.cos(heading)], 1).T
        pixels = path.round().astype(int)
        pixels = pixels[((pixels >= 0) & (pixels < size)).all(1)]
        if len(pixels) > 4 * width:
            line = np.ones((size, size), bool)
            line[tuple(pixels.T)] = False
            labels[ndimage.distance_transform_edt(line) < width * rng.uniform(0.7, 1.3)] = number
    return labels


KINDS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "blobs": _blobs,
    "cells": _cells,
    "textures": _textures,
    "islands": _islands,
    "fibres": _fibres,
}
"""The shapes that there are."""


def _nested(rng: Rng, base: np.ndarray) -> np.ndarray:
    """Put a shape into most of the objects that are large enough."""
    layer = np.zeros_like(base)
    for number, box in enumerate(ndimage.find_objects(base), 1):
        if box is None or rng.random() < 0.25:
            continue
        depth = ndimage.distance_transform_edt(np.pad(base[box] == number, 1))[1:-1, 1:-1]
        if depth.max() < 8:
            continue
        at = np.unravel_index(depth.argmax(), depth.shape)
        radius = depth.max() * rng.uniform(0.35, 0.7)
        centre = np.array([s.start for s in box]) + at + rng.normal(0, 0.1 * radius, 2)
        stamp(layer, number, centre, star_shape(rng, radius, 0.08, 1.3))
    return np.asarray(np.where(base > 0, layer, 0), np.uint16)


def draw_objects(rng: Rng, layers: list[np.ndarray], *, flat: bool) -> np.ndarray:
    """Give every object a brightness, a texture, a shading and a rim of its own."""
    size = layers[0].shape[-1]
    image = rng.uniform(0, 0.4) * smooth_noise(rng, size, size / 4) + _texture(rng, size)
    contrast = rng.uniform(0.1, 0.6) if flat else rng.uniform(0.8, 3) * rng.choice([-1, 1])
    uneven = rng.choice([0.05, 0.3, 0.8]) * abs(contrast)
    for layer in layers:
        looks = [_texture(rng, size) for _ in range(6 if flat else 2)]
        count = int(layer.max()) + 1
        level = contrast + rng.normal(0, uneven, count)
        which = rng.integers(len(looks), size=count)
        inside = ndimage.distance_transform_edt(~borders(layer))
        shading = rng.uniform(-0.5, 0.5) * contrast * np.exp(-inside / rng.uniform(2, 12))
        rim = rng.normal(0, 1.2) * contrast * np.exp(-((inside / rng.uniform(0.8, 2)) ** 2))
        rim = rim if rng.random() < 0.4 and not flat else 0
        filled = level[layer] + np.choose(which[layer], looks) + shading + rim
        image = np.where(layer > 0, filled, image)
        contrast = contrast * rng.uniform(0.4, 1) * rng.choice([-1, 1]) + float(level.mean())
    return np.asarray(image)


def photograph(rng: Rng, drawn: np.ndarray) -> np.ndarray:
    """Blur, light unevenly, add noise, bend the contrast and perhaps invert or colour."""
    size = len(drawn)
    image = ndimage.gaussian_filter(drawn, log_uniform(rng, 0.3, 2.2))
    low, high = np.percentile(image, (1, 99))
    image = (image - low) / max(high - low, 1e-6)
    if rng.random() < 0.4:
        image = image * (1 + rng.uniform(0.1, 0.4) * smooth_noise(rng, size, size / 3))
    image = np.clip(image, -0.3, 1.5)
    noise = rng.normal(0, 1, image.shape)
    if rng.random() < 0.3:
        noise = ndimage.gaussian_filter(noise, 0.7) * 1.8
    grain = log_uniform(rng, 0.01, 0.2)
    image = image + grain * noise * (1 if rng.random() < 0.5 else np.sqrt(np.clip(image, 0.05, 1)))
    image = np.clip(image, 0, 2) ** log_uniform(rng, 0.5, 2)
    image = image.max() - image if rng.random() < 0.35 else image
    if rng.random() < 0.2:
        dark, bright = rng.uniform(0, 1, (2, 3))
        image = dark + image[..., None] * (bright - dark) + 0.02 * rng.normal(0, 1, (size, size, 3))
    return np.asarray(image, np.float32)


def territories(rng: Rng, size: int, spacing: float, aspect: float) -> np.ndarray:
    """Give every pixel to the nearest of some points, seen through a wavy glass; int, from 1."""
    y, x = np.mgrid[:size, :size].astype(float)
    for wave in (size / 6, size / 20):
        y, x = (a + rng.uniform(0, 0.35) * wave * smooth_noise(rng, size, wave) for a in (y, x))
    count = max(3, round(1.7 * (size / spacing) ** 2))
    points = rng.uniform(-0.15 * size, 1.15 * size, (count, 2))
    turn = rng.uniform(0, np.pi)
    across = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = across @ np.diag([1, 1 / aspect])
    nearest = cKDTree(points @ stretch).query(np.stack([y.ravel(), x.ravel()], 1) @ stretch)[1]
    return np.asarray(nearest.reshape(size, size) + 1)


def _texture(rng: Rng, size: int) -> np.ndarray:
    """Draw grains, stripes, spots or nothing much, with a spread of up to 0.6."""
    strength = log_uniform(rng, 0.02, 0.6)
    kind = rng.integers(4)
    if kind == 0:
        return strength * 0.2 * rng.normal(0, 1, (size, size))
    if kind == 1:
        y, x = np.mgrid[:size, :size]
        turn, period = rng.uniform(0, np.pi), log_uniform(rng, 4, 20)
        phase = 2 * np.pi * (y * np.sin(turn) + x * np.cos(turn)) / period
        return np.asarray(0.7 * strength * np.sin(phase + 2 * smooth_noise(rng, size, size / 8)))
    grains = smooth_noise(rng, size, log_uniform(rng, 0.8, 6))
    return strength * (grains if kind == 2 else np.maximum(grains - 1, 0) * 2)


def smooth_noise(rng: Rng, size: int, width: float) -> np.ndarray:
    """Draw smooth noise of mean 0 and spread 1; wide noise is drawn small and enlarged."""
    step = max(1, int(width / 4))
    small = -(-size // step) + 2
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (small, small)), width / step, mode="wrap")
    if step > 1:
        noise = ndimage.zoom(noise, step, order=1)
    noise = noise[:size, :size]
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))


def star_shape(rng: Rng, radius: float, roughness: float, aspect: float) -> np.ndarray:
    """Draw a star-shaped mask by a random outline (Fourier series); bool, odd edge lengths."""
    reach = int(np.ceil(radius * (1 + 3 * roughness) * np.sqrt(aspect))) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    turn = rng.uniform(0, np.pi)
    along = (y * np.sin(turn) + x * np.cos(turn)) / np.sqrt(aspect)
    across = (y * np.cos(turn) - x * np.sin(turn)) * np.sqrt(aspect)
    angle = np.arctan2(across, along)
    outline = np.ones_like(angle)
    for order in range(2, 6):
        amplitude, phase = rng.normal(0, roughness / order), rng.uniform(0, 2 * np.pi)
        outline += amplitude * 2 * np.cos(order * angle + phase)
    return np.asarray(np.hypot(along, across) < radius * np.maximum(outline, 0.3))


def stamp(labels: np.ndarray, number: int, centre: np.ndarray, mask: np.ndarray) -> None:
    """Put a mask's object into labels, over what is there; what lies outside is cut off."""
    corner = centre.round().astype(int) - len(mask) // 2
    low = np.maximum(corner, 0)
    high = np.minimum(corner + len(mask), labels.shape)
    if (low < high).all():
        inside = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
        place = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        labels[place][mask[inside]] = number


def borders(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels beside which another object, or none, begins."""
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        step = np.diff(labels.astype(np.int32), axis=axis) != 0
        first = tuple(slice(0, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        found[first] |= step
        found[second] |= step
    return found


def largest_parts(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Keep each object's largest part, and number those of at least `smallest` pixels anew."""
    kept = np.zeros_like(labels)
    number = 0
    for old, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        parts, count = ndimage.label(labels[box] == old)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        if count and sizes.max() >= smallest:
            number += 1
            kept[box][parts == 1 + sizes.argmax()] = number
    return kept


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of two others."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class SyntheticImageSource:
    """Pictures from `make_synthetic_image`, with seeds that begin with a given number."""

    seed: int

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Generate an image and normalise it as a frame."""
        scene = make_synthetic_image([self.seed, int(rng.integers(2**31))], EDGE)
        return normalise(scene.image, channels), scene.layers


def normalise(image: np.ndarray, channels: int) -> np.ndarray:
    """Normalise an image (Y, X) or (Y, X, 3) as a frame, float32 (C, Y, X)."""
    colour = image.ndim == 3
    stack = open_stack(image, axes="YXS" if colour else "YX")
    picked = stack.pick_channels(channels, None)
    window = tuple(slice(0, n) for n in image.shape[:2])
    return Normaliser.from_stack(stack, (), 2, picked)(stack.read((), window, picked))
