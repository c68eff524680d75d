"""Planes that were segmented in blocks, their objects joined through z by tables in files.

A volume's planes are read one after the other, from the files of finished blocks; what comes out is
a table for each plane (`stitch3d`), in one file of the `RunDirectory`. Writing a block then looks
its labels up there. Both steps are harmless to repeat. In memory are three planes, and a number for
each object of each plane.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.run_directory import read_arrays, write_arrays
from napari_unet.core.volumes.stitch3d import ZStitcher

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.blockwise.run_plan import RunPlan

    BlockLabels = Callable[[RunDirectory, int, int], np.ndarray]


def volumes(plan: RunPlan) -> int:
    """Return how many volumes the planes of a run are of; z is the last of its leading axes."""
    return plan.frames // plan.leading[-1] if plan.frames else 0


def join_volume(
    place: RunDirectory, volume: int, labels_of: BlockLabels
) -> Generator[None, None, None]:
    """Join the objects of a volume's planes, yielding after every plane.

    Parameters
    ----------
    labels_of
        Gives the labels of a block of a plane: of the workplace, a frame and a block's number.
    """
    plan, chains = place.plan, ZStitcher()
    depth = plan.leading[-1]
    for frame in range(volume * depth, (volume + 1) * depth):
        plane = np.zeros(plan.blocks.shape, np.uint32)
        for number in range(plan.blocks.count):
            plane[plan.blocks.window(number)] = labels_of(place, frame, number)
        chains.add(plane)
        yield
    joined = chains.finish(plan.least_voxels or 0)
    arrays = _packed("table", joined.tables) | _packed("bridged", joined.bridged)
    write_arrays(place.stacked(volume), arrays | {"objects": np.array([joined.objects])})


def objects_in(place: RunDirectory, volume: int) -> int:
    """Return how many objects a volume holds, once it is joined."""
    return int(read_arrays(place.stacked(volume), "objects")["objects"][0])


def stitched_labels(
    place: RunDirectory, frames: range, number: int, labels_of: BlockLabels
) -> Iterator[np.ndarray]:
    """Yield the labels of a block of some planes, their objects being those of the volume.

    Parameters
    ----------
    frames
        Planes of one volume, in their order.
    """
    depth = place.plan.leading[-1]
    volume = frames.start // depth
    names = ("table", "table_ends", "bridged", "bridged_ends")
    found = read_arrays(place.stacked(volume), *names)

    @lru_cache(3)
    def looked_up(at: int) -> np.ndarray:
        table = _part(found, "table", at)
        return table[labels_of(place, volume * depth + at, number)]

    for z in range(frames.start - volume * depth, frames.stop - volume * depth):
        labels, bridged = looked_up(z), _part(found, "bridged", z)
        if len(bridged):
            below, above = looked_up(z - 1), looked_up(z + 1)
            gap = (labels == 0) & (below == above) & np.isin(below, bridged)
            labels = np.where(gap, below, labels)
        yield labels


def _packed(name: str, parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Put arrays behind one another, with where each of them ends."""
    whole = np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.uint32)
    return {name: whole, f"{name}_ends": np.cumsum([len(part) for part in parts], dtype=np.int64)}


def _part(found: dict[str, np.ndarray], name: str, at: int) -> np.ndarray:
    ends = found[f"{name}_ends"]
    return found[name][int(ends[at - 1]) if at else 0 : int(ends[at])]
