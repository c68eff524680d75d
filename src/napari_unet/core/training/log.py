"""The log of a training: a growing table, and the learning curve drawn from it."""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import atomic_file, make_folder, remove_partials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLE, CURVE = "log.csv", "curve.png"
LOSS, SCORE = "loss", "val_"
"""Columns of losses and of validation scores begin with these."""


@dataclass
class TrainLog:
    """The files `log.csv` and `curve.png` in the folder of a training.

    A row sums up the steps since the row before: the means of the loss and of its terms, and the
    seconds, the learning rate and new validation scores of the last step. Columns: step, seconds,
    loss, loss_<term>..., learning_rate, val_<score>...

    A row is on the disk once it is written. When a training is resumed, the rows after its
    checkpoint are removed, so that no step is in the table twice.
    """

    folder: Path
    rows: list[dict[str, float]] = field(default_factory=list)
    _columns: list[str] = field(default_factory=list, repr=False)
    _losses: list[Mapping[str, float]] = field(default_factory=list, repr=False)

    def begin(self, step: int) -> None:
        """Prepare to go on after `step` (0: start anew); later rows in the files are removed.

        Raises
        ------
        OutputError
            The folder holds a `log.csv` of another kind, or cannot be written to.
        """
        make_folder(self.folder)
        for name in (TABLE, CURVE):
            remove_partials(self.folder / name)
        self.rows = [row for row in read_table(self.folder / TABLE) if row["step"] <= step]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self._losses = []
        if self.rows:
            self._rewrite()
            return
        for name in (TABLE, CURVE):
            with suppress(OSError):  # writing the first row will say what is wrong
                (self.folder / name).unlink(missing_ok=True)

    def add(self, losses: Mapping[str, float]) -> None:
        """Add the losses of one step: the sum named "loss", and its terms."""
        self._losses.append(losses)

    def write(
        self,
        step: int,
        seconds: float,
        learning_rate: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Write a row for the steps since the last row."""
        names = self._losses[0] if self._losses else {}
        row: dict[str, float] = {"step": step, "seconds": seconds}
        for name in names:
            column = name if name == LOSS else f"{LOSS}_{name}"
            row[column] = float(np.mean([losses[name] for losses in self._losses]))
        row["learning_rate"] = learning_rate
        row |= {f"{SCORE}{name}": float(value) for name, value in (scores or {}).items()}
        self._losses = []
        self.rows.append(row)
        if fresh := [name for name in row if name not in self._columns]:
            self._columns += fresh
            self._rewrite()
            return
        try:
            with (self.folder / TABLE).open("a", encoding="utf-8", newline="") as file:
                file.write(_line(row.get(name) for name in self._columns))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.folder / TABLE} cannot be written: {error.strerror or error}; make room, "
                "then resume."
            ) from error

    def draw(self) -> None:
        """Draw the learning curve: losses above, validation scores below, by step."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        losses = [name for name in self._columns if name.startswith(LOSS)]
        scores = [name for name in self._columns if name.startswith(SCORE)]
        figure = Figure(figsize=(7, 6 if scores else 3.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0]
        self._plot(axes[0], losses)
        axes[0].set_ylabel("loss")
        if scores:
            self._plot(axes[1], scores)
            axes[1].set_ylabel("validation")
        axes[-1].set_xlabel("step")
        with atomic_file(self.folder / CURVE) as path:
            figure.savefig(path, format="png", dpi=110)

    def _plot(self, axes: Any, names: list[str]) -> None:
        for name in names:
            points = [(row["step"], row[name]) for row in self.rows if name in row]
            style = ".-" if len(points) < 50 else "-"
            # matplotlib would take a dollar sign in a legend for the start of a formula.
            axes.plot(*zip(*points, strict=True), style, label=name.replace("$", r"\$"))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    def _rewrite(self) -> None:
        with atomic_file(self.folder / TABLE) as path:
            lines = [[row.get(name) for name in self._columns] for row in self.rows]
            text = _line(self._columns) + "".join(map(_line, lines))
            path.write_text(text, encoding="utf-8", newline="")


def read_table(path: Path) -> list[dict[str, float]]:
    """Read the rows of a `log.csv`, without a torn last one; none if the file does not exist.

    Raises
    ------
    OutputError
        The file is no log of a training, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a row without a line end is torn
        header, *lines = [*csv.reader(io.StringIO(whole))] or [["step"]]
        rows = [
            {name: float(cell) for name, cell in zip(header, line, strict=True) if cell}
            for line in lines
        ]
        if header[0] != "step" or any("step" not in row for row in rows):
            raise ValueError("it has no steps")
        return [{**row, "step": int(row["step"])} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error, IndexError) as error:
        raise OutputError(
            f"{path} is not the log of a training ({error}); move it away, or choose another "
            "folder."
        ) from error


def _line(cells: Any) -> str:
    """Format one line of the table: integers as they are, other numbers with six digits."""
    out = io.StringIO()
    texts = ("" if c is None else f"{c:.6g}" if isinstance(c, float) else str(c) for c in cells)
    csv.writer(out, lineterminator="\n").writerow(texts)
    return out.getvalue()
