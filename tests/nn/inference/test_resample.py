"""Maps come back to the stack's pixels in torch as they do in numpy, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.core.image.frames import Frame
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.inference.tile_runner import to_stack


@pytest.mark.parametrize("scale", [0.31, 0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("shape", [(41, 67), (7, 23, 30)])
def test_equal_to_the_bit(scale, shape):
    rng = np.random.default_rng(0)
    ndim = len(shape)
    frame = Frame.from_stack(open_stack(rng.random(shape)), (), ndim, (0,), scale=scale)
    window = tuple(slice(n // 5, n - 1) for n in shape)
    needed = frame.in_network(window)
    maps = rng.normal(size=(2, *(w.stop - w.start for w in needed))).astype(np.float32)
    expected = frame.to_stack(maps, window)
    got = to_stack(frame, torch.from_numpy(maps), window)
    assert got.shape == (2, *(w.stop - w.start for w in window))
    assert got.numpy().tobytes() == np.ascontiguousarray(expected).tobytes()
