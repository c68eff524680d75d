"""What a result says of how it was made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_unet.core.card import ModelCard
    from napari_unet.core.spec import PredictSettings
    from napari_unet.core.stack import Stack

WHOLE = 64 * 2**20
"""Stacks of up to this many bytes are hashed whole, larger ones by a grid of samples."""
SAMPLES, EDGE = 5, 64
"""Samples along each axis of a large stack, and their edge length in pixels."""


def make_passport(stack: Stack, card: ModelCard, settings: PredictSettings) -> dict[str, Any]:
    """Return model, data, settings and versions as plain JSON values."""
    packages = ("napari-unet", "torch", "numpy")
    return {
        "model": card.name,
        "model_hash": card.hash,
        "data_hash": fingerprint(stack),
        "voxel_size_um": list(stack.voxel_size_um) if stack.voxel_size_um else None,
        "settings": asdict(settings),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def fingerprint(stack: Stack) -> str:
    """Hash a stack's type, shape and values: all of them, or a fixed grid of samples if large."""
    data, shape = stack.data, tuple(int(n) for n in stack.data.shape)
    dtype = np.dtype(data.dtype)
    digest = hashlib.sha256(f"{stack.axes} {shape} {dtype.str}".encode())
    if int(np.prod(shape)) * dtype.itemsize <= WHOLE:
        digest.update(np.ascontiguousarray(data[(slice(None),) * len(shape)]).tobytes())
        return f"sha256:{digest.hexdigest()}"
    for corner in itertools.product(*(sorted(_starts(n)) for n in shape)):
        part = data[tuple(slice(start, start + EDGE) for start in corner)]
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"sha256-sampled:{digest.hexdigest()}"


def _starts(size: int) -> set[int]:
    """Return where samples begin along an axis; thin axes have one sample."""
    room = max(0, size - EDGE)
    return {room * k // (SAMPLES - 1) for k in range(SAMPLES)}
