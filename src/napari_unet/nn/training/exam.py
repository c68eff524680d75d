"""What a training is judged by: held-out corrections, and what the model could do before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.heads import head_of
from napari_unet.core.samples import Samples
from napari_unet.core.training.holdout import count_known
from napari_unet.core.training.judgement import Judgement, judge
from napari_unet.core.training.replay import replay_samples
from napari_unet.nn.training.validate import Validator

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.training.holdout import Split
    from napari_unet.core.training.replay import Crop
    from napari_unet.nn.net import UNet
    from napari_unet.nn.train import Scores

CORRECTIONS = "corrections"
"""The group of what the user corrected; the other one is "replay"."""
SCORED = 4
"""Every so many'th crop of the replay is not trained on, to measure forgetting with."""


class Exam:
    """Scores networks in training on what they are not trained on, and compares the scores.

    Parameters
    ----------
    card
        How the network is run in training.
    split
        What is trained on, and what is held out of the corrections.
    crops
        The replay of the model that is tuned; every `SCORED`'th of them is scored.
    scratch
        Whether the model knew nothing before.

    Attributes
    ----------
    metric
        "AP50" of objects, "IoU" of classes.
    held
        All that networks are scored on, in the groups "corrections" and "replay"; may be empty.
    """

    def __init__(
        self, card: ModelCard, split: Split, crops: Sequence[Crop], *, scratch: bool
    ) -> None:
        self._card, self._split, self._scratch = card, split, scratch
        self._scored = list(crops[::SCORED])
        self.metric = "AP50" if card.spec.head == "instance" else "IoU"
        self.held = self._held_out()

    def scores(self, net: UNet) -> Generator[None, None, Scores]:
        """Score a network; the first score, by which the best is chosen, is the groups' mean."""
        held, metric = self.held, self.metric
        scores: Scores = {}
        for group in sorted({item.group for item in held.items}):
            items = [item for item in held.items if item.group == group]
            found = yield from Validator(Samples(items, held.head), self._card).steps(net)
            scores[f"{metric} {group}"] = found[metric]
        if scores and f"{metric} {CORRECTIONS}" not in scores:
            # Chosen by what it knew before, the best would be what has learned nothing.
            return {metric: float("nan"), **scores}
        return {metric: float(np.mean(list(scores.values()))), **scores} if scores else {}

    def judge(self, history: Sequence[dict[str, Any]]) -> Judgement:
        """Say whether the best of a history of scores is better than its first entry, step 0."""
        metric = self.metric
        entries = [entry for entry in history if metric in entry]
        first = next((entry for entry in entries if entry["step"] == 0), None)
        later = [entry for entry in entries if entry["step"] > 0]
        best = max(later, key=_main_score, default=None)
        if best is not None and np.isnan(_main_score(best)):
            best = later[-1]
        held = self._split.validation
        objects = sum(count_known(item, held) for item in held.items) if held else 0
        scored = sum(len(np.unique(crop.labels)) for crop in self._scored)

        def pair(name: str) -> tuple[float, float] | None:
            if first is None or best is None or name not in first or name not in best:
                return None
            return first[name], best[name]

        reason = self._split.reason or "There was nothing to compare with yet."
        found = judge(
            metric,
            pair(f"{metric} {CORRECTIONS}"),
            pair(f"{metric} replay"),
            objects,
            reason,
            scored,
        )
        if self._scratch and best is not None and held:
            after = best.get(f"{metric} {CORRECTIONS}")
            reason = "It was trained from scratch: there is no model to compare it with."
            found = replace(found, after=after, reason=reason)
        return found

    def _held_out(self) -> Samples:
        held = self._split.validation
        items = [replace(item, group=CORRECTIONS) for item in held.items] if held else []
        if self._scored:
            head, channels = head_of(self._card.spec), self._card.spec.in_channels
            items += replay_samples(self._scored, head, channels).items
        return Samples(items, self._split.training.head)


def _main_score(entry: dict[str, Any]) -> float:
    """Return what the best was chosen by: the first of an entry's scores."""
    return float(next(v for k, v in entry.items() if k not in ("step", "loss")))
