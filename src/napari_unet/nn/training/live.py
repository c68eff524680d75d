"""Live learning: a tuning that never ends, and takes in corrections as they come.

It learns a few steps at a time, at a steady rate, and is judged when the user wants to keep it: as
any fine-tuning, by what was held out from the first moment on. All of it is in the memory; the disk
hears of it when it is saved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.core.progress import TrainStep, map_steps
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.holdout import HeldPlaces
from napari_unet.nn.training.finetune import Tuning
from napari_unet.nn.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.assumed_background import SeenObjects
    from napari_unet.nn.training.loop import NamedScores
    from napari_unet.nn.unet.net import UNet

SETTINGS = TrainSettings(minutes=1.0, average=0.98)
"""The average follows the weights within some 50 steps. A share of the minutes is what the click
head learns for when the model is kept."""
ENDLESS = 10**9
"""Steps of a rate that does not fall."""


class LiveTuning:
    """Learns from corrections while they are made.

    Parameters
    ----------
    model
        The model that learns; it stays unchanged.
    settings
        Of the tuning; its budget does not matter.

    Attributes
    ----------
    tuning
        Of the samples so far, for its comparison and `save`; None before the first samples.
    """

    def __init__(self, model: Model, settings: TrainSettings | None = None) -> None:
        self.model, self.settings = model, settings or SETTINGS
        self.tuning: Tuning | None = None
        self._held: HeldPlaces | None = None
        self._seen: SeenObjects = {}
        self._training: Generator[TrainStep, None, object] | None = None

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self.tuning.state.step if self.tuning else 0

    def take(self, samples: Samples) -> Generator[TrainStep, None, None]:
        """Learn from these samples from the next step on, in place of those before.

        If it is closed before its end, all is as it was.

        Where they are the first of which some can be held out, learning begins anew: what is held
        out must not have been learned from.

        Raises
        ------
        InputError
            Nothing is known, or the samples do not fit the model; all is as it was.
        """
        state = self.tuning.state if self.tuning else None
        held = self._held
        tuning = Tuning(self.model, samples, self.settings, held=held, state=state)
        if held is None and tuning.split.validation is not None:
            held = HeldPlaces.from_split(tuning.split)
            tuning = Tuning(self.model, samples, self.settings, held=held)
        if not tuning.scratch:
            doubting = tuning.data.doubt(self._seen)
            yield from map_steps(doubting, lambda _: TrainStep(self.steps, 0, "preparing"))
        self.close()
        self.tuning, self._held = tuning, held

    def learn(self, steps: int) -> Generator[TrainStep, None, None]:
        """Take so many steps, yielding after each; the state is whole whenever it is closed.

        Raises
        ------
        DivergedError, DeviceError
            See `train`.
        """
        if self.tuning is None:
            return
        if self._training is None:
            tuning = self.tuning
            samples, weights = tuning.data.mix(tuning.config.replay)
            endless = {"minutes": None, "steps": ENDLESS, "validate_every": ENDLESS}
            config = replace(tuning.config, warm_up=0.0, **endless)  # type: ignore[arg-type]
            self._training = train(tuning.state, samples, config, weights=weights)
        for _ in range(steps):
            yield next(self._training)

    def close(self) -> None:
        """Let go of the training that goes on; `learn` begins another one where it stopped."""
        if self._training is not None:
            self._training.close()
            self._training = None

    def current(self) -> Model:
        """Return the model as it is now, to see what it finds; its card is not complete."""
        if self.tuning is None:
            return self.model
        card = self.tuning.best().card.replace(metrics=self.model.card.metrics)
        net = self.tuning.state.averaged_net()
        return replace(self.model, card=card, net=net, folder=None, _runners={})

    def conclude(self) -> Generator[TrainStep, None, Tuning | None]:
        """Judge what was learned; return the tuning, whose `judgement` says whether to `save` it.

        None if nothing was learned.
        """
        self.close()
        if self.tuning is None or not self.steps:
            return None
        tuning = self.tuning
        state, net = tuning.state, tuning.state.averaged_net()
        before = yield from self._scored(tuning.model.net)
        after = yield from self._scored(net)
        # Judged are the averaged weights as they are, not the best of some on the way.
        state.best = state.best_score = None
        state.keep_best(after)
        state.history[:] = [{"step": 0, **before}, {"step": state.step, **after}]
        yield from tuning.complete()
        return tuning

    def _scored(self, net: UNet) -> Generator[TrainStep, None, NamedScores]:
        """Score a network on what is held out."""
        if self.tuning is None:
            return {}
        scoring = self.tuning.evaluation.scores(net)
        return (yield from map_steps(scoring, lambda _: TrainStep(self.steps, 0, "validating")))
