"""What a fine-tuning learns from: corrections, what is held out of them, and what is rehearsed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.models.folder import read_rehearsal
from napari_unet.core.training.config import check_samples, usual_object_share
from napari_unet.core.training.holdout import HeldPlaces, Split, hold_out
from napari_unet.core.training.rehearsal import (
    choose_rehearsal_crops,
    merge_rehearsal_crops,
    pack_rehearsal,
    rehearsal_samples,
    unpack_rehearsal,
)
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.assumed_background import doubt_background
from napari_unet.nn.training.held_out import SCORED_EVERY

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.settings.tasks import TrainSettings
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.assumed_background import SeenObjects


class TuningData:
    """The samples of a fine-tuning, divided, and mixed with what must not be forgotten.

    Parameters
    ----------
    model
        The model that is tuned.
    samples
        What was corrected.
    settings
        Which share is held out.
    held
        What is held out; None: it is chosen by the samples.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    ModelError
        The model's rehearsal set is damaged.

    Attributes
    ----------
    samples
        What was corrected, the background weighted as in a whole image.
    split
        The samples that are trained on, and those held out.
    rehearsal
        The model's rehearsal set; of it every `SCORED_EVERY`'th crop is scored, not trained on.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        settings: TrainSettings,
        held: HeldPlaces | None = None,
    ) -> None:
        self._model, self._settings, self._held = model, settings, held
        self._usual_share = usual_object_share(model.card.training)
        self.rehearsal = (
            unpack_rehearsal(read_rehearsal(model.folder), model.spec.ndim)
            if model.folder is not None and model.card.replay
            else []
        )
        check_samples(model.spec, samples, alone=not self.rehearsal)
        self.samples = samples.balanced(self._usual_share)
        self.split = self._hold_out(self.samples)

    def doubt(self, seen: SeenObjects | None = None) -> Generator[None, None, None]:
        """Make unknown what is only assumed of the training samples and looks like an object.

        To be done once, before they are used; see `doubt_background` for `seen`.
        """
        if isinstance(self.samples.head, InstanceHead):
            sure = yield from doubt_background(self._model, self.samples, seen)
            # Objects are held out by where they are: the same as before.
            taught = self._hold_out(sure.balanced(self._usual_share)).training
            self.split = replace(self.split, training=taught)

    def _hold_out(self, samples: Samples) -> Split:
        return hold_out(samples, self._settings.validation, self._settings.seed, self._held)

    def mix(self, replay: float) -> tuple[Samples, np.ndarray]:
        """Mix corrections and rehearsal set; return samples and each one's share of the crops.

        Parameters
        ----------
        replay
            Share of the rehearsal set.
        """
        own, other = self.split.training, self.rehearsed()
        weights = own.weights()
        share = replay if other.items else 0.0
        if not share:
            return own, weights
        mixed = Samples([*own.items, *other.items], own.head)
        even = np.full(len(other.items), 1 / len(other.items))
        return mixed, np.concatenate([weights * (1 - share), even * share])

    def rehearsed(self) -> Samples:
        """Return the rehearsal crops that are trained on; the others are scored."""
        crops = [crop for i, crop in enumerate(self.rehearsal) if i % SCORED_EVERY]
        return rehearsal_samples(crops, self.split.training.head, self._model.spec.in_channels)

    def pack_rehearsal(self, diameter: float | None) -> bytes:
        """Return the tuned model's rehearsal set, packed: its parent's crops, and its own.

        Nothing that is held out is in it: the next tuning, which is to be judged by that again,
        would learn from it.

        Parameters
        ----------
        diameter
            At which the model works, in pixels; None without objects.
        """
        own = choose_rehearsal_crops(self.split.training, diameter)
        return pack_rehearsal(merge_rehearsal_crops(self.rehearsal, own))
