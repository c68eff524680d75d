"""Maps back to the stack's pixels where the network ran: `Frame.to_stack` in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unet.core.frames import Resampling

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from napari_unet.core.frames import Frame
    from napari_unet.core.tiles import Window


@torch.inference_mode()
def to_stack(frame: Frame, maps: Tensor, window: Window) -> Tensor:
    """Resample maps to the stack's pixels; equal to `Frame.to_stack`, on every device.

    Parameters
    ----------
    frame
        Whose maps they are.
    maps
        float32 (K, ...), of ``frame.in_network(window)``.
    window
        The wanted part of the frame, in the stack's pixels.
    """
    for axis, (w, n, m) in enumerate(zip(window, frame.size, frame.shape, strict=True), 1):
        if n != m:
            maps = _apply(Resampling(m, n), maps, axis, w.start, w.stop)
    return maps


def _apply(zoom: Resampling, values: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Sum the taps one after the other, for the same rounding as numpy's."""
    index, weight = zoom.taps(start, stop)
    places = _send(index - index.min(), values.device)
    shape = [1] * values.ndim
    shape[axis] = stop - start
    weights = _send(weight, values.device).view(*shape, -1)
    total = values.index_select(axis, places[:, 0]) * weights[..., 0]
    for tap in range(1, index.shape[1]):
        total += values.index_select(axis, places[:, tap]) * weights[..., tap]
    return total


def _send(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy a small table to the device; from pinned memory, so that nothing waits for a GPU."""
    table = torch.from_numpy(values)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
