"""Do no harm: whether a tuned model is better than the one that it was tuned from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from napari_unet.core.text import pluralise

BETTER, WORSE, UNMEASURED = "better", "worse", "not measurable"
UNITS = {"AP50": "objects", "IoU": "pixels"}
"""What each metric is a share of, and corrections are counted in."""
FORGOTTEN = 0.02
"""A score that falls by more than this, and by more than chance explains, on what was learned
before makes a model worse."""


@dataclass(frozen=True)
class ModelComparison:
    """The scores of a model before and after tuning, and what they say.

    Attributes
    ----------
    verdict
        "better", "worse" or "not measurable".
    metric
        What the scores are: "AP50" or "IoU".
    before, after
        On the corrections that were held out; None without any.
    replay_before, replay_after
        On crops of what the model was trained on before; None without any.
    objects
        How many known objects (of classes: so many times 400 pixels) were held out.
    reason
        In a sentence, why the verdict is what it is.
    """

    verdict: str
    metric: str
    before: float | None = None
    after: float | None = None
    replay_before: float | None = None
    replay_after: float | None = None
    objects: int = 0
    reason: str = ""

    @property
    def share(self) -> str:
        """What the scores `before` and `after` were measured on, in words."""
        return _share(self.metric, self.objects)

    @property
    def keep(self) -> bool:
        """Whether there is no reason against the tuned model."""
        return self.verdict != WORSE

    def to_json(self) -> dict[str, Any]:
        """Return the judgement for a model's card."""
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
) -> ModelComparison:
    """Weigh the scores (before, after) on what was held out, and on what was learned before.

    Parameters
    ----------
    objects, replay_objects
        How many objects the scores are shares of.
    reason
        Why nothing was held out, where `held` is None.
    """
    before, after = held or (None, None)
    old, new = replay or (None, None)
    verdict = UNMEASURED
    chance = math.sqrt((old or 0) * (1 - (old or 0)) / max(1, replay_objects))
    if old is not None and new is not None and new < old - FORGOTTEN - chance:
        verdict, reason = WORSE, "It forgot too much of what it could do before."
    elif before is not None and after is not None:
        # One object more or less, of so few, is chance.
        margin = 1 / max(1, objects)
        if after >= before + margin:
            verdict, reason = BETTER, "It does better on what it was not shown."
        elif after < before - margin:
            verdict, reason = WORSE, "It does worse on what it was not shown."
        else:
            reason = f"The difference on the {_share(metric, objects)} may be chance."
    return ModelComparison(verdict, metric, before, after, old, new, objects, reason)


def _share(metric: str, objects: int) -> str:
    if UNITS.get(metric) != "objects":
        return "pixels held out"
    return f"{pluralise(objects, 'object')} held out"
