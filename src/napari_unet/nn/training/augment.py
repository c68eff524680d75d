"""Random training crops of the samples: where they are cut, how they are warped and varied.

`draw_crop` decides everything random about the geometry; `make_batch` resamples the pixels once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_unet.core.image.diameters import working_scale
from napari_unet.core.instances.heads import SemanticHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.training.samples import Samples
    from napari_unet.core.training.training_sample import Sample


SCALES = (0.5, 2.0)
"""Range of the zoom of crops (log-uniform) ..."""
DIAMETERS = (7.0, 64.0)
"""... limited so that an image's typical object stays within this range, in pixels."""
SIZE_ERROR = 0.85
"""Plain crops are zoomed by up to this factor less or more than their objects' size requires: in
use that size is an estimate."""


@dataclass(frozen=True)
class CropPlan:
    """The geometry of one training crop: everything random about it.

    Attributes
    ----------
    item
        Index of the sample.
    centre
        ([z,] y, x) in the sample's pixels.
    angle
        Rotation in the plane, in radians.
    zoom
        Crop pixels per sample pixel, in y and x.
    flip
        Whether the crop is mirrored.
    elastic
        float32 (2, 4, 4): displacements on a coarse grid over the crop's planes, in crop pixels.
    vary
        Whether the intensities are varied, too.
    zoom_z, flip_z
        Zoom and mirroring along z.
    """

    item: int
    centre: tuple[float, ...]
    angle: float
    zoom: float
    flip: bool
    elastic: np.ndarray
    vary: bool = True
    zoom_z: float = 1.0
    flip_z: bool = False


def draw_crop(
    samples: Samples,
    weights: np.ndarray,
    rng: np.random.Generator,
    *,
    plain: float = 0.0,
    diameter: float | None = None,
) -> CropPlan:
    """Draw one crop, centred near a known object in four of five cases.

    Volumes are rotated and zoomed in the plane only: along z voxels have another size.

    Parameters
    ----------
    samples, weights
        The images, and the probability of each.
    rng
        Source of everything random.
    plain
        Share of plain crops, which show an image as the finished network will see it: rotated by
        right angles and mirrored, but neither warped nor varied.
    diameter
        Working diameter of the network, in pixels, to which images are zoomed first. None: images
        keep their own scale.
    """
    item = int(rng.choice(len(samples.items), p=weights))
    sample = samples.items[item]
    scale = working_scale(sample.diameter, diameter)
    zoom = scale
    if rng.random() < 0.6:
        zoom *= float(np.exp(rng.uniform(*np.log(SCALES))))
    if sample.diameter:
        low, high = (limit / sample.diameter for limit in DIAMETERS)
        zoom = float(np.clip(zoom, min(low, 2.0 * scale), max(high, 0.25 * scale)))
    centre = _draw_centre(sample, zoom, scale, rng)
    amplitude = rng.uniform(0, 6) if rng.random() < 0.3 else 0.0
    common: dict[str, Any] = {"item": item, "zoom_z": scale}
    if sample.known.ndim == 3:
        common["flip_z"] = bool(rng.random() < 0.5)
    if rng.random() < plain:
        # Crops have an even size, so that their middle lies between pixels.
        middle = np.array([*centre[:-2], *(np.floor(centre[-2:]) + 0.5)])
        error = float(rng.uniform(SIZE_ERROR, 1 / SIZE_ERROR)) if scale != 1 else 1.0
        return CropPlan(
            centre=tuple(middle.tolist()),
            angle=float(rng.integers(4)) * np.pi / 2,
            zoom=scale * error,
            flip=bool(rng.random() < 0.5),
            elastic=np.zeros((2, 4, 4), np.float32),
            vary=False,
            **common,
        )
    return CropPlan(
        centre=tuple(centre.tolist()),
        angle=float(rng.uniform(0, 2 * np.pi)),
        zoom=zoom,
        flip=bool(rng.random() < 0.5),
        elastic=rng.normal(0, 1, (2, 4, 4)).astype(np.float32) * np.float32(amplitude),
        **common,
    )


