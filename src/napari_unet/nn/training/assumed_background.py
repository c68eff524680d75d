"""Background that is only assumed around corrected objects, doubted where a model sees objects.

Next to an object that the user drew lie others, of a dense crowd, that were not drawn yet. To learn
that those are background would undo what the user teaches; so what lies near counts as background
only where the model, too, sees none. What the user deleted, drew or marked is never doubted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.cancellation import run_cancellable
from napari_unet.nn.training.held_out import sample_maps

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

    from napari_unet.nn.inference.model import Model

DOUBT = 0.4
"""Foreground probability above which assumed background may be an object."""

SeenObjects = dict[tuple[Any, ...], "NDArray[np.bool_]"]
"""Where a model sees foreground in samples, by what tells them apart; of one model."""


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
        What the same model saw in earlier samples, which is not looked for again; what it sees in
        these is added at once, the rest goes at the end. Samples that do not say where they are
        from are always looked at.

    Yields
    ------
    None
        While an image is looked at, so that the work can be cancelled.

    Returns
    -------
    Samples
        The same with less known; `background_weight` is to be computed anew.
    """
    items, used = [], set()
    seen = {} if seen is None else seen
    for item in samples.items:
        if item.assumed is not None:
            key = (item.source, item.group, item.origin, item.labels.shape, item.diameter)
            if key not in seen or not item.source:
                maps = yield from run_cancellable(partial(sample_maps, model, item))
                seen[key] = maps[0] > DOUBT
            used.add(key)
            item = replace(item, known=item.known & ~(item.assumed & seen[key]))
        items.append(item)
    for key in seen.keys() - used:
        del seen[key]
    return Samples(items, samples.head)
