"""Peak memory of a round of live learning on one large image, beyond an interpreter with torch.

    python benchmarks/live_memory.py [--size 8000] [--model nuclei] [--checked] [--json FILE]

The image is a tiled TIFF, its labels lie in a journal with corrections all over it: objects that
were drawn, deleted and accepted, and a checked box; with `--checked` all of the image is checked. A
process of its own takes them in as the window's job does, and learns a round from them; its
resident memory is read every 20 ms. The labels that the window itself holds are not in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lab.report import write_results
from memory import measure_peak, write_image

from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import find_model
from napari_unet.core.progress import run_to_end

EDGE, GAP = 24, 40
"""Objects are squares of this edge, one every so many pixels."""
PLACES = 12
"""Corrections of each kind."""


def prepare(folder: Path, size: int, model: str, checked: bool) -> None:
    """Write the image, and a journal of corrections in the home of this process."""
    write_image(folder / "image.tif", size)
    card = read_card(find_model(model))
    count = size // GAP
    labels = np.zeros((size, size), np.uint32)
    for number, (row, column) in enumerate(np.ndindex(count, count), 1):
        labels[_square(row * GAP, column * GAP)] = number
    rng = np.random.default_rng(0)
    stack = open_stack(folder / "image.tif")
    with Journal.begin(
        stack, labels, model=card.name, model_hash=card.hash, head="instance", ndim=2
    ) as journal:
        for number in range(PLACES):
            gone, drawn, right = rng.integers(0, count - 1, (3, 2)) * GAP
            for place, new, source in (
                (gone, 0, "delete"),
                (drawn, count**2 + 1 + number, "paint"),
            ):
                square = _square(*place)
                where = tuple(axis.ravel() for axis in np.mgrid[square])
                edit = journal.edit(where, labels[where], new, labels=labels, source=source)
                journal.record(edit)
                labels[square] = new
            journal.confirm([int(labels[tuple(right)])], (), labels=labels)
        box = (slice(0, size),) * 2 if checked else (slice(100, 400), slice(200, 500))
        journal.mark(KNOWN, (), box, labels=labels)


def _square(row: int, column: int) -> tuple[slice, slice]:
    return slice(row, row + EDGE), slice(column, column + EDGE)


def learn(model: str) -> None:
    """Take in what the journals of this home teach, and learn a round from it."""
    from napari_unet.gui.live.work import LiveWork

    work = LiveWork(model, "cpu")
    found = run_to_end(work.round_steps([], None, touched=True))
    print(found.objects, "objects of", found.images, "image", file=sys.stderr)


def measure(size: int, model: str, checked: bool, folder: Path) -> dict[str, Any]:
    """Make the image and the journal, learn from it, and compare with torch alone."""
    prepare(folder, size, model, checked)
    base, _ = measure_peak([sys.executable, "-c", "import torch, time; time.sleep(0.5)"])
    peak, seconds = measure_peak([sys.executable, __file__, "--learn", "--model", model])
    return {
        "size": size,
        "model": model,
        "checked": checked,
        "torch_bytes": base,
        "peak_bytes": peak,
        "beyond_bytes": peak - base,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=8000, help="edge length in pixels")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--checked", action="store_true", help="all of the image is checked")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--learn", action="store_true", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.learn:
        learn(values.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = str(Path(folder) / "home")
        found = measure(values.size, values.model, values.checked, Path(folder))
    write_results(found, values.json)


if __name__ == "__main__":
    main()
