"""What a result says of how it was made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.readers import UNREADABLE

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings import PredictSettings

WHOLE = 64 * 2**20
"""Stacks of up to this many bytes are hashed whole, larger ones by a grid of samples."""
SAMPLES, EDGE = 5, 64
"""Samples along each axis of a large stack, and their edge length along Y and X, in pixels."""


def make_provenance(
    stack: Stack, card: ModelCard, settings: PredictSettings, *, hashed: bool = True
) -> dict[str, Any]:
    """Return model, data, settings and versions as plain JSON values."""
    packages = ("napari-unet", "torch", "numpy")
    return {
        "model": card.name,
        "model_hash": card.hash,
        "data_hash": fingerprint(stack) if hashed else None,
        OBJECT_AXES: "ZYX"[-card.spec.ndim :],
        "voxel_size_um": list(stack.voxel_size_um) if stack.voxel_size_um else None,
        "settings": asdict(settings),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def fingerprint(stack: Stack) -> str | None:
    """Hash a stack's type, shape and values: all of them, or a fixed grid of samples if large.

    None if a part that the segmentation had no need of, such as another channel, is damaged.
    """
    try:
        return _fingerprint(stack)
    except UNREADABLE:
        return None


def _fingerprint(stack: Stack) -> str:
    data, shape = stack.data, tuple(int(n) for n in stack.data.shape)
    dtype = np.dtype(data.dtype)
    digest = hashlib.sha256(f"{stack.axes} {shape} {dtype.str}".encode())
    if int(np.prod(shape)) * dtype.itemsize <= WHOLE:
        digest.update(np.ascontiguousarray(data[(slice(None),) * len(shape)]).tobytes())
        return f"sha256:{digest.hexdigest()}"
    edges = [EDGE if letter in "YX" else 1 for letter in stack.axes]
    for corner in itertools.product(*map(_starts, shape, edges)):
        part = data[tuple(slice(c, c + edge) for c, edge in zip(corner, edges, strict=True))]
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"sha256-sampled:{digest.hexdigest()}"


def _starts(size: int, edge: int) -> list[int]:
    """List where samples begin along an axis; thin axes have one sample."""
    room = max(0, size - edge)
    return sorted({room * k // (SAMPLES - 1) for k in range(SAMPLES)})
