"""Background that is only assumed around corrected objects, doubted where a model sees objects.

Next to an object that the user drew lie others, of a dense crowd, that were not drawn yet. To learn
that those are background would undo what the user teaches; so what lies near counts as background
only where the model, too, sees none. What the user deleted, drew or marked is never doubted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.cancellation import run_cancellable
from napari_unet.nn.training.held_out import sample_maps

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.nn.inference.model import Model

DOUBT = 0.4
"""Foreground probability above which assumed background may be an object."""


def doubt_background(model: Model, samples: Samples) -> Generator[None, None, Samples]:
    """Make assumed background unknown where a model sees foreground.

    Parameters
    ----------
    model
        The model before it is tuned, with an instance head.
    samples
        What it is tuned on, see `Sample.assumed`.

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
    for item in samples.items:
        if item.assumed is not None:
            maps = yield from run_cancellable(partial(sample_maps, model, item))
            item = replace(item, known=item.known & ~(item.assumed & (maps[0] > DOUBT)))
        items.append(item)
    return Samples(items, samples.head)
