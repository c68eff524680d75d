"""A process of its own that segments block by block, in children that are killed."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.blockwise.plan import BlockwiseRequest
from napari_unet.nn.blockwise.run import segment_blocks
from napari_unet.nn.inference.model import load_model


def segment(image: str, model: str, target: str, block: str) -> None:
    """Segment an .npy, resuming what is there."""
    settings = PredictSettings(tile=64, survey=False, certify=False)
    location = OutputLocation.resolve(target, None, "")
    request = BlockwiseRequest(np.load(image), location, settings, block=int(block), resume=True)
    run_to_end(segment_blocks(request, load_model(model, "cpu")))


def main(image: str, model: str, target: str, whole: str, block: str, *delays: str) -> None:
    """Segment in a child for each delay, killed after it; then to the end, and once uninterrupted.

    Print the kills.
    """
    kills = 0
    for delay in delays:  # children, since importing torch takes longer than a run
        if not (child := os.fork()):
            segment(image, model, target, block)
            os._exit(0)
        time.sleep(float(delay))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    segment(image, model, target, block)
    segment(image, model, whole, block)
    print(kills)


if __name__ == "__main__":
    main(*sys.argv[1:])
