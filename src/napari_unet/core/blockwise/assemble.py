"""From the files of finished blocks to a label image: the steps that need no network.

Each step reads files of a `RunDirectory`, writes one, and is harmless to repeat; steps of one kind
do not depend on each other, so any number of processes may share them:

    join level 0, 1, ... (`join_node`)  ->  number each frame (`number_frame`)  ->
    label level ..., 1, 0 (`label_node`)  ->  write (`write_block`)  ->  coarsen (`coarsen_part`)

Where objects are joined through z, that comes before writing (`stacking`).

Frames of one block need the writing alone: their files hold labels. Steps that are given a group
do its frames together, see `framegroups`; where frames have several blocks, a group is a frame.
"""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.blocks import BlockPlan
from napari_unet.core.blockwise.join import MergeResult, join, label_roots
from napari_unet.core.blockwise.run_directory import read_arrays, write_arrays
from napari_unet.core.blockwise.stitch_z import stitched_labels
from napari_unet.core.blockwise.summary import BlockSummary, RegionGraph, link, shrink
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import make_folder
from napari_unet.core.io.label_image import LabelImage, chunks_for

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.blockwise.run_plan import RunPlan
    from napari_unet.core.instances.tile_merger import DecodeSettings
    from napari_unet.core.tiles import Window


MOST = np.iinfo(np.uint32).max
_PART, _CLOSING = "part.", "closing."


def pack_block(ids: np.ndarray, pieces: BlockSummary | None) -> dict[str, np.ndarray]:
    """Return what a file says of a block: ids, and its pieces or the classes that it holds."""
    if pieces is None:
        return {"ids": ids, "classes": np.setdiff1d(ids, [0])}
    return {"ids": ids, **asdict(pieces)}


def write_blocks(
    place: RunDirectory, group: int, number: int, found: dict[int, dict[str, np.ndarray]]
) -> None:
    """Put what was found in a block of a group's frames, by frame, into its file."""
    arrays = {
        f"{place.plan.groups.frames(group).index(frame)}.{name}": values
        for frame, packed in found.items()
        for name, values in packed.items()
    }
    write_arrays(place.block(group, number), arrays)


def read_block(place: RunDirectory, frame: int, number: int, *names: str) -> dict[str, np.ndarray]:
    """Read some of the arrays that a file has of a frame's block."""
    groups = place.plan.groups
    group = groups.of(frame)
    at = f"{groups.frames(group).index(frame)}."
    found = read_arrays(place.block(group, number), *(at + name for name in names))
    return {name.removeprefix(at): values for name, values in found.items()}


def is_found(place: RunDirectory, frame: int, number: int) -> bool:
    """Tell whether a block of a frame was computed, and could be read."""
    if place.failure(frame, number).exists():
        return False
    return place.block(place.plan.groups.of(frame), number).exists()


def join_alone(pieces: BlockSummary, decode: DecodeSettings) -> np.ndarray:
    """Return the label of each id of a frame's only block; entry 0 is 0."""
    _, closing = join([link(0, pieces, {})], decode)
    return np.concatenate([np.zeros(1, np.uint32), closing.objects])


def join_node(place: RunDirectory, frame: int, level: int, number: int) -> None:
    """Join the children of a node, or at level 0 look a block's neighbours up."""
    plan = place.plan
    decode, blocks = plan.decoding, plan.blocks
    assert decode is not None, "classes are not joined"
    if level == 0:
        parts = [_leaf(place, frame, number)] if is_found(place, frame, number) else []
    else:
        parts = []
        for child in blocks.children(level, number):
            names = [_PART + item.name for item in fields(RegionGraph)]
            found = read_arrays(place.node(frame, level - 1, child), *names)
            part = RegionGraph(**{name.removeprefix(_PART): value for name, value in found.items()})
            parts.append(shrink(part, blocks.outer_faces(level - 1, child)))
    part, closing = join(parts, decode)
    arrays = {_PART + name: value for name, value in asdict(part).items()}
    arrays |= {_CLOSING + name: value for name, value in asdict(closing).items()}
    write_arrays(place.node(frame, level, number), arrays | {"count": np.array([closing.count])})


def number_frame(place: RunDirectory, frame: int) -> int:
    """Settle at which label each node of a frame begins; return how many objects there are."""
    blocks, first, arrays = place.plan.blocks, 0, {}
    for level in range(blocks.levels + 1):
        counts = [
            int(read_arrays(place.node(frame, level, number), "count")["count"][0])
            for number in range(int(np.prod(blocks.nodes(level))))
        ]
        ends = first + np.cumsum(counts, dtype=np.int64)
        arrays[str(level)] = ends - counts
        first = int(ends[-1])
    if first > MOST:
        raise OutputError(
            f"Frame {frame} holds {first} objects, more than 32 bits count; raise min_size."
        )
    write_arrays(place.numbers(frame), arrays | {"total": np.array([first])})
    return first


def label_node(place: RunDirectory, frame: int, level: int, number: int) -> None:
    """Give the roots of a node their labels, those of the node above being known."""
    blocks = place.plan.blocks
    names = [_CLOSING + item.name for item in fields(MergeResult)]
    found = read_arrays(place.node(frame, level, number), *names)
    closing = MergeResult(**{name.removeprefix(_CLOSING): value for name, value in found.items()})
    first = int(read_arrays(place.numbers(frame), str(level))[str(level)][number])
    above = (np.zeros(0, np.int64), np.zeros(0, np.uint32))
    if level < blocks.levels:
        parent = read_arrays(place.labels(frame, level + 1, blocks.parent(level, number)))
        above = (parent["roots"], parent["labels"])
    labels = label_roots(closing, first, above)
    write_arrays(place.labels(frame, level, number), {"roots": closing.roots, "labels": labels})


