"""The frames of a stack that are clicked in: what answers in each, kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from napari_unet.core.progress import Progress
from napari_unet.nn.inference.embeddings import FrameFeatures
from napari_unet.nn.inference.model import open_frame
from napari_unet.nn.interactive.initial_mask import InitialMask
from napari_unet.nn.interactive.mask_predictor import EDGE, MaskPredictor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings import PredictSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.unet.click_head import ClickHead

FRAMES = 16
"""Frames whose percentiles are remembered."""


class ClickFrames:
    """What answers clicks in the frames of a stack. Threads may share it.

    Parameters
    ----------
    stack, model, settings
        What is looked at, through what, and how.
    cache
        Features of the stack.
    head
        The model's click head, made `ready`.
    """

    def __init__(
        self,
        stack: Stack,
        model: Model,
        settings: PredictSettings,
        cache: FeatureCache,
        head: ClickHead,
    ) -> None:
        self._stack, self._model, self._settings = stack, model, settings
        self._cache, self._head = cache, head
        self._clickers: OrderedDict[Index, MaskPredictor] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, head: ClickHead) -> None:
        """Take another click head, made `ready`; the features stay."""
        with self._lock:
            self._head = head
            self._clickers.clear()

    def at(self, index: Index) -> MaskPredictor:
        """Return what answers in a frame; the frames used last are kept."""
        with self._lock:
            found = self._clickers.get(index)
            if found is None:
                found = self._clickers[index] = self._open(index)
            self._clickers.move_to_end(index)
            while len(self._clickers) > FRAMES:
                self._clickers.popitem(last=False)
            return found

    def warm(self, index: Index, pixel: Index) -> Iterator[Progress]:
        """Compute the features around a pixel, there first; yield after each part of them."""
        features = self.at(index).features
        windows = list(_around(features, pixel))
        for done, window in enumerate(windows, 1):
            features.read(window)
            yield Progress(done, len(windows), "features")

    def _open(self, index: Index) -> MaskPredictor:
        model, settings = self._model, self._settings
        frame = open_frame(self._stack, model, settings, index)
        runner = model.runner(model.choose_precision(settings.precision))
        features = FrameFeatures(runner, model.spec, frame, self._cache)
        return MaskPredictor(features, self._head, InitialMask.of(model))


def _around(features: FrameFeatures, pixel: Index) -> Iterator[Window]:
    """Yield the window that a first click there looks at, then the rings of cells around it."""
    frame, edge = features.frame, EDGE[features.spec.ndim]
    ratios = [m / n for m, n in zip(frame.shape, frame.size, strict=True)]
    at = [round((p + 0.5) * r) for p, r in zip(pixel, ratios, strict=True)]
    for reach in (edge // 2, edge, 2 * edge):
        yield tuple(
            slice(max(0, a - reach), min(n, a + reach))
            for a, n in zip(at, frame.shape, strict=True)
        )
