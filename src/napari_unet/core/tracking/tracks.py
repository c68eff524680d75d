"""Tracks: where each object is at each time, and which track came from which."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.scoring.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLUMNS = ("id", "t", "z", "y", "x")


@dataclass(frozen=True, eq=False)
class Tracks:
    """The objects of a time-lapse, in the form of napari's Tracks layer.

    Attributes
    ----------
    table
        float64 (N, 5), one row for each object and time, by track and time: id, t, z, y, x, in
        pixels; z is 0 in planes.
    graph
        For each track that came out of a division its parents: {child: [parent]}.
    """

    table: NDArray[np.float64]
    graph: dict[int, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many tracks there are."""
        return len(np.unique(self.table[:, 0]))

    def layer_table(self, axes: str) -> NDArray[np.float64]:
        """Return the table with a column for the id and each of `axes`, such as "TYX"."""
        return self.table[:, [0, *(1 + "TZYX".index(letter) for letter in axes)]]

    def to_csv(self) -> str:
        """Return the table as text, with the parent of each track (0: none) as a last column."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*COLUMNS, "parent"))
        for number, t, *place in self.table.tolist():
            parent = self.graph.get(int(number), [0])[0]
            writer.writerow((int(number), int(t), *(f"{p:.3f}" for p in place), parent))
        return text.getvalue()

    def write_csv(self, path: Path) -> None:
        """Write `to_csv` into a file, whole or not at all; a file of that name is replaced.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        write_text(path, self.to_csv())
