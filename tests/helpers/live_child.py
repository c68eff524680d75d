"""Corrects, learns and keeps for ever, and reports each correction and each model that is saved.

It is the code that the window runs in its jobs, without the window.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
from tune_parts import discs, tiny_model

from napari_unet.core.annotations.edits import KNOWN, TAKEN_OVER, Edit
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.store import get_family, list_models
from napari_unet.core.progress import run_to_end
from napari_unet.gui.live import work as work_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_unet.core.annotations.journal_reader import JournalReader

SIZE = (48, 100)


def begin(image: np.ndarray) -> Path:
    """Begin a journal of empty labels, and return where it lies; the tiny model is stored."""
    if not any(entry.name == "tiny" for entry in list_models()):
        tiny_model()
    card = get_family("tiny")[0]
    first = np.zeros(SIZE, np.uint16)
    with Journal.begin(open_stack(image), first, model=card.name, model_hash=card.hash) as journal:
        return journal.path


def drawn(number: int) -> np.ndarray:
    """Return where the edit of a number is: four squares, which change together; bool."""
    changed = np.zeros(SIZE, bool)
    left = number * 11 % 86
    for top in range(2, 48, 12):
        changed[top : top + 7, left : left + 7] = True
    return changed


def count_edits(journal: JournalReader) -> int:
    """Return how many edits a journal holds."""
    return sum(isinstance(event, Edit) for event in journal.history())


def holds_whole_edits(journal: JournalReader) -> bool:
    """Return whether the labels are those after the edits that the journal holds, to the pixel."""
    labels = np.zeros(SIZE, np.uint16)
    for number in range(count_edits(journal)):
        labels[drawn(number)] = number + 1
    return np.array_equal(journal.replay(), labels)


def work_on(path: Path, image: np.ndarray, say: Callable[[str], object]) -> None:
    """Edit several places at once, mark, learn and keep for ever."""
    stack = open_stack(image)
    with Journal.open(path) as journal:
        labels, edits, saved = journal.replay(), count_edits(journal), len(journal.history())
        work = work_module.LiveWork("tiny", "cpu")
        while True:
            where = np.nonzero(drawn(edits))
            source = TAKEN_OVER if edits % 3 == 2 else "alike"
            edit = journal.plan(where, labels[where], edits + 1, labels=labels, source=source)
            journal.record(edit)
            say(f"saved {saved + 1}")
            labels[where] = edits + 1
            journal.mark(KNOWN, (), (slice(0, 48), slice(0, 30 + edits % 60)))
            say(f"saved {saved + 2}")
            edits, saved = edits + 1, saved + 2
            work.waiting = True
            run_to_end(work.round_steps([stack], None, touched=True))
            say(f"learned {edits}")
            if not edits % 2:
                name = f"kept-{os.getpid()}-{edits}"
                run_to_end(work.conclude())
                work.save(name)
                say(name)


def main() -> None:
    """Begin a journal, and work until the end."""
    torch.set_num_threads(1)
    work_module.STEPS_A_ROUND = 2
    image, _ = discs(SIZE)
    work_on(begin(image), image, lambda text: print(text, flush=True))


if __name__ == "__main__":
    sys.exit(main())
