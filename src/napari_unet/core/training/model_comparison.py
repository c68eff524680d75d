"""Whether a tuned model is better than its parent, and whether more corrections would help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


BETTER, WORSE, UNMEASURED = "better", "worse", "not measurable"
UNITS = {"AP50": "objects", "IoU": "pixels"}
"""What each metric is measured on, and corrections are counted in."""
MAX_FORGOTTEN = 0.02
"""A model is worse if its score on the rehearsal set falls by more than this beyond chance."""
SMALL_LOSS = 0.01
"""So much less on the rehearsal set is no reason against a model that does better otherwise."""
COLLAPSE, MIN_LABELLED = 3.0, 10
"""A model is worse if the number of objects that it finds is further by this ratio from the number
of those that are labelled, where these are so many."""

MIN_ROUNDS = 3
"""Rounds needed for an estimate."""
LAST_ROUNDS = 4
"""Only the last rounds count: what the first ones gained is past."""
MIN_GAIN = 0.01
"""The gain by doubling the corrections below which they hardly help."""


@dataclass(frozen=True)
class TaughtScores:
    """What a model before and after tuning finds in the images that it was tuned on.

    Attributes
    ----------
    before, after
        Scores on the corrected objects that it was taught.
    objects
        Number of those.
    labelled
        Number of all labelled objects of these images, corrected or not.
    found_before, found_after
        Number of objects found there.
    right_before, right_after
        Number of the corrected objects that are found.
    """

    before: float
    after: float
    objects: int
    labelled: int
    found_before: int
    found_after: int
    right_before: int = 0
    right_after: int = 0

    @property
    def counts(self) -> str:
        """How many of the corrected objects are found, now and before, as a clause."""
        after, before = self.right_after, self.right_before
        fewer = ", with fewer false ones" if self.change > 0 and after <= before else ""
        objects = pluralise(self.objects, "corrected object")
        return f"Of {objects} it finds {after}, before {before}{fewer}"

    @property
    def change(self) -> int:
        """1 if it finds more of what it was taught than before, -1 if it loses objects, or 0."""
        if self.after > self.before:
            return 1
        # A single object may be chance.
        return -1 if self.after < self.before - 1 / max(1, self.objects) else 0

    @property
    def collapsed(self) -> bool:
        """Whether far more or far fewer objects are found than are there, and than before."""

        def error(found: int) -> float:
            return abs(math.log((found + 1) / (self.labelled + 1)))

        further = error(self.found_after) - error(self.found_before)
        return self.labelled >= MIN_LABELLED and further > math.log(COLLAPSE)


@dataclass(frozen=True)
class ModelComparison:
    """The scores of a model before and after tuning, and the verdict.

    The fields are stored in the card's entry `metrics.tuning` under their names.

    Attributes
    ----------
    verdict
        "better", "worse" or "not measurable".
    metric
        What the scores are: "AP50" or "IoU".
    before, after
        On held-out corrections; None without any.
    replay_before, replay_after
        On the rehearsal set; None without any.
    objects
        Number of known objects (of classes: of 400 pixels each) that were held out.
    reason
        In a sentence, why the verdict is what it is.
    forgotten
        It is worse because it lost what the model could do before.
    taught_before, taught_after
        On the corrections that it learned from; None if that was not looked at.
    """

    verdict: str
    metric: str
    before: float | None = None
    after: float | None = None
    replay_before: float | None = None
    replay_after: float | None = None
    objects: int = 0
    reason: str = ""
    forgotten: bool = False
    taught_before: float | None = None
    taught_after: float | None = None

    @property
    def share(self) -> str:
        """What the scores `before` and `after` were measured on, as text."""
        return _share(self.metric, self.objects)

    @property
    def gains(self) -> bool:
        """Whether it does better on what was corrected, and hardly worse elsewhere."""
        old, new = self.replay_before, self.replay_after
        same = old is None or new is None or new >= old - SMALL_LOSS
        held = self.before is not None
        before = self.before if held else self.taught_before
        after = self.after if held else self.taught_after
        return same and before is not None and after is not None and after > before

    @property
    def keep(self) -> bool:
        """Whether the tuned model is to be kept: by the window, by scripts, by robots.

        One that is not known to be better is kept if it finds what it was taught at least as well
        as before, and has neither collapsed nor forgotten: see `compare_models`. Most that cannot
        be measured, for little is known yet, do gain (`benchmarks/general.md`).
        """
        return self.verdict != WORSE

    def to_json(self) -> dict[str, Any]:
        """Return the comparison for a model's card."""
        values = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}

    def __str__(self) -> str:
        figures = []
        if self.before is not None and self.after is not None:
            figures.append(
                f"{self.metric} {self.before:.3f} -> {self.after:.3f} on what was held out"
            )
        if self.replay_before is not None and self.replay_after is not None:
            figures.append(
                f"{self.replay_before:.3f} -> {self.replay_after:.3f} on what it learned before"
            )
        if not figures:
            return f"{self.verdict}: {self.reason}"
        return f"{self.verdict}: {self.reason.rstrip('.')} ({', '.join(figures)})"


