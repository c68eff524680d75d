"""Fine-tuning: a model learns from corrections, and is compared with the model before.

`Tuning` is all of it, from what is held out to the comparison; it trains new models, too.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.progress import Result, TrainStep, map_steps
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.config import resolve_tuning_config
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.rehearsal import draw_thumbnail
from napari_unet.core.training.run_state import CHECKPOINT, RunState, write_run_state
from napari_unet.core.training.samples import find_voxel_ratio, with_voxel_ratio
from napari_unet.nn.inference.model import save_model
from napari_unet.nn.training.calibrate import complete_card
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.click_training import CLICK_SHARE, can_learn_clicks, tune_clicks
from napari_unet.nn.training.head_transfer import freeze
from napari_unet.nn.training.held_out import HeldOutEvaluation
from napari_unet.nn.training.loop import train
from napari_unet.nn.training.tuned_card import tuned_card, working_card
from napari_unet.nn.training.tuning_data import TuningData
from napari_unet.nn.unet.layers import LAYOUT
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unet.core.training.config import TrainConfig
    from napari_unet.core.training.holdout import HeldPlaces, Split
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.held_out import SeenAgain
    from napari_unet.nn.training.loop import NamedScores


SHARES_LEARNED = (0.75, 0.5, 0.25)
"""Shares of the way from a model to the tuned one that are tried if that has forgotten too much."""
TEACHING = "teaching clicks"
"""What is done after the training, for the progress bar."""


def fine_tune(
    model: Model, samples: Samples, settings: TrainSettings | None = None
) -> Generator[TrainStep, None, Model]:
    """Tune a model on corrections, yielding after every step and validated image.

    Parameters
    ----------
    model
        The model to tune; it stays unchanged. One from `fresh_model` is trained from scratch.
    samples
        Images, labels and known masks: see `Samples`.
    settings
        Budget and more; without any, one minute on a GPU, three on a CPU.

    Returns
    -------
    Model
        The tuned model, its card with parent, data hash and metrics. Use `Tuning` to learn whether
        it is better, or to get the best so far after closing the generator.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    DivergedError, DeviceError
        See `train`.
    """
    return (yield from Tuning(model, samples, settings).steps())


def begin_tuning(
    model: Model,
    samples: Samples,
    settings: TrainSettings,
    folder: Path,
    *,
    data_hash: str,
    resume: bool,
    request: dict[str, Any] | None = None,
) -> Tuning:
    """Begin a tuning in the folder of a named training, or resume the one that is there.

    Parameters
    ----------
    folder
        Of `training_folder`, locked by the caller.
    data_hash
        Of the samples, by `Samples.card`.
    request
        What the user asked for, as JSON values, if the window may offer to resume it.

    Raises
    ------
    InputError
        The checkpoint is that of another model or other samples, or others were held out; see also
        `Tuning`.
    OutputError
        The folder cannot be written.
    """
    held_out = {"validation": settings.validation, "seed": settings.seed}
    state = RunState(model.card.hash, model.spec.to_json(), data_hash, request or {}, held_out)
    write_run_state(folder, state)
    return Tuning(model, samples, settings, folder=folder, resume=resume)


class Tuning:
    """One fine-tuning, from its samples to the comparison with the model before.

    Run it by draining `steps`. At any time after the first step, also if the generator was closed
    or has raised, `best` returns the best model so far and `judgement` how it compares.

    Parameters
    ----------
    model, samples, settings
        See `fine_tune`.
    folder
        For log, curve and checkpoint; None: they are not written.
    resume
        Whether to go on from the checkpoint in the folder.
    held
        What is held out; None: it is chosen by the samples.
    state
        A state to go on from, of a tuning of the same model; None: the model's weights.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    ModelError
        The checkpoint is of another training, or the model's rehearsal set is damaged.

    Attributes
    ----------
    data
        What it learns from, and what is held out.
    evaluation
        Scores networks on what is held out.
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
        held: HeldPlaces | None = None,
        state: TrainState | None = None,
    ) -> None:
        self.model = model
        self.settings = settings or TrainSettings()
        self.scratch = not (model.card.training or model.card.hash)
        if model.spec.ndim == 3:
            known = model.card.training.get("voxel_ratio")
            known = known if model.diameter else find_voxel_ratio(samples)
            samples = with_voxel_ratio(samples, known)
        self.data = TuningData(model, samples, self.settings, held)
        self._card = working_card(model, samples, self.settings)
        self.config = resolve_tuning_config(
            self.settings,
            model.spec,
            self.split.training,
            model.device.type,
            self._diameter,
            scratch=self.scratch,
        )
        self._tunes_clicks = not self.scratch and can_learn_clicks(model, self.split.training)
        self.evaluation = HeldOutEvaluation(
            self._card, self.split, self.data.rehearsal, scratch=self.scratch
        )
        self.folder = folder
        self._checkpoint = folder / CHECKPOINT if folder else None
        self.state = state or self._start()
        if resume and self._checkpoint and self._checkpoint.exists():
            load_checkpoint(self.state, self._checkpoint)
        self._finished: Model | None = None
        self._mixed: tuple[UNet, NamedScores] | None = None
        self._again: tuple[SeenAgain | None, SeenAgain | None] = None, None

    def steps(self) -> Generator[TrainStep, None, Model]:
        """Train; yield after every step and validated image; return the best model."""
        began = time.perf_counter() - self.state.seconds
        yield from self.prepare()
        if not self.state.history and not self.scratch:
            scores = yield from _reported(self.evaluation.scores(self.model.net), self.state.step)
            self.state.history.append({"step": 0, **scores})
            # However slow validation is, at least half of the minutes are left for learning.
            half = 30 * self.config.minutes if self.config.minutes is not None else np.inf
            self.state.seconds = min(time.perf_counter() - began, half)
            yield TrainStep(0, 0, "validating", validation=scores or None)
        training, weights = self.data.mix(self.config.replay)
        yield from train(
            self.state,
            training,
            self._trunk_config(),
            validate=self.evaluation.scores,
            checkpoint=self._checkpoint,
            log=TrainLog(self.folder) if self.folder else None,
            weights=weights,
        )
        return (yield from self.complete())

    def prepare(self) -> Generator[TrainStep, None, None]:
        """Doubt what is only assumed of the training samples; to be done before they are used."""
        yield TrainStep(0, 0, "preparing")
        if not self.scratch:
            yield from _reported(self.data.doubt(), self.state.step, "preparing")
            self.evaluation.split = self.split

    def complete(self) -> Generator[TrainStep, None, Model]:
        """Make the best weights a model: remember, calibrate, teach the click head."""
        self._finished = self._mixed = None
        yield from self._look_again()
        yield from self._remember()
        model = self.best()
        completing = complete_card(model, self.samples, self.evaluation.held, scratch=self.scratch)
        card = yield from _reported(completing, self.state.step)
        self._finished = replace(model, card=card)
        if self._tunes_clicks:
            training_sets = [self.split.training, self.data.rehearsed()]
            clicks = tune_clicks(self._finished, training_sets, self.evaluation.held, self.config)
            self._finished = yield from map_steps(clicks, lambda part: replace(part, what=TEACHING))
        return self._finished

    def _look_again(self) -> Generator[TrainStep, None, None]:
        """Look at what was trained on, before and after."""
        found = []
        for net in (self.model.net, self.state.best_net()):
            found.append((yield from _reported(self.evaluation.look_again(net), self.state.step)))
        self._again = found[0], found[1]

    def _remember(self) -> Generator[TrainStep, None, None]:
        """Go a part of the way back if it became worse: mix the weights before and after.

        Networks that were tuned from one another can be averaged; on the way between them, what was
        known comes back sooner than what was learned goes (Wortsman et al. 2022, arXiv:2109.01903).
        Unless too much was forgotten, the way back has to gain something on what was corrected.
        """
        judgement = self.judgement
        if self.scratch or judgement.keep:
            return
        before, after = self.model.net.state_dict(), self.state.best_net().state_dict()
        for share in SHARES_LEARNED:
            net = UNet(self.model.spec).to(self.model.device).eval()
            net.load_state_dict(
                {
                    name: value.lerp(after[name].to(value), share)
                    if value.is_floating_point()
                    else after[name]
                    for name, value in before.items()
                }
            )
            scores = yield from _reported(self.evaluation.scores(net), self.state.step)
            seen = yield from _reported(self.evaluation.look_again(net), self.state.step)
            again = self._again[0], seen
            found = self.evaluation.compare(self.state.history, scores, again)
            if found.keep and (judgement.forgotten or found.gains):
                self._mixed, self._again = (net, scores), again
                return

    def best(self) -> Model:
        """Return the best model so far; with the last weights if nothing could be held out."""
        if self._finished:
            return self._finished
        card = tuned_card(
            self.model,
            self._card,
            self.samples,
            self.judgement,
            steps=self.state.step,
            seconds=self.state.seconds,
            seed=self.config.seed,
        )
        net = self._mixed[0] if self._mixed else self.state.best_net()
        return replace(self.model, card=card, net=net, folder=None, _runners={})

    def save(self, name: str, *, overwrite: bool = False, **notes: Any) -> Path:
        """Store the best model so far under a name, with its rehearsal set and a picture.

        Parameters
        ----------
        notes
            Additional items of the card's entry `training`.

        Returns
        -------
        Path
            The model's folder.

        Raises
        ------
        ModelError
            The name is taken, or no name for a model.
        OutputError
            The store cannot be written; `best` still returns the model.
        """
        model = self.best()
        card = model.card.replace(training={**model.card.training, **notes})
        model = replace(model, card=card)
        picture = draw_thumbnail(self.samples)
        replay = self.data.pack_rehearsal(self._diameter)
        return save_model(model, name, thumbnail=picture, overwrite=overwrite, replay=replay)

    @property
    def samples(self) -> Samples:
        """What was corrected."""
        return self.data.samples

    @property
    def split(self) -> Split:
        """The samples trained on, and those held out."""
        return self.data.split

    @property
    def judgement(self) -> ModelComparison:
        """The best model so far compared with the one that it was tuned from."""
        scores = self._mixed and self._mixed[1]
        return self.evaluation.compare(self.state.history, scores, self._again)

    @property
    def _diameter(self) -> float | None:
        """Diameter (px) that objects are zoomed to in training; None if they have none."""
        diameter: float | None = self._card.training.get("working_diameter_px")
        return diameter

    def _start(self) -> TrainState:
        net = UNet(self.model.spec)
        net.load_state_dict(self.model.net.state_dict())
        net.to(self.model.device, memory_format=LAYOUT[self.model.spec.ndim])  # type: ignore[call-overload]
        freeze(net, self.config.freeze)
        return TrainState.start(net, self.config)

    def _trunk_config(self) -> TrainConfig:
        """Return the config of trunk and main head, which leaves minutes for the click head."""
        if not self._tunes_clicks or self.config.minutes is None:
            return self.config
        return replace(self.config, minutes=self.config.minutes_of(1 - CLICK_SHARE))


def _reported(
    steps: Generator[TrainStep | None, None, Result], step: int, what: str = "validating"
) -> Generator[TrainStep, None, Result]:
    """Turn the steps of a part, or nothing, into progress records of the whole."""

    def report(part: TrainStep | None) -> TrainStep:
        return TrainStep(step, 0, what, seconds_left=part.seconds_left if part else math.nan)

    return (yield from map_steps(steps, report))
