"""The hills of a frame, a hill an object, as the network sees them: what a split goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.frames import Resampling

if TYPE_CHECKING:
    from napari_unet.core.tiles import Window
    from napari_unet.nn.clicks.features import FrameFeatures


def predicted_hills(features: FrameFeatures, window: Window) -> np.ndarray | None:
    """Return the predicted distance to the objects' borders, 0 outside of what the model sees.

    Parameters
    ----------
    features
        Of the frame; what is missing of them is computed.
    window
        In the frame's pixels, as the stack has them.

    Returns
    -------
    np.ndarray or None
        float32, of the window's shape; None for a model of classes, which predicts no distance.
    """
    frame = features.frame
    if features.spec.head != "instance":
        return None
    zooms = [Resampling(m, n) for m, n in zip(frame.shape, frame.size, strict=True)]
    needed = tuple(z.needs(w.start, w.stop) for z, w in zip(zooms, window, strict=True))
    with torch.inference_mode():
        seen = features.runner.read(features.read(needed)[None, :-1])[0]
        hills = torch.where(seen[0] > 0, seen[1], 0).clamp(min=0).cpu().numpy()
    for axis, (zoom, part) in enumerate(zip(zooms, window, strict=True)):
        hills = zoom.apply(hills, axis, part.start, part.stop)
    return np.asarray(hills, np.float32)