def compare_models(
    metric: str,
    held: tuple[float, float] | None,
    replay: tuple[float, float] | None,
    objects: int,
    reason: str = "",
    replay_objects: int = 10_000,
    taught: TaughtScores | None = None,
) -> ModelComparison:
    """Compare scores (before, after) on held-out corrections and on the rehearsal set.

    A model is worse if it forgot what it could do before, has collapsed, or does worse on what was
    held out; where that says nothing, if it does worse on what it was taught.

    Parameters
    ----------
    objects, replay_objects
        Number of objects that the scores were measured on.
    reason
        Why nothing was held out, if `held` is None.
    taught
        What is found in the images that it was tuned on; None if that was not looked at.
    """
    before, after = held or (None, None)
    old, new = replay or (None, None)
    verdict, forgotten = UNMEASURED, False
    chance = math.sqrt((old or 0) * (1 - (old or 0)) / max(1, replay_objects))
    if old is not None and new is not None and new < old - MAX_FORGOTTEN - chance:
        verdict, forgotten = WORSE, True
        reason = "It forgot too much of what it could do before."
    elif taught is not None and taught.collapsed:
        verdict = WORSE
        found = pluralise(taught.found_after, "object")
        reason = f"It finds {found} where {taught.labelled} are labelled."
    else:
        # A difference of a single object may be chance.
        margin = 1 / max(1, objects)
        if before is not None and after is not None and abs(after - before) >= margin:
            verdict = BETTER if after > before else WORSE
            how = "better" if after > before else "worse"
            reason = f"It does {how} on what it was not shown."
        else:
            if before is not None:
                reason = f"The difference on the {_share(metric, objects)} may be chance."
            if taught is not None and taught.change < 0:
                verdict = WORSE
                reason = "It does worse even on the corrections that it learned from."
            elif taught is not None and taught.change > 0:
                reason += f" {taught.counts}: keep it."
            elif taught is not None and taught.objects:  # else there were deletions alone
                reason += f" {taught.counts}."
    seen = (taught.before, taught.after) if taught is not None else (None, None)
    return ModelComparison(
        verdict, metric, before, after, old, new, objects, reason, forgotten, *seen
    )


def _share(metric: str, objects: int) -> str:
    if UNITS.get(metric) != "objects":
        return "pixels held out"
    return f"{pluralise(objects, 'object')} held out"


@dataclass(frozen=True)
class CorrectionRound:
    """One round of corrections and tuning: known objects, and the score afterwards.

    Attributes
    ----------
    objects
        Known objects (of classes: pixels) that the model learned from, in this round and before.
    score
        On held-out corrections, 0 to 1.
    """

    objects: int
    score: float


def get_rounds(training: Mapping[str, Any]) -> list[CorrectionRound]:
    """Return the rounds in a model card's entry `training`, oldest first."""
    return [
        CorrectionRound(int(objects), float(score)) for objects, score in training.get("rounds", [])
    ]


def count_taught(training: Mapping[str, Any], metric: str) -> int:
    """Return how much a model learned from, by its card: known objects, or pixels of classes."""
    return int(training["objects" if UNITS[metric] == "objects" else "known_px"])


def add_round(
    before: Mapping[str, Any], objects: int, comparison: ModelComparison
) -> list[list[float]]:
    """Return the parent's rounds and the new one, as the card stores them.

    Parameters
    ----------
    before
        The parent's entry `training`.
    objects
        How much the new model learned from: see `count_taught`.
    """
    rounds = [[found.objects, round(found.score, 4)] for found in get_rounds(before)]
    if not rounds and comparison.before is not None:
        rounds = [[0, round(comparison.before, 4)]]
    if comparison.after is not None:
        rounds.append([objects, round(comparison.after, 4)])
    return rounds


def advise(rounds: Sequence[CorrectionRound], what: str = "objects") -> str:
    """Tell in a sentence whether more corrections are likely to help.

    The score is assumed to grow with the logarithm of the number of objects, as learning curves of
    networks do before they saturate.

    Parameters
    ----------
    what
        Unit of the rounds, in the plural.
    """
    known = [found for found in rounds if math.isfinite(found.score)]
    if len(known) < MIN_ROUNDS:
        left = MIN_ROUNDS - len(known)
        return (
            f"Too early to tell whether more corrections help: {left} more "
            f"{'round' if left == 1 else 'rounds'} will show it."
        )
    gain = gain_of_doubling(known)
    last = known[-1]
    wanted = max(1, last.objects)
    if gain >= MIN_GAIN:
        return (
            f"More corrections are likely to help: {wanted:,} more "
            f"{what[:-1] if wanted == 1 else what} may raise the score from "
            f"{last.score:.2f} to about {min(1.0, last.score + gain):.2f}."
        )
    if known[-1].score < max(found.score for found in known) - MIN_GAIN:
        return "The last corrections did not help; look at where the model errs, or go back a step."
    return f"More corrections of this kind will hardly help; the score stays at {last.score:.2f}."


def gain_of_doubling(rounds: Sequence[CorrectionRound]) -> float:
    """Return how much twice the objects would raise the score, by the last rounds.

    The slope over the logarithm (base 2) of the objects; each round counts twice the one before.
    """
    rounds = rounds[-LAST_ROUNDS:]
    x = np.log2([1 + found.objects for found in rounds])
    y = np.array([found.score for found in rounds])
    weight = 2.0 ** np.arange(len(rounds))
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float(np.sum(weight * (x - x_mean) ** 2))
    if not spread:
        return 0.0
    return float(np.sum(weight * (x - x_mean) * (y - y_mean)) / spread)
