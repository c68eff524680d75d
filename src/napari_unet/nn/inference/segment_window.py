"""The labels of a part of one frame, without an array of the size of the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.volumes.volume_mode import (
    JOINED,
    ORTHOGONAL,
    PLANES,
    resolve_volume_mode,
)
from napari_unet.nn.inference.segment import segment_steps

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.segment import Step


def segment_window(
    stack: Stack, model: Model, settings: PredictSettings, index: Index, window: Window
) -> Generator[Step, None, np.ndarray]:
    """Segment a window of one frame, without the checks of a run.

    The parameters are those of `segment_steps`. One plane of a volume is segmented as it is: what
    joins planes would drop objects that are small in it, for it takes them for whole ones.

    Returns
    -------
    np.ndarray
        uint32, of the window's shape.

    Raises
    ------
    UnetError
        As `segment_steps`.
    """
    settings = replace(settings, certify=False, survey=False)
    spec = model.spec
    if resolve_volume_mode(settings.volumes, spec.ndim, spec.head, stack) in (JOINED, ORTHOGONAL):
        # The smallest object that was asked for is a whole one, too.
        settings = replace(settings, volumes=PLANES, min_size=None)
    out = _WindowLabels(stack.labels_shape, index, window)
    yield from segment_steps(stack, model, settings, out=out, what=[index], window=window)
    return out.values


class _WindowLabels:
    """Takes the place of the whole image's labels, and holds a window of one frame of them."""

    dtype = np.dtype(np.uint32)

    def __init__(self, shape: tuple[int, ...], index: Index, window: Window) -> None:
        self.shape, self.ndim = shape, len(shape)
        self._start = [*index, *(w.start for w in window)]
        self.values = np.zeros([w.stop - w.start for w in window], self.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.values[self._inside(key)]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.values[self._inside(key)] = values

    def _inside(self, key: tuple[int | slice, ...]) -> tuple[int | slice, ...]:
        """Move a place in the image into the window: planes of a volume may be single ones."""
        moved: list[int | slice] = []
        leading = len(self._start) - self.values.ndim
        for axis, (at, start) in enumerate(zip(key, self._start, strict=True)):
            if isinstance(at, slice):
                moved.append(slice(at.start - start, at.stop - start))
            elif axis >= leading:
                moved.append(at - start)
        return tuple(moved)
