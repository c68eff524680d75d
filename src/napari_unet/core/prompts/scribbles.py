"""Scribbles: strokes on some objects and on the background, from which the rest is told apart.

Here is what needs no network: filters of an image, and objects out of a probability.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.settings.tasks import DecodeSettings

BACKGROUND, OBJECT = 1, 2
"""Values of scribbles, as the journal has them: 1 + the class."""
SCALES = (1.0, 2.0, 4.0, 8.0)
"""Widths of the filters (standard deviation of the Gaussian), in pixels."""
SMOOTHED = 0.5
"""Width by which a probability is smoothed before it is divided, in pixels."""
MERGED = 0.25
"""Parts are one object where the neck between them is wider than exp(-MERGED), 78 %, of the
narrower part."""
SMALLEST = 20
"""Smaller objects are dropped, in pixels."""


def filter_image(image: np.ndarray) -> np.ndarray:
    """Return what a pixel's surroundings look like: value, edges and blobs at several scales.

    Parameters
    ----------
    image
        Normalised float32 (C, Y, X).

    Returns
    -------
    np.ndarray
        float32 (13 C, Y, X): each channel, and for each of `SCALES` its Gaussian, the gradient's
        magnitude and the Laplacian, the latter two in units of the scale.
    """
    found = []
    for channel in image:
        found.append(channel)
        for scale in SCALES:
            found.append(ndimage.gaussian_filter(channel, scale))
            found.append(ndimage.gaussian_gradient_magnitude(channel, scale) * scale)
            found.append(ndimage.gaussian_laplace(channel, scale) * scale**2)
    return np.stack(found).astype(np.float32, copy=False)


def divide_foreground(probability: np.ndarray) -> np.ndarray:
    """Divide what is probably foreground into objects, at their necks.

    Parameters
    ----------
    probability
        Of being a part of any object, float32 (Y, X).

    Returns
    -------
    np.ndarray
        uint32 (Y, X), 0 is background.
    """
    smooth = ndimage.gaussian_filter(probability, SMOOTHED)
    depth = ndimage.distance_transform_edt(smooth > 0.5).astype(np.float32)
    # Differences of logarithms are ratios: large and small objects are divided alike.
    height = np.log(np.maximum(ndimage.gaussian_filter(depth, 1.0), 0.5))
    settings = DecodeSettings(0.5, MERGED, SMALLEST)
    return decode_instances(np.stack([smooth, height]), settings)
