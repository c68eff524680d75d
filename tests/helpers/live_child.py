"""Corrects, learns and keeps for ever, and reports each correction and each model that is saved."""

from __future__ import annotations

import itertools
import sys

import torch
from tune_parts import discs, tiny_model

from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.store import get_family
from napari_unet.core.progress import run_to_end
from napari_unet.gui.live import work as work_module


def main() -> None:
    torch.set_num_threads(1)
    work_module.STEPS_A_ROUND = 2
    tiny_model()
    image, labels = discs((48, 100))
    card = get_family("tiny")[0]
    stack = open_stack(image)
    with Journal.begin(stack, labels, model=card.name, model_hash=card.hash) as journal:
        work = work_module.LiveWork("tiny", "cpu")
        for number in itertools.count():
            journal.mark(KNOWN, (), (slice(0, 48), slice(0, 30 + number % 70)))
            print(f"corrected {len(journal.marks())}", flush=True)
            work.waiting = True
            run_to_end(work.round_steps([stack], None, touched=True))
            print("learned", flush=True)
            if number % 2:
                run_to_end(work.conclude())
                work.save(f"kept {number}")
                print(f"kept {number}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
