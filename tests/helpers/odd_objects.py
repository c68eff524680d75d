"""Labels of objects as no test would draw them: of odd shapes, with holes and close neighbours."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label


def random_labels(seed: int, shape: tuple[int, ...], smooth: float = 1.5) -> np.ndarray:
    """Return labels of a plane or volume; the smoother, the larger the objects."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), smooth)
    return label(np.digitize(noise, np.quantile(noise, [0.4, 0.7])), connectivity=1)
