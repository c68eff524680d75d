"""How much fits into a device's memory, and how to tell that something did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import torch

from napari_unet.core.tiles import tile_halo

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.nn.inference.model import Runner

LARGEST_TILE = {2: 2048, 3: 192}
"""Edge length beyond which a tile gains no speed."""
LIVE_TILE = {2: 1024, 3: 96}
"""Edge length up to which tiles still follow each other quickly enough to be watched."""
LIVE_TENSORS = 8
"""Full-resolution feature maps that a forward pass holds at its peak, scratch included."""
MEMORY_SHARE = 0.5
"""Share of the free memory that one batch may take."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device's memory did not suffice."""
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


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
    each = LIVE_TENSORS * spec.width * runner.dtype.itemsize
    device = runner.device
    if device.type == "cuda":
        # What torch holds from the frames before, but does not use, is free for us.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        free = psutil.virtual_memory().available
    pixels = MEMORY_SHARE * free / (each * batch)
    halo = max(tile_halo(spec))
    edge = int(pixels ** (1 / spec.ndim)) - 2 * halo
    limit = (LIVE_TILE if live else LARGEST_TILE)[spec.ndim]
    return max(max(spec.stride), min(edge, limit, max(limit // 8, int(limit * scale))))
