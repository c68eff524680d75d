"""The layer that a run writes into: an earlier result that was not edited, or a new one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.core.progress import Progress
from napari_unet.gui.layers.edits import EditCheck
from napari_unet.gui.layers.result_info import ResultInfo, add_result, may_hold_run, reuse_result

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image, Labels

    from napari_unet.gui.layers.label_geometry import Placement
    from napari_unet.gui.layers.live_labels import LiveLabels

CHECKS = 3
"""So often earlier results are looked at, if something is done to them each time meanwhile, such as
a look at another slice; then they count as edited."""
WAIT_S = 0.05
"""A job that waits for the window yields so often, for it may be cancelled."""


@dataclass(frozen=True)
class EditsKnown(Progress):
    """It is known which earlier results were edited; the job waits for the choice of the layer.

    Attributes
    ----------
    last
        They will not be looked at once more.
    """

    last: bool = False


class ResultLayer:
    """Chooses and opens the layer; to be made in the window's thread.

    Without an earlier result it is open at once. Otherwise the job looks whether the user has
    edited those that there are, which takes a second for a large stack, and goes on when the
    window's thread has chosen: only there can nothing be painted between the look and the lock.

    Parameters
    ----------
    viewer, image
        The window, and the image of the run.
    name
        That of all results of this model on this image.
    placement
        How the labels lie on the image.
    live
        What the run writes to, with the empty array of a new layer; an earlier layer's is put in
        its place.

    Attributes
    ----------
    layer
        None until it is chosen. It cannot be edited until `seal_result`, for the run would write
        over the edits.
    is_new
        Whether it is no earlier result.
    checksum
        That of the earlier result, as it is until the run writes into it.
    """

    def __init__(
        self, viewer: Any, image: Image, name: str, placement: Placement, live: LiveLabels
    ) -> None:
        self._viewer, self._image, self._name = viewer, image, name
        self._placement, self._live = placement, live
        self._answered = threading.Event()
        self.layer: Labels | None = None
        self.is_new = False
        self.checksum: int | None = None
        shape = placement.to_layer(live.array).shape
        layers = [x for x in reversed(list(viewer.layers)) if may_hold_run(x, name, shape)]
        self._check = EditCheck(layers)
        if not layers:
            self._open(None)

    def steps(self) -> Generator[Progress, None, None]:
        """Look for edits, in the job's thread, until the layer is chosen."""
        for number in range(CHECKS):
            if self.layer is not None:
                return
            self._answered.clear()
            yield from self._check.steps()
            yield EditsKnown(0, 0, "looking for edits", last=number == CHECKS - 1)
            while not self._answered.wait(WAIT_S):
                yield Progress(0, 0, "looking for edits")

    def answer(self, known: EditsKnown) -> None:
        """Choose the layer, in the window's thread, unless it has to be looked once more."""
        shape = self._placement.to_layer(self._live.array).shape
        there = [
            layer
            for layer in self._check.unedited()
            if layer in self._viewer.layers and may_hold_run(layer, self._name, shape)
        ]
        if there or known.last or not self._check.touched:
            self._open(there[0] if there else None)
        self._answered.set()

    def close(self) -> None:
        """Let go of the earlier results."""
        self._check.close()

    def _open(self, earlier: Labels | None) -> None:
        self._check.close()
        if earlier is not None:
            self.checksum = ResultInfo.from_layer(earlier).checksum
            self._live.array = reuse_result(earlier, self._image, self._placement)
            self.layer = earlier
            return
        shown = self._placement.to_layer(self._live.array)
        self.layer = add_result(
            self._viewer, shown, self._image, self._name, self._placement, running=True
        )
        self.layer.editable = False
        self.is_new = True
