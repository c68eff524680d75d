"""How many bytes a server is sent for a pixel, and how many come back: `docs/remote.md`.

    python benchmarks/remote.py

Nothing is sent: a tile of the samples is packed as it would be.
"""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING

import torch

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.watershed import find_basins
from napari_unet.core.io.sample_images import sample_path
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.model import Model, load_model
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.tile_runner import TileRunner
from napari_unet.nn.remote.message import pack

if TYPE_CHECKING:
    import numpy as np

SAMPLES = ("fluorescence", "histology", "phase contrast")
SPEED = 10e6
"""Pixels a second of a GPU that the line shall keep busy."""


def cost(arrays: dict[str, np.ndarray], pixels: int) -> tuple[float, float]:
    """Return bytes and nanoseconds for each pixel."""
    began = time.perf_counter()
    size = len(pack({}, arrays))
    return size / pixels, 1e9 * (time.perf_counter() - began) / pixels


def measure(stack: Stack, model: Model) -> dict[str, tuple[float, float]]:
    """Return what one tile of a stack costs in each direction."""
    frame = open_frame(stack, model, PredictSettings(), stack.indices(2)[0])
    runner = TileRunner(model.runner(), model.spec, frame, 1024)
    tile = runner.plan()[0]
    raw = runner.run_tile(tile)
    pixels = raw[0].size
    cut = InstanceHead.raw_threshold(0.5)
    basins = find_basins(raw[0] > cut, raw[1], tile, frame.size)
    arrays = {field.name: getattr(basins, field.name) for field in fields(basins)}
    channels = tuple(sorted(set(frame.channels)))
    with torch.inference_mode():
        image = torch.from_numpy(frame.read(tile.read))[None]
        features = model.runner().trunk(image)[0].half().numpy()
    return {
        "pixels of the image": cost({"p": stack.read(frame.index, tile.read, channels)}, pixels),
        "basins, for labels": cost(arrays, pixels),
        "raw maps": cost({"maps": raw}, pixels),
        "prepared image": cost({"image": frame.read(tile.read)[:1]}, pixels),
        "features, for clicks": cost({"maps": features}, pixels),
    }


def main() -> None:
    """Print a table for each sample."""
    model = load_model("nuclei", "cpu")
    for name in SAMPLES:
        stack = open_stack(sample_path(name))
        print(f"\n{name}, {stack.dtype}, {stack.labels_shape}")
        for what, (size, nanoseconds) in measure(stack, model).items():
            line = size * SPEED * 8 / 1e6
            print(f"  {what:24} {size:7.3f} B/px {nanoseconds:6.0f} ns/px {line:7.0f} Mbit/s")


if __name__ == "__main__":
    main()
