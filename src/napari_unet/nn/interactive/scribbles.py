"""A first segmentation of any image from a few scribbles on objects and on the background.

A small network of a pixel's features learns from the scribbles in less than a second: the features
are filters of the image, as in ilastik (Berg et al. 2019, doi:10.1038/s41592-019-0582-9), and the
maps that a model finds there at two scales, of use even where it takes something else for objects.
Features of the inner layers were worse, on images like those that the model was trained on, too:
there are hundreds, and a few strokes show only a few places (benchmarks/scribbles.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.errors import InputError
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT, divide_foreground, filter_image
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.model_input import choose_scale, get_channels, open_frame
from napari_unet.nn.inference.tile_runner import open_tile_runner

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.model import Model

SHRUNK = (1.0, 0.5)
"""Scales at which the model sees the image, beside that of the settings."""
HIDDEN, STEPS, BATCH, RATE, DECAY, DROPOUT = 16, 150, 512, 0.01, 0.01, 0.3
"""Hidden units, and how they are trained; dropout of features, lest it trust a single one."""
MOST_PIXELS = 2048 * 2048
"""A larger window would not be answered while the user waits."""
ROWS = 256
"""Rows that are classified at once."""


@dataclass(frozen=True, eq=False)
class ScribbleFeatures:
    """What is known of each pixel of a window before anybody scribbles.

    Attributes
    ----------
    values
        float16 (F, Y, X).
    index, window
        Where it lies: a plane of the stack, and the part of it.
    """

    values: np.ndarray
    index: Index
    window: Window


def feature_steps(
    stack: Stack,
    model: Model,
    index: Index = (),
    window: Window | None = None,
    settings: PredictSettings | None = None,
) -> Generator[Progress, None, ScribbleFeatures]:
    """Compute the features of a window, yielding after every tile.

    Parameters
    ----------
    stack, model
        The image, and a model of planes.
    index, window
        A plane, and the part of it; all of it if not given.
    settings
        Channel, and the diameter that the model is told; without, it sees the image as it is.

    Raises
    ------
    InputError
        The model sees volumes, or the window is too large.
    """
    settings = settings or PredictSettings()
    if model.spec.ndim != 2:
        raise InputError(
            f"The model {model.name!r} works on volumes; choose a 2D model to segment by scribbles."
        )
    window = window or tuple(slice(0, size) for size in stack.frame_shape(2))
    pixels = np.prod([part.stop - part.start for part in window])
    if pixels > MOST_PIXELS:
        raise InputError(
            f"What is in view has {pixels / 1e6:.0f} megapixels; zoom in to at most "
            f"{MOST_PIXELS / 1e6:.0f} to segment by scribbles."
        )
    frame = open_frame(stack, model, settings, index)
    yield Progress(0, 1 + len(SHRUNK), "features")
    distinct = tuple(sorted(set(get_channels(stack, model, settings))))
    image = frame.normaliser(stack.read(index, window, distinct))
    parts = [filter_image(image).astype(np.float16)]
    for number, shrunk in enumerate(SHRUNK if model.has_features else (), 1):
        yield Progress(number, 1 + len(SHRUNK), "features")
        at = frame.at(choose_scale(model, settings) * shrunk)
        parts.append((yield from _map_steps(model, at, settings, window)))
    return ScribbleFeatures(np.concatenate(parts), index, window)


def _map_steps(
    model: Model, frame: Frame, settings: PredictSettings, window: Window
) -> Generator[Progress, None, np.ndarray]:
    """Return the raw maps of a window, float16 (K, Y, X), limited: certainty does not matter."""
    runner = open_tile_runner(model, frame, replace(settings, batch=1), live=True)
    found: np.ndarray | None = None
    tiles = runner.plan(window)
    for number, (tile, raw) in enumerate(runner.run(tiles)):
        maps = raw[(slice(None), *tile.inner)].cpu().numpy()
        if found is None:
            sizes = [part.stop - part.start for part in window]
            found = np.zeros((len(maps), *sizes), np.float16)
        place = [
            (max(w.start, v.start), min(w.stop, v.stop))
            for w, v in zip(tile.write, window, strict=True)
        ]
        to = (slice(a - v.start, b - v.start) for (a, b), v in zip(place, window, strict=True))
        of = (slice(a - w.start, b - w.start) for (a, b), w in zip(place, tile.write, strict=True))
        found[(slice(None), *to)] = np.clip(maps[(slice(None), *of)], -8, 8)
        yield Progress(number, len(tiles), "features")
    assert found is not None  # a window has pixels
    return found


class ScribbleClassifier:
    """Tells objects from background by features; learned from scribbles in less than a second.

    Parameters
    ----------
    features, scribbles
        (F, N), and for each of these pixels `BACKGROUND` or `OBJECT`; both occur.
    """

    def __init__(self, features: np.ndarray, scribbles: np.ndarray) -> None:
        x = torch.from_numpy(features.T.astype(np.float32))
        y = torch.from_numpy((scribbles == OBJECT).astype(np.float32))
        generator = torch.Generator().manual_seed(0)
        self._mean, self._std = x.mean(0), x.std(0) + 1e-3
        self._inner, self._outer = nn.Linear(x.shape[1], HIDDEN), nn.Linear(HIDDEN, 1)
        for layer in (self._inner, self._outer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        # Strokes are of unequal length: objects and background count alike.
        share = y.mean()
        weight = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))
        self._fit((x - self._mean) / self._std, y, weight, generator)

    def _fit(self, x: Tensor, y: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        parameters = itertools.chain(self._inner.parameters(), self._outer.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
        with torch.enable_grad():
            for step in range(STEPS):
                optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
                drawn = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
                kept = torch.rand((len(drawn), x.shape[1]), generator=generator) >= DROPOUT
                logits = self._outer(F.relu(self._inner(x[drawn] * kept / (1 - DROPOUT))))[:, 0]
                loss = F.binary_cross_entropy_with_logits(logits, y[drawn], weight=weight[drawn])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    @torch.inference_mode()
    def probability(self, features: np.ndarray) -> np.ndarray:
        """Return how probable it is that a pixel belongs to an object: (F, Y, X) to (Y, X)."""
        kernel = self._inner.weight / self._std
        shift = self._inner.bias - kernel @ self._mean
        found = np.empty(features.shape[1:], np.float32)
        for row in range(0, len(found), ROWS):
            part = torch.from_numpy(features[:, row : row + ROWS].astype(np.float32))
            hidden = F.relu(torch.tensordot(kernel, part, 1) + shift[:, None, None])
            logits = torch.tensordot(self._outer.weight[0], hidden, 1) + self._outer.bias
            found[row : row + ROWS] = torch.sigmoid(logits).numpy()
        return found


def segment_scribbles(features: ScribbleFeatures, scribbles: np.ndarray) -> np.ndarray:
    """Segment a window by scribbles.

    Parameters
    ----------
    features
        Of `feature_steps`.
    scribbles
        (Y, X), of the window: `BACKGROUND` and `OBJECT`, 0 where there is none.

    Returns
    -------
    np.ndarray
        uint32 (Y, X): objects, 0 is background.

    Raises
    ------
    InputError
        There are no scribbles on objects, or none on the background.
    """
    for value, what in ((OBJECT, "an object"), (BACKGROUND, "the background")):
        if not (scribbles == value).any():
            raise InputError(f"There is no scribble on {what} in view; draw one.")
    drawn = (scribbles == OBJECT) | (scribbles == BACKGROUND)
    classifier = ScribbleClassifier(features.values[:, drawn], scribbles[drawn])
    return divide_foreground(classifier.probability(features.values))
