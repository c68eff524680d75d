"""Where a model is uncertain in a stack: the regions most worth correcting, in that order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.instances.uncertainty import (
    UncertainRegion,
    rank_uncertain_regions,
    uncertainty_map,
)
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.diameter_estimation import diameter_steps
from napari_unet.nn.inference.map_source import run_frame
from napari_unet.nn.inference.model import check_fit, choose_scale, open_frame
from napari_unet.nn.inference.runner import FLIPS, OFF

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_unet.core.image.frames import Frame
    from napari_unet.nn.inference.model import Model

    Known = Callable[[tuple[int, ...]], np.ndarray | None]


@dataclass(frozen=True)
class FrameUncertainty(Progress):
    """How uncertain one frame is: the map, float32 ([Z,] Y, X), and its uncertain regions."""

    index: tuple[int, ...] = ()
    uncertainty: np.ndarray | None = None
    places: tuple[UncertainRegion, ...] = ()


def find_uncertain_regions(
    source: Any,
    model: Model,
    settings: PredictSettings | None = None,
    *,
    known: Known | None = None,
    agreement: bool = False,
) -> Generator[Progress, None, list[UncertainRegion]]:
    """Find what is most worth correcting, yielding after every tile and frame.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    known
        Returns for a frame, given by its index, what was annotated already: bool ([Z,] Y, X), or
        None.
    agreement
        Whether disagreement between the mirrored image and the image counts as uncertain, too;
        takes 4 to 8 times as long.

    Returns
    -------
    list of UncertainRegion
        Of all frames, the most uncertain first.
    """
    stack = open_stack(source)
    check_fit(stack, model)
    settings, _ = yield from diameter_steps(stack, model, settings or PredictSettings(survey=False))
    settings = replace(settings, augment=OFF)
    indices = stack.indices(model.spec.ndim)
    found: list[UncertainRegion] = []
    for number, index in enumerate(indices):
        frame = open_frame(stack, model, settings, index)
        maps = yield from _maps(model, frame, settings, number, len(indices))
        other = None
        if agreement:
            mean = yield from _maps(
                model, frame, replace(settings, augment=FLIPS), number, len(indices)
            )
            # Where all views agree, their mean is the first one's maps.
            other = np.minimum(1, 2 * np.abs(maps - mean).max(0))
        places = _places(model, frame, maps, settings, known, other)
        uncertainty = uncertainty_map(maps, get_head(model.spec))
        if other is not None:
            uncertainty = np.maximum(uncertainty, other)
        found += places
        yield FrameUncertainty(
            number + 1, len(indices), "frames", index, uncertainty, tuple(places)
        )
    return sorted(found, key=lambda place: (-place.score, place.index, place.centre))


def _maps(
    model: Model, frame: Frame, settings: PredictSettings, number: int, total: int
) -> Generator[Progress, None, np.ndarray]:
    """Predict one frame's maps, float32 (K, [Z,] Y, X), yielding after every tile."""
    maps = np.zeros((len(get_head(model.spec).names), *frame.size), np.float32)
    for window, inner in run_frame(model, frame, settings, live=True):
        maps[(slice(None), *window)] = inner
        yield Progress(number, total, "frames")
    return maps


def _places(
    model: Model,
    frame: Frame,
    maps: np.ndarray,
    settings: PredictSettings,
    known: Known | None,
    disagreement: np.ndarray | None,
) -> list[UncertainRegion]:
    head, ndim = get_head(model.spec), model.spec.ndim
    if model.spec.head == "instance":
        decoding = model.decoding.in_image(choose_scale(model, settings), ndim)
        labels = decode_instances(
            maps, decoding.updated(threshold=settings.threshold, merge=settings.merge)
        )
    else:
        labels = maps.argmax(0)
    return rank_uncertain_regions(
        maps,
        labels,
        head,
        known=known(frame.index) if known else None,
        disagreement=disagreement,
        index=frame.index,
    )
