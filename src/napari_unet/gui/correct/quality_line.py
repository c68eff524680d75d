"""How good the labels are, by what a review has judged so far: a line of text."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from napari_unet.core.progress import Progress
from napari_unet.core.review.quality import LEAST_DRAWN, estimate_quality
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.review.order import ReviewOrder
    from napari_unet.core.review.quality import Judged, Quality


class QualityLine(WrappedLabel):
    """Says how good the labels are, as soon as it is worked out: keys do not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs = WidgetJobs(self)
        self._order: ReviewOrder | None = None

    def forget(self) -> None:
        """Leave the text as it is, whatever is still worked out."""
        self._order = None

    def show_order(self, order: ReviewOrder) -> None:
        """Say it of the labels that an order of looking at them belongs to."""
        self._order = order
        if order.drawn < LEAST_DRAWN:
            left = LEAST_DRAWN - order.drawn
            self.setText(f"Quality: known after {left} more that are drawn at random.")
            return
        steps = functools.partial(_quality_steps, order.judgements())
        judged = order.judged

        def say(found: Quality) -> None:
            if order is self._order:
                self.setText(
                    f"AP50 is about <b>{found.now.value:.2f}</b> ({found.now.low:.2f} to "
                    f"{found.now.high:.2f}, 90 %); it was {found.found.value:.2f} "
                    f"({found.found.low:.2f} to {found.found.high:.2f}). {judged:,} judged."
                )

        self._jobs.run("quality", Job(steps, on_done=say))


def _quality_steps(
    judgements: tuple[tuple[Judged, Judged], Judged, int],
) -> Generator[Progress, None, Quality]:
    """Estimate AP50, in a job's thread."""
    yield Progress(0, 0, "quality")
    return estimate_quality(*judgements)