def objects_of(place: RunDirectory, frame: int) -> int:
    """Return how many objects (or classes) a frame holds, once it is joined."""
    plan = place.plan
    if plan.decode is not None and plan.blocks.count > 1:
        return int(read_arrays(place.numbers(frame), "total")["total"][0])
    done = [n for n in range(plan.blocks.count) if is_found(place, frame, n)]
    if plan.decode is None:
        classes = [read_block(place, frame, n, "classes")["classes"] for n in done]
        return len(np.unique(np.concatenate([np.zeros(0, np.uint32), *classes])))
    return sum(int(read_block(place, frame, n, "objects")["objects"][0]) for n in done)


def block_labels(place: RunDirectory, frame: int, number: int) -> np.ndarray:
    """Return the labels of a block, as its frame alone has them; 0 where it could not be read."""
    plan = place.plan
    if not is_found(place, frame, number):
        return np.zeros([w.stop - w.start for w in plan.blocks.window(number)], np.uint32)
    ids = read_block(place, frame, number, "ids")["ids"]
    if plan.decode is not None and plan.blocks.count > 1:
        labels = read_arrays(place.labels(frame, 0, number), "labels")["labels"]
        ids = np.concatenate([np.zeros(1, np.uint32), labels])[ids]
    return ids


def write_block(place: RunDirectory, group: int, number: int) -> None:
    """Write a block's labels into the result and mark it as written."""
    plan, image = place.plan, label_image(place)
    frames = plan.groups.frames(group)
    part = (*plan.groups.place(group), *plan.blocks.window(number))
    if place.block(group, number).exists():
        labels = (
            stitched_labels(place, frames, number, block_labels)
            if plan.least_voxels is not None
            else (block_labels(place, frame, number) for frame in frames)
        )
        array = image.open()
        values = np.stack([each.astype(array.dtype) for each in labels])
        array[part] = values if plan.leading else values[0]
        image.sync(0, part)
    _mark(place, 0, group, number)


def coarsen_part(place: RunDirectory, level: int, group: int, number: int) -> None:
    """Fill a part of a coarser level and mark it as written."""
    image, plan = label_image(place), place.plan
    part = (*plan.groups.place(group), *level_blocks(plan, image, level).window(number))
    image.coarsen(level, part)
    image.sync(level, part)
    _mark(place, level, group, number)


def idle(place: RunDirectory, milliseconds: int, number: int) -> None:
    """Do nothing for a while: a step of known length, by which the engine itself is measured."""
    time.sleep(milliseconds / 1000)


def label_image(place: RunDirectory) -> LabelImage:
    """Return where the result is made."""
    plan = place.plan
    chunks = chunks_for(plan.shape, plan.ndim, plan.block, plan.together)
    return LabelImage(place.result, plan.axes, plan.shape, chunks, plan.identity["zarr_format"])


def level_blocks(plan: RunPlan, image: LabelImage, level: int) -> BlockPlan:
    """Return the parts in which a level of the result is filled."""
    shape = image.level_shape(level)[len(plan.leading) :]
    return BlockPlan(
        shape, tuple(max(1, min(e, n)) for e, n in zip(plan.block, shape, strict=True))
    )


def _leaf(place: RunDirectory, frame: int, number: int) -> RegionGraph:
    borders = {}
    for other in place.plan.blocks.neighbours(number):
        if is_found(place, frame, other):
            found = read_block(place, frame, other, "border", "border_basins")
            borders[other] = (found["border"], found["border_basins"])
    names = [item.name for item in fields(BlockSummary)]
    return link(number, BlockSummary(**read_block(place, frame, number, *names)), borders)


def _mark(place: RunDirectory, level: int, group: int, number: int) -> None:
    mark = place.mark(level, group, number)
    make_folder(mark.parent)
    mark.touch()


SPREAD = 7919
"""Ids of neighbouring blocks begin this far apart, so that their colours differ."""


def make_preview(place: RunDirectory) -> None:
    """Make the arrays of provisional labels, one for each level, where they are not there yet."""
    import zarr

    image, leading = label_image(place), len(place.plan.leading)
    for level in range(image.levels):
        if not (path := place.preview / str(level)).exists():
            shape = image.level_shape(level)
            chunks = (1,) * leading + image.chunks[leading:]  # it is written frame by frame
            zarr.create_array(
                str(path),
                shape=shape,
                dtype=np.uint32,
                chunks=tuple(max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True)),
            )


def open_preview(folder: Path) -> list[Any]:
    """Open the arrays of a `RunDirectory.preview` for reading, the full resolution first."""
    import zarr

    paths = sorted(folder.iterdir(), key=lambda path: int(path.name))
    return [zarr.open_array(str(path), mode="r") for path in paths]


def show_block(place: RunDirectory, frame: int, window: Window, labels: np.ndarray) -> None:
    """Write a block's provisional labels into every level."""
    import zarr

    plan = place.plan
    if plan.decode is not None:
        first = sum(w.start // max(1, e) for w, e in zip(window, plan.block, strict=True)) * SPREAD
        labels = np.where(labels > 0, labels + np.uint32(first), 0)
    *planes, rows, columns = window
    for level in range(label_image(place).levels):
        step = 2**level  # the first of so many pixels is kept
        y, x = (slice(-(-w.start // step), -(-w.stop // step)) for w in (rows, columns))
        offsets = [at.start * step - w.start for at, w in ((y, rows), (x, columns))]
        part = labels[..., offsets[0] :: step, offsets[1] :: step]
        if part.size:
            array: Any = zarr.open_array(str(place.preview / str(level)), mode="r+")
            array[(*plan.index(frame), *planes, y, x)] = part
