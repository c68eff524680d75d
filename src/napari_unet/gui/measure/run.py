"""One measurement: layers, their objects' table in a job's thread, and finding an object again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.gui.jobs.run import ResultRun
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack, voxel_size_um
from napari_unet.gui.layers.edit_watch import Checks, plane_checks
from napari_unet.gui.layers.result_info import get_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.regionprops.table import Table

TIMES = 64
"""Planes whose checksums are computed between two reports of progress."""


class MeasureRun(ResultRun):
    """One measurement.

    Parameters
    ----------
    labels, image
        The layers; without an image no intensities are measured.
    frames
        Whether objects end with their plane: one of `napari_unet.core.io.axes.FRAMES`.
    solidity
        Whether convex hulls are computed.
    progress, ended
        As for `ResultRun`.

    Attributes
    ----------
    result
        The table; None until it is there.
    axes
        One letter for each axis of the labels' data.
    checks
        Of the labels as they were measured; see `EditWatch`.
    """

    def __init__(
        self,
        labels: Labels,
        image: Image | None,
        frames: str,
        solidity: bool,
        progress: Callable[[Progress], None],
        ended: Callable[[MeasureRun, str], None],
    ) -> None:
        super().__init__(progress, ended)
        self.labels, self.image = labels, image
        self.axes = ""
        self.checks: Checks = {}
        self._how: dict[str, Any] = {"frames": frames, "solidity": solidity}

    @property
    def table(self) -> Table | None:
        """The result."""
        table: Table | None = self.result
        return table

    def place_of(self, number: int) -> dict[str, float]:
        """Return where an object is in the labels' data, by the letters of its axes."""
        assert self.table is not None
        row = {name: values[number] for name, values in self.table.items()}
        place = {letter: float(row[f"centroid_{letter.lower()}"]) for letter in "YX"}
        for letter in "TZ":
            at = row.get(f"centroid_{letter.lower()}", row.get(letter.lower()))
            if at is not None and letter in self.axes:
                place[letter] = float(at)
        return place

    def extent_of(self, number: int) -> float:
        """Return how long an object is along y or x, in pixels."""
        assert self.table is not None
        sides = (self.table[f"stop_{a}"][number] - self.table[f"start_{a}"][number] for a in "yx")
        return float(max(sides))

    def find(self, label: int, place: dict[str, int]) -> int | None:
        """Return the number of the object with a label at a place; None where it is not known."""
        if self.table is None:
            return None
        fits = self.table["label"] == label
        for letter in "tz":
            if letter in self.table:
                fits = fits & (self.table[letter] == place[letter.upper()])
        (found,) = np.nonzero(fits)
        return int(found[0]) if len(found) else None

    def _begin(self) -> Generator[Progress, None, Table]:
        """Look at the layers, in the window's thread; return the work itself."""
        self.axes = layer_axes(self.labels)
        data, size = full_resolution(self.labels), voxel_size_um(self.labels, self.axes)
        labels = replace(open_stack(data, self.axes, size), name=self.labels.name)
        image = None if self.image is None else layer_stack(self.image)
        self._how["provenance"] = get_provenance(self.labels)
        return self._steps(data, labels, image)

    def _steps(
        self, data: Any, labels: Stack, image: Stack | None
    ) -> Generator[Progress, None, Table]:
        """Measure, in the job's thread; the checksums first: edits meanwhile are noticed."""
        from napari_unet.core.regionprops.measure import (  # slow, and not needed before
            MeasureInput,
            measure_steps,
        )

        for number, (index, check) in enumerate(plane_checks(data)):
            self.checks[index] = check
            if not number % TIMES:
                yield Progress(0, 0, "reading the labels")
        return (yield from measure_steps(MeasureInput.open(labels, image, **self._how)))
