"""How large tiles and batches are by a device's memory, and which errors say that it is short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unet.core.tiles import tile_halo
from napari_unet.nn.inference.remote import RemoteRunner

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.nn.inference.runner import Runner

GPU_BATCH = 4
"""Planes' tiles that go through a GPU together; a processor is busy with one."""
LARGEST_TILE = {2: 2048, 3: 192}
"""Edge length beyond which a tile gains no speed, in pixels of a plane or volume."""
LIVE_TILE = {2: 1024, 3: 96}
"""Edge length up to which tiles still follow each other quickly enough to be watched."""
LIVE_TENSORS = 8
"""Full-resolution feature maps that a forward pass holds at its peak, scratch included."""
MEMORY_SHARE = 0.5
"""Share of the free memory that one batch may take."""
TOGETHER = {"cpu": 2**17, "cuda": 2**22}
"""Pixels up to which small planes go through a device together: benchmarks/speed.py --batches."""
MOST_TOGETHER = 16
"""Planes that go through together at most."""


def choose_edge(
    spec: ModelSpec, runner: Runner, batch: int, *, live: bool, scale: float = 1.0
) -> int:
    """Return the edge length of the largest tile worth running, from the memory that is free.

    Parameters
    ----------
    spec, runner
        The network and where it runs.
    batch
        Tiles that share the memory.
    live
        Whether somebody watches, so that tiles should come quickly.
    scale
        Network pixels a stack pixel; where an image is shrunk, a tile stands for more of it, which
        has to be read first.
    """
    if isinstance(runner, RemoteRunner):  # a server's memory is its own; small tiles flow better
        return max(max(spec.stride), min(LIVE_TILE[spec.ndim], int(LIVE_TILE[spec.ndim] * scale)))
    each = LIVE_TENSORS * spec.width * runner.dtype.itemsize
    device = runner.device
    if device.type == "cuda":
        # What torch keeps cached from the frames before is free for the next tile.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        import psutil

        free = psutil.virtual_memory().available
    pixels = MEMORY_SHARE * free / (each * batch)
    halo = max(tile_halo(spec))
    edge = int(pixels ** (1 / spec.ndim)) - 2 * halo
    limit = (LIVE_TILE if live else LARGEST_TILE)[spec.ndim]
    return max(max(spec.stride), min(edge, limit, max(limit // 8, int(limit * scale))))


def choose_batch(device: torch.device, pixels: int, room: int) -> int:
    """Return how many small planes go through a device together.

    Parameters
    ----------
    device
        Where the network runs.
    pixels
        What the network reads of each.
    room
        How many pixels the memory holds at once.
    """
    most = min(TOGETHER.get(device.type, 0), room) // max(1, pixels)
    return max(1, min(MOST_TOGETHER, most))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device's memory did not suffice."""
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)
