"""Background that is only assumed around corrected objects, doubted where a model sees objects.

Next to an object that the user drew lie others, of a dense crowd, that were not drawn yet. To learn
that those are background would undo what the user teaches; so what lies near counts as background
only where the model, too, sees none. What the user deleted, drew or marked is never doubted.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.cancellation import run_cancellable
from napari_unet.nn.training.held_out import sample_maps

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model

DOUBT = 0.4
"""Foreground probability above which assumed background may be an object."""

TILE, CONTEXT = 256, 64
"""Edge length in y and x of the parts that are remembered, and what is looked at around them."""
SAME_SCALE = 1.25
"""What was seen is used as long as the objects' diameter differs by less than this factor."""

SeenObjects = dict[tuple[Any, ...], "tuple[float, NDArray[np.bool_]]"]
"""Where a model sees foreground in parts of images, with the diameter that it took objects for."""


def doubt_background(
    model: Model, samples: Samples, seen: SeenObjects | None = None
) -> Generator[None, None, Samples]:
    """Make assumed background unknown where a model sees foreground.

    Parameters
    ----------
    model
        The model before it is tuned, with an instance head.
    samples
        What it is tuned on, see `Sample.assumed`.
    seen
        What the same model saw in earlier samples, part by part: samples that say where they are
        from are looked at only where that is new. What it sees in these is added at once, what they
        do not need goes at the end.

    Yields
    ------
    None
        While an image is looked at, so that the work can be cancelled.

    Returns
    -------
    Samples
        The same with less known; `background_weight` is to be computed anew.
    """
    items = []
    used: set[tuple[Any, ...]] = set()
    for item in samples.items:
        if item.assumed is not None:
            if seen is None or not item.source:
                maps = yield from run_cancellable(partial(sample_maps, model, item))
                objects = maps[0] > DOUBT
            else:
                objects = yield from _look_at_new(model, item, item.assumed, seen, used)
            item = replace(item, known=item.known & ~(item.assumed & objects))
        items.append(item)
    if seen is not None:
        for key in seen.keys() - used:
            del seen[key]
    return Samples(items, samples.head)


def _look_at_new(
    model: Model, item: Sample, assumed: np.ndarray, seen: SeenObjects, used: set[tuple[Any, ...]]
) -> Generator[None, None, np.ndarray]:
    """Return where the model sees foreground, of the parts in which something is assumed."""
    out = np.zeros(assumed.shape, bool)
    origin = item.origin or (0,) * assumed.ndim
    for rows, columns in _parts(assumed.shape[-2:], origin[-2:]):
        part: Any = (..., rows, columns)
        if not assumed[part].any():
            continue
        place = (origin[-2] + rows.start, origin[-1] + columns.start)
        key = (item.source, item.group, origin[:-2], place, out[part].shape)
        diameter, objects = seen.get(key, (0.0, None))
        if objects is None or not _alike(diameter, item.diameter):
            top, left = max(0, rows.start - CONTEXT), max(0, columns.start - CONTEXT)
            wider: Any = (..., slice(top, rows.stop + CONTEXT), slice(left, columns.stop + CONTEXT))
            cut = replace(item, image=item.image[wider], labels=item.labels[wider])
            maps = yield from run_cancellable(partial(sample_maps, model, cut))
            inner: Any = (
                ...,
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            objects = maps[0][inner] > DOUBT
            seen[key] = item.diameter, objects
        used.add(key)
        out[part] = objects
    return out


def _parts(size: tuple[int, ...], origin: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Divide a sample by a grid of its image, so that another sample there has the same parts."""
    spans = []
    for length, start in zip(size, origin, strict=True):
        edges = range(TILE - start % TILE, length, TILE)
        spans.append([slice(*pair) for pair in itertools.pairwise([0, *edges, length])])
    yield from itertools.product(*spans)


def _alike(one: float, other: float) -> bool:
    return one == other or max(one, other) <= SAME_SCALE * min(one, other)
