"""Where training crops are cut, and how they are warped: a few numbers for each, drawn at random.

`nn.training.augment` makes the pixels from them, on the training device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.image.diameters import working_scale

if TYPE_CHECKING:
    from napari_unet.core.training.samples import Sample, Samples

SCALES = (0.5, 2.0)
"""Crops are zoomed by a factor drawn from this range (log-uniform)."""
DIAMETERS = (7.0, 64.0)
"""... and by no more than keeps an image's typical object within this range, in pixels."""
DOUBT = 0.85
"""Crops that are taken as they will be predicted are zoomed by up to this much less or more than
their objects' size asks for: in use that size is an estimate."""


@dataclass(frozen=True)
class CropPlan:
    """Where one training crop is taken: everything that is random about its geometry.

    Attributes
    ----------
    item
        Index of the sample.
    centre
        ([z,] y, x) in the sample's pixels.
    angle
        Rotation in the plane, in radians.
    zoom
        Crop pixels a sample pixel, in y and x.
    flip
        Whether the crop is mirrored.
    elastic
        float32 (2, 4, 4): displacements at a coarse grid over the crop's planes, in crop pixels.
    vary
        Whether the intensities are varied, too.
    zoom_z, flip_z
        The same along z.
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
    """Draw one crop, centred on a known object in four of five cases.

    Volumes are turned about z and zoomed in the plane only: along z voxels have another size.

    Parameters
    ----------
    samples, weights
        The images, and how often each is drawn.
    rng
        Source of everything random.
    plain
        Share of crops that show an image as the finished network will see it: turned by right
        angles and mirrored, but neither warped nor varied.
    diameter
        Of the objects that the network is to be best at, in pixels: images with others are zoomed
        to it before all else. None: images are taken at their own scale.
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
        # Crops have an even size: their middle lies between pixels.
        middle = np.array([*centre[:-2], *(np.floor(centre[-2:]) + 0.5)])
        doubt = float(rng.uniform(DOUBT, 1 / DOUBT)) if scale != 1 else 1.0
        return CropPlan(
            centre=tuple(middle.tolist()),
            angle=float(rng.integers(4)) * np.pi / 2,
            zoom=scale * doubt,
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
    """Draw where a crop is cut: near a known object, or anywhere that is known."""
    volume = sample.known.ndim == 3
    centre = rng.uniform(0, sample.known.shape)
    places, chance = sample.on_objects, rng.random()
    if not len(places) or chance >= 0.8:
        places = sample.on_known
    if len(places):
        step = rng.normal(0, 24 / zoom, sample.known.ndim)
        if volume:  # whole planes of the crop, so that the known plane is one of them
            step[0] = round(rng.normal(0, 4)) / zoom_z
        centre = places[rng.integers(len(places))] + step
    elif volume:
        centre[0] = np.floor(centre[0])
    return np.asarray(centre)