def _draw_centre(
    sample: Sample, zoom: float, zoom_z: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the centre of a crop: near a known object, or near any known pixel."""
    volume = sample.known.ndim == 3
    centre = rng.uniform(0, sample.known.shape)
    places, chance = sample.on_objects, rng.random()
    if not len(places) or chance >= 0.8:
        places = sample.on_known
    if len(places):
        step = rng.normal(0, 24 / zoom, sample.known.ndim)
        if volume:  # by whole planes, so that a single known plane is one of the crop's
            step[0] = round(rng.normal(0, 4)) / zoom_z
        centre = places[rng.integers(len(places))] + step
    elif volume:
        centre[0] = np.floor(centre[0])
    return np.asarray(centre)


def make_batch(
    samples: Samples,
    plans: Sequence[CropPlan],
    size: int,
    rng: np.random.Generator,
    planes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut, warp and vary crops.

    Parameters
    ----------
    samples
        Samples of equal channel and map counts.
    plans
        One for each crop.
    size
        Edge length S of the crops in y and x, in pixels.
    rng
        Source of the intensity variations.
    planes
        How many planes Z a crop of a volume has.

    Returns
    -------
    images, targets, known
        float32 (N, C, [Z,] S, S), (N, K, [Z,] S, S) and (N, 1, [Z,] S, S) or, for an instance head,
        (N, 2, [Z,] S, S): where the foreground is known, and where all targets are; 0 where
        unknown, 1 or the sample's `background_weight` where known.
    """
    classes = isinstance(samples.head, SemanticHead)
    crops = [
        warp_crop(samples.items[plan.item], plan, size, classes=classes, planes=planes)
        for plan in plans
    ]
    images, targets, known = (torch.stack(parts) for parts in zip(*crops, strict=True))
    images = torch.stack(
        [
            vary_intensity(image, rng) if plan.vary else image
            for image, plan in zip(images, plans, strict=True)
        ]
    )
    return images, targets, known


def warp_crop(
    sample: Sample, plan: CropPlan, size: int, *, classes: bool = False, planes: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Resample image, targets and known masks of one crop; as `make_batch`, without N.

    Beyond the border all three are mirrored. The maps of `classes` stay 0 or 1: a pixel gets the
    class that covers most of it.
    """
    grid = _crop_grid(plan, size)
    # Only the part under the crop goes through grid_sample: images may be far larger.
    low = torch.floor(grid.amin((0, 1))).long() - 2  # a margin for the interpolation
    high = torch.ceil(grid.amax((0, 1))).long() + 3
    place = [np.arange(int(n), int(m)) for n, m in zip(low, high, strict=True)]
    if planes:
        place = [_planes(plan, planes, len(sample.labels)), *place]
    # Warping is most of the time of a crop: what is the same everywhere, or twice, is left out.
    image = sample.image[:1] if sample.is_grey else sample.image
    masks = [] if sample.all_known else [sample.known]
    if masks and sample.scribbled is not None and not classes:
        masks = [sample.foreground_known, *masks]
    fields = [*image, *sample.targets, *masks]
    part = torch.from_numpy(_window(fields, place))
    leading, part = part.shape[:-2], part.flatten(0, -3)
    if plan.zoom < 1:  # the filter that prediction shrinks images with, against aliasing
        part = _smooth(part, math.sqrt((1 / plan.zoom**2 - 1) / 6))
    extent = torch.tensor([part.shape[1] - 1, part.shape[2] - 1], dtype=torch.float32)
    unit = (grid - low) / extent * 2 - 1
    warped = F.grid_sample(part[None], unit.flip(-1)[None], align_corners=True)[0]
    warped = warped.reshape(*leading, size, size)
    pixels, targets, known = torch.split(warped, [len(image), len(sample.targets), len(masks)])
    if classes:
        targets = F.one_hot(targets.argmax(0), len(targets)).movedim(-1, 0).float()
    else:  # the foreground is binary, the distance is not
        targets = torch.cat([(targets[:1] > 0.5).float(), targets[1:]])
    seen = (known > 0.5).float() if masks else torch.ones_like(targets[:1])
    seen = seen.expand(1 if classes else 2, *seen.shape[1:])
    if sample.background_weight != 1:
        seen = torch.where(targets[:1] > 0, seen, seen * sample.background_weight)
    return pixels.expand(len(sample.image), *pixels.shape[1:]), targets, seen


def _window(fields: Sequence[np.ndarray], place: Sequence[np.ndarray]) -> np.ndarray:
    """Cut a window out of fields ([Z,] Y, X), mirrored beyond their border; float32 (N, ...)."""
    window = np.empty((len(fields), *map(len, place)), np.float32)
    for part, values in zip(window, fields, strict=True):
        folded = [_mirror(index, n) for index, n in zip(place, values.shape, strict=True)]
        values = values[tuple(slice(index.min(), index.max() + 1) for index in folded)]
        for axis, index in enumerate(folded):
            index = index - index.min()
            if not np.array_equal(index, np.arange(values.shape[axis])):
                values = values.take(index, axis)
        part[:] = values
    return window


def _planes(plan: CropPlan, planes: int, depth: int) -> np.ndarray:
    """Return the indices of the planes of a volume that make up a crop.

    Planes are not interpolated, so that a single known plane stays one and is in every crop around
    it; they are all warped at once, like channels.
    """
    steps = np.arange(planes) - planes // 2
    z = plan.centre[0] + (-steps if plan.flip_z else steps) / plan.zoom_z
    return _mirror(np.round(z).astype(int), depth)


def _crop_grid(plan: CropPlan, size: int) -> Tensor:
    """Return the source of each crop pixel, float32 (S, S, 2) as (y, x) in sample pixels."""
    line = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    yx = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    if plan.elastic.any():
        coarse = torch.from_numpy(plan.elastic)[None]
        yx = yx + F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0]
    if plan.flip:
        yx = torch.stack([yx[0], -yx[1]])
    cos, sin = np.cos(plan.angle) / plan.zoom, np.sin(plan.angle) / plan.zoom
    y = cos * yx[0] - sin * yx[1] + plan.centre[-2]
    x = sin * yx[0] + cos * yx[1] + plan.centre[-1]
    return torch.stack([y, x], -1)


def _mirror(index: np.ndarray, size: int) -> np.ndarray:
    """Fold indices beyond an axis back into it, as ``numpy.pad(mode="symmetric")`` does."""
    index = np.mod(index, 2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def _smooth(image: Tensor, sigma: float) -> Tensor:
    """Blur (C, [Z,] Y, X) with a Gaussian of `sigma` pixels in the plane."""
    # With few channels and short kernels, sums of shifted planes are several times faster than
    # torch's convolution, and twice as fast as scipy's filter, whose values they are.
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    blurred = torch.empty_like(image, memory_format=torch.contiguous_format)
    for plane, result in zip(image.flatten(0, -3), blurred.flatten(0, -3), strict=True):
        values = plane
        for axis in (0, 1):
            n = values.shape[axis]
            before, after = (values.narrow(axis, at, 1) for at in (0, n - 1))
            padded = torch.cat([*[before] * radius, values, *[after] * radius], axis)
            values = padded.narrow(axis, radius, n) * float(weights[0])
            for step, weight in enumerate(weights[1:].tolist(), 1):
                values.add_(padded.narrow(axis, radius - step, n), alpha=weight)
                values.add_(padded.narrow(axis, radius + step, n), alpha=weight)
        result.copy_(values)
    return blurred


def vary_intensity(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary the intensities of a normalised image (C, [Z,] Y, X), as another microscope might."""
    if rng.random() < 0.25:
        image = 1 - image
    if rng.random() < 0.3 and image.shape[0] == 3:
        image = _mix_channels(image, rng)
    if rng.random() < 0.5:  # gamma, on the part of the range that is no outlier
        gamma = float(np.exp(rng.uniform(-0.7, 0.7)))
        image = image.clamp(0, 1) ** gamma + (image - image.clamp(0, 1))
    if rng.random() < 0.5:
        image = image * float(rng.uniform(0.6, 1.3)) + float(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.25:
        image = image + _uneven_light(image, rng)
    if rng.random() < 0.2:
        image = _smooth(image, float(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.4:
        noise = rng.standard_normal(image.shape[1:], dtype=np.float32)
        image = image + torch.from_numpy(noise) * float(rng.uniform(0, 0.1))
    return image


def _mix_channels(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Permute and blend three channels: stains differ between laboratories."""
    blend = np.eye(3)[rng.permutation(3)] + rng.uniform(-0.25, 0.25, (3, 3))
    blend /= np.abs(blend).sum(1, keepdims=True)
    return torch.einsum("dc,c...->d...", torch.from_numpy(blend.astype(np.float32)), image)


def _uneven_light(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a smooth additive field of the size of the image's planes."""
    coarse = torch.from_numpy(rng.normal(0, 0.12, (1, 1, 3, 3)).astype(np.float32))
    size = (image.shape[-2], image.shape[-1])
    return F.interpolate(coarse, size, mode="bicubic", align_corners=True)[0]
