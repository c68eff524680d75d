"""Objects described: their looks, and what a network sees in them, pooled over each object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_unet.core.alike.descriptors import (
    Candidate,
    describe_objects,
    join_masks,
    neck_depth,
    object_masks,
    touching_pairs,
)
from napari_unet.core.instances.mask import bounding_window
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import relative_window
from napari_unet.nn.inference.diameter_estimation import diameter_steps
from napari_unet.nn.inference.embeddings import FrameFeatures
from napari_unet.nn.inference.model_input import check_fit, open_frame
from napari_unet.nn.unet.click_head import activate

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.model import Model

BLOCK = {2: 768, 3: 96}
"""Edge length of the parts in which features are read, in network pixels: memory is bounded."""
DEEP = 0.5
"""Pixels count as the middle of an object from this share of its largest depth on."""


@dataclass(frozen=True)
class DescribedObjects:
    """Candidates, and their descriptors float64 (N, D)."""

    items: tuple[Candidate, ...]
    values: np.ndarray


def describe_stack(
    stack: Stack,
    labels: Any,
    model: Model,
    settings: PredictSettings | None = None,
    *,
    cache: FeatureCache,
    frames: Sequence[Index] | None = None,
    pairs: bool = False,
    extra: Sequence[Candidate] = (),
) -> Generator[Progress, None, DescribedObjects]:
    """Describe the objects of a stack, frame by frame.

    Parameters
    ----------
    labels
        Integers of the stack's labels shape, indexed by slices.
    settings
        How the model is run; without a diameter it is estimated.
    cache
        Features of the image; a model that others built has none.
    frames
        Those to look at; None: all.
    pairs
        Describe pairs of objects that touch, as one, instead of single objects.
    extra
        More candidates, which come first: objects as they were before an edit.
    """
    check_fit(stack, model)
    settings, _ = yield from diameter_steps(stack, model, settings or PredictSettings(survey=False))
    indices = stack.indices(model.spec.ndim) if frames is None else list(frames)
    first: list[Candidate] = []
    found: list[Candidate] = []
    values: list[np.ndarray] = []
    own: list[np.ndarray] = []
    for number, index in enumerate([*dict.fromkeys([*(c.index for c in extra), *indices])]):
        plane = np.asarray(labels[index])
        given = [candidate for candidate in extra if candidate.index == index]
        listed = _candidates(plane, index, pairs) if index in indices else []
        frame = open_frame(stack, model, settings, index)
        everything = tuple(slice(0, n) for n in plane.shape)
        distinct = tuple(sorted(set(frame.channels)))
        image = frame.normaliser(stack.read(index, everything, distinct))
        masks = [candidate.mask for candidate in (*given, *listed)]
        rows = describe_objects(masks, plane, image, len(given))
        yield Progress(number, len(indices), "frames")
        if model.has_features and masks:
            runner = model.runner(model.choose_precision(settings.precision))
            seen = FrameFeatures(runner, model.spec, frame, cache)
            pooled = yield from pool_features(masks, seen)
            middle = np.median(pooled[len(given) :] if listed else pooled, axis=0)
            rows = np.concatenate([rows, pooled - middle], axis=1)
        first += given
        found += listed
        own.append(rows[: len(given)])
        values.append(rows[len(given) :])
        yield Progress(number + 1, len(indices), "frames")
    together = [part for part in (*own, *values) if len(part)]
    table = np.concatenate(together) if together else np.zeros((0, 0))
    return DescribedObjects((*first, *found), table)


def _candidates(plane: np.ndarray, index: Index, pairs: bool) -> list[Candidate]:
    masks = object_masks(plane)
    if not pairs:
        return [Candidate(index, (label,), mask) for label, mask in masks.items()]
    return [
        Candidate(index, pair, join_masks([masks[label] for label in pair]))
        for pair in touching_pairs(plane)
    ]


def pool_features(
    masks: Sequence[ObjectMask], features: FrameFeatures
) -> Generator[Progress, None, np.ndarray]:
    """Pool what a network sees in objects of a frame, a block of the frame after the other.

    Parameters
    ----------
    masks
        The objects, in the stack's pixels.
    features
        Of the frame; what is missing is computed.

    Returns
    -------
    np.ndarray
        float64 (N, D): means and spreads of the features and maps, and the maps in the middle.
    """
    ratio = [m / n for m, n in zip(features.frame.shape, features.frame.size, strict=True)]
    edge = BLOCK[features.spec.ndim]
    blocks: dict[tuple[int, ...], list[int]] = {}
    for number, mask in enumerate(masks):
        middle = [(w.start + w.stop) / 2 * r for w, r in zip(mask.window, ratio, strict=True)]
        blocks.setdefault(tuple(int(m // edge) for m in middle), []).append(number)
    rows: dict[int, np.ndarray] = {}
    for numbers in blocks.values():
        windows = {n: features.frame.in_network(masks[n].window) for n in numbers}
        whole = bounding_window(list(windows.values()))
        seen = _read(features, whole)
        for number in numbers:
            window = windows[number]
            part = seen[(slice(None), *relative_window(window, whole))]
            chosen = _in_network(masks[number], window, features)
            rows[number] = _pool(part, chosen, len(seen) - features.spec.width)
        yield Progress(len(rows), len(masks), "objects")
    return np.stack([rows[number] for number in range(len(masks))])


def _read(features: FrameFeatures, window: Window) -> np.ndarray:
    """Read the trunk's features and the activated maps in a window, float32 (C, *window)."""
    with torch.inference_mode():
        trunk = features.read(window)[None]
        maps = activate(features.spec, features.runner.read(trunk[:, :-1]))
        return np.asarray(torch.cat((trunk[:, :-1].float(), maps.float()), 1)[0].cpu().numpy())


def _in_network(mask: ObjectMask, window: Window, features: FrameFeatures) -> np.ndarray:
    """Return a mask in a window of the network's pixels: each takes its nearest in the stack."""
    inside, frame = mask.inside, features.frame
    axes = zip(window, mask.window, frame.size, frame.shape, strict=True)
    for axis, (w, own, n, m) in enumerate(axes):
        at = ((np.arange(w.start, w.stop) + 0.5) * n / m - 0.5).round().astype(int) - own.start
        outside = (at < 0) | (at >= inside.shape[axis])
        inside = inside.take(np.where(outside, 0, at), axis)
        inside[(slice(None),) * axis + (outside,)] = False
    if not inside.any():  # smaller than a pixel of the network
        inside[...] = True
    return inside


def _pool(part: np.ndarray, chosen: np.ndarray, maps: int) -> np.ndarray:
    """Pool (C, *window) over an object; of the maps, which come last, its middle once more."""
    values = part[:, chosen]
    depth = ndimage.distance_transform_edt(np.pad(chosen, 1))[(slice(1, -1),) * chosen.ndim]
    middle = part[-maps:, depth >= DEEP * depth.max()]
    distance = part[-maps:][min(1, maps - 1)]
    pooled = [
        values.mean(1),
        values.std(1),
        middle.min(1),
        middle.mean(1),
        [neck_depth(distance, chosen)],
    ]
    return np.concatenate(pooled).astype(float)
