"""Generated volumes of nuclei with labels, to train and test 3D networks with.

Ellipsoids with bumps, many of them touching, each with its own brightness and texture; haze that
grows with depth; blur and sampling that are coarser along z; photon and camera noise. Everything
follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lab.synthetic_images import largest_parts, log_uniform

Rng = np.random.Generator

SMALLEST = 30
"""Objects of fewer voxels, such as what others cover, are dropped."""


@dataclass(frozen=True)
class SyntheticVolume:
    """A generated volume and its objects.

    Attributes
    ----------
    image
        float32 (Z, Y, X), about 0 to 1.
    labels
        uint16 (Z, Y, X), consecutive from 1.
    voxel_size_um
        (z, y, x); y and x are 1.
    """

    image: np.ndarray
    labels: np.ndarray
    voxel_size_um: tuple[float, float, float]


def make_volume(
    seed: int | list[int],
    shape: tuple[int, int, int] = (32, 96, 96),
    *,
    anisotropy: float | None = None,
    diameter: float | None = None,
    crowding: float | None = None,
) -> SyntheticVolume:
    """Generate a volume of nuclei.

    Parameters
    ----------
    seed
        Of everything in it.
    shape
        (Z, Y, X) in voxels.
    anisotropy
        How much longer a voxel is in z than in the plane; drawn from 1 to 4 if not given.
    diameter
        Of a typical nucleus, in pixels of the plane; drawn from 10 to 28 if not given.
    crowding
        Share of the volume that nuclei would fill if none lay on another; drawn if not given.
    """
    rng = np.random.default_rng(seed)
    ratio = log_uniform(rng, 1, 4) if anisotropy is None else anisotropy
    size = log_uniform(rng, 10, 28) if diameter is None else diameter
    share = rng.uniform(0.1, 0.6) if crowding is None else crowding
    labels = _nuclei(rng, shape, ratio, size, share)
    return SyntheticVolume(_photograph(rng, labels, ratio, size), labels, (ratio, 1.0, 1.0))


def _nuclei(
    rng: Rng, shape: tuple[int, ...], ratio: float, size: float, share: float
) -> np.ndarray:
    """Place nuclei one after the other; those before keep their voxels, so that many touch."""
    labels = np.zeros(shape, np.uint16)
    extent = np.array(shape) * (ratio, 1, 1)
    count = max(1, round(share * extent.prod() / (np.pi / 6 * size**3)))
    for number in range(1, min(count, 2**16 - 1) + 1):
        radii = size / 2 * rng.lognormal(0, 0.15) * rng.lognormal(0, 0.15, 3)
        _stamp(rng, labels, number, rng.uniform(0, extent), radii, ratio)
    return largest_parts(labels, SMALLEST)


def _stamp(
    rng: Rng, labels: np.ndarray, number: int, centre: np.ndarray, radii: np.ndarray, ratio: float
) -> None:
    """Put a bumpy, turned ellipsoid where nothing is yet; lengths in pixels of the plane."""
    step = np.array([ratio, 1, 1])
    reach = 1.2 * radii.max()
    low = np.maximum(np.floor((centre - reach) / step), 0).astype(int)
    high = np.minimum(np.ceil((centre + reach) / step) + 1, labels.shape).astype(int)
    if (low >= high).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)),
                                indexing="ij"), -1)  # fmt: skip
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    place = (grid * step - centre) @ turn / radii
    waves = sum(
        rng.normal(0, 0.06) * np.sin(place @ rng.normal(0, 2, 3) + rng.uniform(0, 2 * np.pi))
        for _ in range(3)
    )
    inside = np.linalg.norm(place, axis=-1) + waves < 1
    part = labels[box]
    part[inside & (part == 0)] = number


def _photograph(rng: Rng, labels: np.ndarray, ratio: float, size: float) -> np.ndarray:
    """Light the nuclei, blur, dim with depth, and add noise."""
    light = rng.lognormal(0, rng.uniform(0.1, 0.4), int(labels.max()) + 1)
    light[0] = 0
    grain = ndimage.gaussian_filter(
        rng.normal(size=labels.shape), (size / 8 / ratio, size / 8, size / 8)
    )
    texture = np.exp(rng.uniform(0, 0.4) * grain / (grain.std() + 1e-9))
    image = light[labels] * texture
    width = rng.uniform(0.5, 1.6)
    image = ndimage.gaussian_filter(image, (rng.uniform(1.5, 3) * width / ratio, width, width))
    wide = size / 2
    haze = ndimage.gaussian_filter(image, (wide / ratio, wide, wide))
    image = image + rng.uniform(0, 0.4) * haze
    depth = np.linspace(1, rng.uniform(0.4, 1), len(image))[:, None, None]
    image = np.clip(image, 0, None) * depth + rng.uniform(0, 0.1)
    photons = log_uniform(rng, 15, 400)
    image = rng.poisson(photons * image) / photons
    image += rng.normal(0, log_uniform(rng, 0.005, 0.08), image.shape)
    return np.asarray(image, np.float32)
