"""Whether a kill while a model learns live loses what was said to be saved, or leaves a half.

    python benchmarks/live_kills.py [--kills 500] [--longest 3] [--json FILE]

A process puts edits of several places at once into the journal (as *Alike* and *Take over* do),
learns a round from them, compares and keeps, and reports each of these as soon as it is saved. It
is killed (SIGKILL) at a random moment; then the journal must hold all that was reported, each edit
as a whole, the store must list all that was kept, and whatever it lists must load. The next process
goes on from there.

It is the code that the window runs in its jobs (`LiveWork`, the journal, the store) without the
window: forked when all is loaded, as a window takes seconds to open. Not covered is Qt. The model
is tiny. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from lab.kills import run_until_killed
from lab.report import write_results
from scipy import ndimage

from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.errors import UnetError
from napari_unet.core.models.store import list_models
from napari_unet.gui.live import work as live_work
from napari_unet.nn.inference.model import load_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from live_child import SIZE, begin, holds_whole_edits, work_on


class _WarmError(Exception):
    """All that a process does was done once."""


def warm_up() -> None:
    """Do once what the processes do: what is loaded and set up on the way need not be again."""

    def say(text: str) -> None:
        if text.startswith("kept"):
            raise _WarmError

    image = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    with contextlib.suppress(_WarmError):
        work_on(begin(image), image, say)


def kill_test(kills: int, seed: int, longest: float) -> dict[str, int]:
    """Kill many times, after up to `longest` seconds of the processor; count what was lost."""
    rng = np.random.default_rng(seed)
    names = ("kills", "saved", "rounds", "kept", "lost", "half_edits", "lost_models", "half_models")
    found, checked = dict.fromkeys(names, 0), set()
    live_work.STEPS_A_ROUND = 2
    warm_up()
    path, image, before = Path(), np.zeros(SIZE, np.float32), 0
    for number in range(kills):
        if number % 25 == 0:  # a new image: journals grow, and with them the time to check them
            spots = (rng.uniform(size=SIZE) > 0.99).astype(np.float32)
            image = ndimage.gaussian_filter(spots, 3.0)
            path, before = begin(image), 0
        work = functools.partial(work_on, path, image)
        said = run_until_killed(work, rng.uniform(0, longest))
        reported = max([int(s.split()[1]) for s in said if s.startswith("saved")], default=before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)  # of a record that was cut
            with Journal.open(path) as journal:
                written = len(journal.history())
                found["half_edits"] += not holds_whole_edits(journal)
        found["kills"] += 1
        found["saved"] += reported - before
        found["lost"] += max(0, reported - written)
        found["rounds"] += sum(text.startswith("learned") for text in said)
        before = written
        kept = {text for text in said if text.startswith("kept")}
        found["kept"] += len(kept)
        listed = {entry.name for entry in list_models() if entry.name.startswith("kept")}
        found["lost_models"] += len(kept - listed)
        for name in listed - checked:
            try:
                found["half_models"] += not load_model(name, "cpu").card.parent
            except UnetError:
                found["half_models"] += 1
        checked |= listed
    return found


def main() -> int:
    """Kill, print and judge; status 1 if anything was lost or half."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--longest", type=float, default=3.0, help="seconds of the processor until the kill"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        found = kill_test(arguments.kills, arguments.seed, arguments.longest)
    write_results(found, arguments.json)
    return int(any(found[what] for what in ("lost", "half_edits", "lost_models", "half_models")))


if __name__ == "__main__":
    raise SystemExit(main())
