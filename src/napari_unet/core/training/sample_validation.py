"""Whether there is anything to learn from samples, and whether a network can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import InstanceHead

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.training.samples import Samples


def check_samples(spec: ModelSpec, samples: Samples, *, alone: bool = True) -> None:
    """Hold samples against the network that they are to teach.

    Parameters
    ----------
    alone
        Whether there is nothing else to learn from.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    """
    if not samples.items:
        raise InputError("There are no corrections yet; correct some objects, then fine-tune.")
    ndim, channels = samples.items[0].known.ndim, samples.items[0].image.shape[0]
    if (ndim, channels) != (spec.ndim, spec.in_channels):
        raise InputError(
            f"The images are {ndim}D with {channels} channels, the model takes "
            f"{spec.ndim}D images with {spec.in_channels}; build the samples with "
            "Samples.from_labels(..., channels=model.spec.in_channels), or choose another model."
        )
    if not any(item.known.any() for item in samples.items):
        raise InputError(
            "Nothing is known: no pixel of any image was marked as checked or corrected; mark "
            "what you have looked at, then fine-tune."
        )
    seen = np.unique(np.concatenate([np.unique(i.labels[i.known]) for i in samples.items]))
    if isinstance(samples.head, InstanceHead):
        if alone and not (seen > 0).any():
            raise InputError("There is no object in what is known; label at least one, then train.")
        return
    if missing := sorted(set(range(samples.head.classes)) - set(seen.tolist())):
        raise InputError(
            f"Class {missing[0]} has no example in what is known; label some of it, or choose "
            f"fewer classes than {samples.head.classes}."
        )
