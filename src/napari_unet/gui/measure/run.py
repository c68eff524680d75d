"""One measurement: the table of a layer's objects, and finding an object again in the layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.gui.jobs.run_button import ResultRun
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack, voxel_size_um
from napari_unet.gui.layers.edits import PlaneChecksums, plane_checksums
from napari_unet.gui.layers.result_info import get_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.regionprops.table import Table

PLANES_A_STEP = 64
"""Planes whose checksums are computed between two steps, at which a run can be cancelled."""


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
        Checksums of the labels' planes as they were measured; see `EditWatch`.
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
        super().__init__(self._begin, progress, ended)
        self.labels, self.image = labels, image
        self.axes = ""
        self.checks: PlaneChecksums = {}
        self._frames, self._solidity = frames, solidity

    @property
    def table(self) -> Table | None:
        """The result."""
        table: Table | None = self.result
        return table

    @property
    def provenance(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """How it was measured and of what, for `write_table_provenance`; layers are in no file."""
        image = None if self.image is None else self.image.name
        file = {"name": self.labels.name, "labels": None, "image": image}
        file["made"] = get_provenance(self.labels) or {}
        return {"frames": self._frames, "solidity": self._solidity}, file

    def get_place(self, number: int) -> dict[str, float]:
        """Return an object's centroid in voxels of the labels' data, by the letters of its axes."""
        assert self.table is not None
        row = {name: values[number] for name, values in self.table.items()}
        place = {letter: float(row[f"centroid_{letter.lower()}"]) for letter in "YX"}
        for letter in "TZ":
            at = row.get(f"centroid_{letter.lower()}", row.get(letter.lower()))
            if at is not None and letter in self.axes:
                place[letter] = float(at)
        return place

    def get_extent(self, number: int) -> float:
        """Return the longer side of an object's bounding box in the plane, in pixels."""
        assert self.table is not None
        sides = (self.table[f"stop_{a}"][number] - self.table[f"start_{a}"][number] for a in "yx")
        return float(max(sides))

    def find(self, label: int, place: dict[str, int]) -> int | None:
        """Return the row of the object that has a label at a place; None if it was not measured."""
        if self.table is None:
            return None
        fits = self.table["label"] == label
        for letter in "tz":
            if letter in self.table:
                fits = fits & (self.table[letter] == place[letter.upper()])
        (found,) = np.nonzero(fits)
        return int(found[0]) if len(found) else None

    def _begin(self) -> Generator[Progress, None, Table]:
        """Read the layers, in the window's thread; return the work itself."""
        self.axes = layer_axes(self.labels)
        data, size = full_resolution(self.labels), voxel_size_um(self.labels, self.axes)
        labels = replace(open_stack(data, self.axes, size), name=self.labels.name)
        image = None if self.image is None else layer_stack(self.image)
        return self._steps(data, labels, image, get_provenance(self.labels))

    def _steps(
        self, data: Any, labels: Stack, image: Stack | None, provenance: Any
    ) -> Generator[Progress, None, Table]:
        """Measure, in the job's thread; the checksums come first, so that edits meanwhile show."""
        from napari_unet.core.regionprops.measure import (  # slow, and not needed before
            MeasureInput,
            measure_steps,
        )

        for number, (index, check) in enumerate(plane_checksums(data)):
            self.checks[index] = check
            if not number % PLANES_A_STEP:
                yield Progress(0, 0, "reading the labels")
        measuring = MeasureInput.open(
            labels,
            image,
            frames=self._frames,
            solidity=self._solidity,
            provenance=provenance,
        )
        return (yield from measure_steps(measuring))
