"""Fine-tuning: a model learns what its user corrected, and is held to what it could do before.

`Tuning` is the whole of it: what is held out, what is replayed, the training, the judgement. It
trains models that know nothing yet, too.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.models.folder import read_replay
from napari_unet.core.models.thumbnail import thumbnail_of
from napari_unet.core.progress import TrainStep
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.holdout import hold_out
from napari_unet.core.training.learning_curve import next_rounds, taught_with
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.rehearsal import (
    make_replay,
    pack_replay,
    passed_on,
    replay_samples,
    unpack_replay,
)
from napari_unet.core.training.sample_validation import check_samples
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import save_model
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.click_training import SHARE, can_learn_clicks, tune_clicks
from napari_unet.nn.training.head_transfer import freeze
from napari_unet.nn.training.held_out import SCORED, HeldOutEvaluation
from napari_unet.nn.training.loop import LAYOUT, train
from napari_unet.nn.training.post_training import post_training_card
from napari_unet.nn.training.tuning_config import tuning_config, usual_share, working_card
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unet.core.training.config import TrainConfig
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.core.training.rehearsal import Crop
    from napari_unet.nn.inference.model import Model

CHECKPOINT = "checkpoint.safetensors"


def fine_tune(
    model: Model, samples: Samples, settings: TrainSettings | None = None
) -> Generator[TrainStep, None, Model]:
    """Tune a model on what was corrected, yielding after every step and validated image.

    Parameters
    ----------
    model
        Whom to tune; it stays as it is. One from `fresh_model` is trained from scratch.
    samples
        Images and labels, what is known of them, and what belongs together: see `Samples`.
    settings
        Budget and more; one minute on a GPU, three on a processor if nothing is given.

    Returns
    -------
    Model
        The tuned model, its card with parent, data hash and metrics. Who wants to know whether it
        is better, or to have the best so far after closing the generator, uses `Tuning` instead.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    DivergedError, DeviceError
        See `train`.
    """
    return (yield from Tuning(model, samples, settings).steps())


class Tuning:
    """One fine-tuning, from its data to its judgement.

    Run it by draining `steps`. At any moment after the first step, also when the generator was
    closed or has raised, `best` gives the best model so far and `judgement` what is known of it.

    Parameters
    ----------
    model, samples, settings
        See `fine_tune`.
    folder
        Where log, curve and checkpoint are kept; None: nowhere.
    resume
        Whether to go on from the checkpoint that is there.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    ModelError
        The checkpoint is of another training, or the model's replay is damaged.

    Attributes
    ----------
    split
        What is trained on and what is held out.
    state
        Weights, counters and history of the training.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        settings: TrainSettings | None = None,
        *,
        folder: Path | None = None,
        resume: bool = False,
    ) -> None:
        self.model = model
        self.samples = samples.balanced(usual_share(model.card))
        self.scratch = not (model.card.training or model.card.hash)
        self._replay = self._read_replay()
        check_samples(model.spec, samples, alone=not self._replay)
        self.settings = settings or TrainSettings()
        self.split = hold_out(self.samples, self.settings.validation, self.settings.seed)
        self._card = working_card(model, samples, self.settings)
        self.recipe = tuning_config(
            model, self.settings, self.split.training, self._card_diameter, scratch=self.scratch
        )
        self._clicks = not self.scratch and can_learn_clicks(model, self.split.training)
        self._exam = HeldOutEvaluation(self._card, self.split, self._replay, scratch=self.scratch)
        self.folder = folder
        self._checkpoint = folder / CHECKPOINT if folder else None
        self.state = self._start()
        if resume and self._checkpoint and self._checkpoint.exists():
            load_checkpoint(self.state, self._checkpoint)
        self._finished: Model | None = None

    def steps(self) -> Generator[TrainStep, None, Model]:
        """Train; yield after every step and validated image; return the best model."""
        began = time.perf_counter() - self.state.seconds
        yield TrainStep(0, 0, "preparing")
        if not self.state.history and not self.scratch:
            scores = yield from _reported(self._exam.scores(self.model.net), self.state.step)
            self.state.history.append({"step": 0, **scores})
            # However slow these scores are, half of the minutes are for learning.
            half = 30 * self.recipe.minutes if self.recipe.minutes is not None else np.inf
            self.state.seconds = min(time.perf_counter() - began, half)
            yield TrainStep(0, 0, "validating", validation=scores or None)
        training, weights = self._training_set()
        yield from train(
            self.state,
            training,
            self._trunk_recipe(),
            validate=self._exam.scores,
            checkpoint=self._checkpoint,
            log=TrainLog(self.folder) if self.folder else None,
            weights=weights,
        )
        model = self.best()
        settling = post_training_card(model, self.samples, self._exam.held)
        card = yield from _reported(settling, self.state.step)
        self._finished = replace(model, card=card)
        if self._clicks:
            taught = [self.split.training, self._replayed()]
            clicks = tune_clicks(self._finished, taught, self._exam.held, self.recipe)
            self._finished = yield from _reported(clicks, self.state.step, "teaching clicks")
        return self._finished

    def best(self) -> Model:
        """Return the best model so far; the last weights where nothing could be held out."""
        if self._finished:
            return self._finished
        training = {
            **self.samples.card(),
            "steps": self.state.step,
            "seconds": round(self.state.seconds),
            "seed": self.recipe.seed,
            "working_diameter_px": self._card.training.get("working_diameter_px"),
        }
        before = self.model.card.training
        if "statistics" in before:
            training["statistics"] = before["statistics"]
        judgement = self.judgement
        if judgement.after is not None:
            taught = taught_with(training, judgement.metric)
            training["rounds"] = next_rounds(before, taught, judgement)
        card = self._card.replace(
            training={name: value for name, value in training.items() if value is not None},
            metrics={"tuning": judgement.to_json()},
            parent=self.model.card.hash or None,
            hash="",
            replay="",
        )
        return replace(self.model, card=card, net=self.state.best_net(), folder=None, _runners={})

    def save(self, name: str, *, overwrite: bool = False, **notes: Any) -> Path:
        """Store the best model so far under a name, with its replay and a picture.

        Parameters
        ----------
        notes
            What the card's entry `training` shall say beyond what it does.

        Returns
        -------
        Path
            The model's folder.

        Raises
        ------
        ModelError
            The name is taken, or no name for a model.
        OutputError
            The store cannot be written; the model can be had by `best` still.
        """
        model = self.best()
        card = model.card.replace(training={**model.card.training, **notes})
        model = replace(model, card=card)
        picture = thumbnail_of(self.samples)
        replay = self.replay()
        return save_model(model, name, thumbnail=picture, overwrite=overwrite, replay=replay)

    def replay(self) -> bytes:
        """Return what the tuned model keeps against forgetting: its parent's crops, and its own."""
        own = make_replay(self.samples, self._card_diameter)
        return pack_replay(passed_on(self._replay, own))

    @property
    def judgement(self) -> ModelComparison:
        """Whether the best model so far is better than the one that it was tuned from."""
        return self._exam.compare_models(self.state.history)

    @property
    def _card_diameter(self) -> float | None:
        return replace(self.model, card=self._card, _runners={}).diameter

    def _read_replay(self) -> list[Crop]:
        model = self.model
        if self.model.folder is None or not model.card.replay:
            return []
        return unpack_replay(read_replay(self.model.folder))

    def _start(self) -> TrainState:
        net = UNet(self.model.spec)
        net.load_state_dict(self.model.net.state_dict())
        net.to(self.model.device, memory_format=LAYOUT[self.model.spec.ndim])  # type: ignore[call-overload]
        freeze(net, self.recipe.freeze)
        return TrainState.start(net, self.recipe)

    def _training_set(self) -> tuple[Samples, np.ndarray]:
        """Mix what was corrected with the replay; return each sample's share of the crops."""
        own = self.split.training
        weights = own.weights()
        other = self._replayed()
        share = self.recipe.replay if other.items else 0.0
        if not share:
            return own, weights
        mixed = Samples([*own.items, *other.items], own.head)
        even = np.full(len(other.items), 1 / len(other.items))
        return mixed, np.concatenate([weights * (1 - share), even * share])

    def _replayed(self) -> Samples:
        """Return the crops of the replay that are trained on; the others are scored."""
        crops = [crop for i, crop in enumerate(self._replay) if i % SCORED]
        return replay_samples(crops, self.split.training.head, self.model.spec.in_channels)

    def _trunk_recipe(self) -> TrainConfig:
        """Return the recipe of what all heads stand on: the click head's share is left for it."""
        if not self._clicks or self.recipe.minutes is None:
            return self.recipe
        return replace(self.recipe, minutes=(1 - SHARE) * self.recipe.minutes)


def _reported(
    steps: Generator[None, None, Any], step: int, what: str = "validating"
) -> Generator[TrainStep, None, Any]:
    """Turn what yields nothing into records, and return its answer."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield TrainStep(step, 0, what)
