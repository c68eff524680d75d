"""A process of its own that segments in blocks: what is killed in the tests."""

from __future__ import annotations

import sys

import numpy as np

from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.blockwise.plan import BlockwiseRequest
from napari_unet.nn.blockwise.run import segment_blocks
from napari_unet.nn.inference.model import load_model


def main(image: str, model: str, target: str, block: str) -> None:
    """Segment an .npy, going on with what is there."""
    settings = PredictSettings(tile=64, survey=False, certify=False)
    place = OutputLocation.resolve(target, None, "")
    print("begun", flush=True)
    request = BlockwiseRequest(np.load(image), place, settings, block=int(block), resume=True)
    run_to_end(segment_blocks(request, load_model(model, "cpu")))


if __name__ == "__main__":
    main(*sys.argv[1:])
