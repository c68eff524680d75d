"""From the files of finished blocks to a label image: the steps that need no network.

Each step reads files of a `RunDirectory`, writes one, and can be repeated without harm. Steps of
one kind do not depend on each other, so any number of processes may share them:

    join level 0, 1, ... (`join_node`)  ->  number each frame (`number_frame`)  ->
    label level ..., 1, 0 (`label_node`)  ->  write (`write_block`)  ->  coarsen (`coarsen_part`)

Frames of one block need the writing alone: their files hold labels. Where the objects of planes are
joined through z, `stitch_volume` comes before the writing, which then looks their labels up in the
tables of the volume. A batch of frames is written together (`PlaneBatches`).
"""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.blocks import BlockPlan
from napari_unet.core.blockwise.join import (
    MergeResult,
    RegionGraph,
    join,
    keep_faces,
    label_roots,
    link,
)
from napari_unet.core.blockwise.run_directory import read_arrays, write_arrays
from napari_unet.core.errors import OutputError
from napari_unet.core.instances.tile_merger import BlockSummary
from napari_unet.core.io.files import make_folder
from napari_unet.core.volumes.stitch3d import ZStitcher, fill_gaps

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.settings.tasks import DecodeSettings


_MAX_LABEL = np.iinfo(np.uint32).max
_GRAPH, _RESULT = "part.", "closing."
"""Prefixes of the arrays of a node's `RegionGraph` and `MergeResult` in its file."""


def pack_block(ids: np.ndarray, summary: BlockSummary | None) -> dict[str, np.ndarray]:
    """Return the arrays of a block's file: ids, and its summary or the classes in it."""
    if summary is None:
        return {"ids": ids, "classes": np.setdiff1d(ids, [0])}
    return {"ids": ids, **asdict(summary)}


def write_block_file(
    directory: RunDirectory, batch: int, number: int, found: dict[int, dict[str, np.ndarray]]
) -> None:
    """Write the arrays of a block of a batch's frames, by frame, into its file."""
    arrays = {
        f"{directory.plan.batches.frames(batch).index(frame)}.{name}": values
        for frame, packed in found.items()
        for name, values in packed.items()
    }
    write_arrays(directory.block(batch, number), arrays)


def read_block(
    directory: RunDirectory, frame: int, number: int, *names: str
) -> dict[str, np.ndarray]:
    """Read some of the arrays of a frame's block from its file."""
    batches = directory.plan.batches
    batch = batches.batch_of(frame)
    prefix = f"{batches.frames(batch).index(frame)}."
    found = read_arrays(directory.block(batch, number), *(prefix + name for name in names))
    return {name.removeprefix(prefix): values for name, values in found.items()}


def is_computed(directory: RunDirectory, frame: int, number: int) -> bool:
    """Tell whether a block of a frame was computed, its data having been readable."""
    if directory.failure(frame, number).exists():
        return False
    return directory.block(directory.plan.batches.batch_of(frame), number).exists()


def label_single_block(summary: BlockSummary, decode: DecodeSettings) -> np.ndarray:
    """Return the label of each id of a frame's only block; entry 0 is 0."""
    _, result = join([link(0, summary, {})], decode)
    return np.concatenate([np.zeros(1, np.uint32), result.objects])


def join_node(directory: RunDirectory, frame: int, level: int, number: int) -> None:
    """Join the children of a node, or at level 0 link a block with its neighbours."""
    plan = directory.plan
    decode, blocks = plan.decoding, plan.blocks
    assert decode is not None, "classes are not joined"
    if level == 0:
        found = is_computed(directory, frame, number)
        graphs = [_link_block(directory, frame, number)] if found else []
    else:
        graphs = []
        names = [_GRAPH + item.name for item in fields(RegionGraph)]
        for child in blocks.children(level, number):
            arrays = read_arrays(directory.node(frame, level - 1, child), *names)
            graph = RegionGraph(**{k.removeprefix(_GRAPH): value for k, value in arrays.items()})
            graphs.append(keep_faces(graph, blocks.outer_faces(level - 1, child)))
    graph, result = join(graphs, decode)
    arrays = {_GRAPH + name: value for name, value in asdict(graph).items()}
    arrays |= {_RESULT + name: value for name, value in asdict(result).items()}
    write_arrays(directory.node(frame, level, number), arrays | {"count": np.array([result.count])})


def _link_block(directory: RunDirectory, frame: int, number: int) -> RegionGraph:
    borders = {}
    for other in directory.plan.blocks.neighbours(number):
        if is_computed(directory, frame, other):
            found = read_block(directory, frame, other, "border", "border_basins")
            borders[other] = (found["border"], found["border_basins"])
    names = [item.name for item in fields(BlockSummary)]
    return link(number, BlockSummary(**read_block(directory, frame, number, *names)), borders)


def number_frame(directory: RunDirectory, frame: int) -> None:
    """Write down at which label each node of a frame starts, and how many objects there are."""
    blocks, first, arrays = directory.plan.blocks, 0, {}
    for level in range(blocks.levels + 1):
        counts = [
            int(read_arrays(directory.node(frame, level, number), "count")["count"][0])
            for number in range(int(np.prod(blocks.nodes(level))))
        ]
        ends = first + np.cumsum(counts, dtype=np.int64)
        arrays[str(level)] = ends - counts
        first = int(ends[-1])
    if first > _MAX_LABEL:
        raise OutputError(
            f"Frame {frame} holds {first} objects, more than 32 bits count; raise min_size."
        )
    write_arrays(directory.numbers(frame), arrays | {"total": np.array([first])})


def label_node(directory: RunDirectory, frame: int, level: int, number: int) -> None:
    """Give the roots of a node their labels, those of its parent being known."""
    blocks = directory.plan.blocks
    names = [_RESULT + item.name for item in fields(MergeResult)]
    found = read_arrays(directory.node(frame, level, number), *names)
    result = MergeResult(**{name.removeprefix(_RESULT): value for name, value in found.items()})
    first = int(read_arrays(directory.numbers(frame), str(level))[str(level)][number])
    above = (np.zeros(0, np.int64), np.zeros(0, np.uint32))
    if level < blocks.levels:
        parent = read_arrays(directory.labels(frame, level + 1, blocks.parent(level, number)))
        above = (parent["roots"], parent["labels"])
    labels = label_roots(result, first, above)
    write_arrays(directory.labels(frame, level, number), {"roots": result.roots, "labels": labels})


def count_in_frame(directory: RunDirectory, frame: int) -> int:
    """Return the number of objects (or classes) of a frame, once it is joined."""
    plan = directory.plan
    if plan.decode is not None and plan.blocks.count > 1:
        return int(read_arrays(directory.numbers(frame), "total")["total"][0])
    done = [n for n in range(plan.blocks.count) if is_computed(directory, frame, n)]
    if plan.decode is None:
        classes = [read_block(directory, frame, n, "classes")["classes"] for n in done]
        return len(np.unique(np.concatenate([np.zeros(0, np.uint32), *classes])))
    return sum(int(read_block(directory, frame, n, "objects")["objects"][0]) for n in done)


def block_labels(directory: RunDirectory, frame: int, number: int) -> np.ndarray:
    """Return the labels of a block within its frame; 0 where the data could not be read."""
    plan = directory.plan
    if not is_computed(directory, frame, number):
        return np.zeros([w.stop - w.start for w in plan.blocks.window(number)], np.uint32)
    ids = read_block(directory, frame, number, "ids")["ids"]
    if plan.decode is not None and plan.blocks.count > 1:
        labels = read_arrays(directory.labels(frame, 0, number), "labels")["labels"]
        ids = np.concatenate([np.zeros(1, np.uint32), labels])[ids]
    return ids


def stitch_volume(directory: RunDirectory, volume: int) -> Generator[None, None, None]:
    """Join the objects of a volume's planes through z, yielding after every plane.

    The planes are read one after the other, from the files of finished blocks; what is written is a
    table for each plane, in one file. In memory are three planes, and a number for each object of
    each plane.
    """
    plan, stitcher = directory.plan, ZStitcher()
    depth = plan.leading[-1]
    for frame in range(volume * depth, (volume + 1) * depth):
        plane = np.zeros(plan.blocks.shape, np.uint32)
        for number in range(plan.blocks.count):
            plane[plan.blocks.window(number)] = block_labels(directory, frame, number)
        stitcher.add(plane)
        yield
    found = stitcher.finish(plan.min_voxels or 0)
    arrays = _pack_tables("table", found.tables) | _pack_tables("bridged", found.bridged)
    write_arrays(directory.stacked(volume), arrays | {"objects": np.array([found.objects])})


def count_in_volume(directory: RunDirectory, volume: int) -> int:
    """Return the number of objects of a volume, once its planes are stitched."""
    return int(read_arrays(directory.stacked(volume), "objects")["objects"][0])


def _stitched_labels(directory: RunDirectory, frames: range, number: int) -> Iterator[np.ndarray]:
    """Yield the labels that a block of consecutive planes of one volume has in the volume."""
    depth = directory.plan.leading[-1]
    volume = frames.start // depth
    found = read_arrays(directory.stacked(volume), "table", "table_ends", "bridged", "bridged_ends")

    @lru_cache(3)
    def labels_at(z: int) -> np.ndarray:
        table = _unpack_table(found, "table", z)
        return np.asarray(table[block_labels(directory, volume * depth + z, number)])

    for z in range(frames.start - volume * depth, frames.stop - volume * depth):
        labels, bridged = labels_at(z), _unpack_table(found, "bridged", z)
        if len(bridged):
            labels = fill_gaps(labels, labels_at(z - 1), labels_at(z + 1), bridged)
        yield labels


def _pack_tables(name: str, parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Put arrays behind one another, with where each of them ends."""
    whole = np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.uint32)
    return {name: whole, f"{name}_ends": np.cumsum([len(part) for part in parts], dtype=np.int64)}


def _unpack_table(found: dict[str, np.ndarray], name: str, at: int) -> np.ndarray:
    ends = found[f"{name}_ends"]
    return found[name][int(ends[at - 1]) if at else 0 : int(ends[at])]


def write_block(directory: RunDirectory, batch: int, number: int) -> None:
    """Write a block's labels into the result and mark it as written."""
    plan, image = directory.plan, directory.label_image
    frames = plan.batches.frames(batch)
    part = (*plan.batches.position(batch), *plan.blocks.window(number))
    if directory.block(batch, number).exists():
        labels = (
            (block_labels(directory, frame, number) for frame in frames)
            if plan.min_voxels is None
            else _stitched_labels(directory, frames, number)
        )
        array = image.open()
        values = np.stack([each.astype(array.dtype) for each in labels])
        array[part] = values if plan.leading else values[0]
        image.sync(0, part)
    _mark_written(directory, 0, batch, number)


def coarsen_part(directory: RunDirectory, level: int, batch: int, number: int) -> None:
    """Fill a part of a coarser level and mark it as written."""
    image, batches = directory.label_image, directory.plan.batches
    part = (*batches.position(batch), *level_blocks(directory, level).window(number))
    image.coarsen(level, part)
    image.sync(level, part)
    _mark_written(directory, level, batch, number)


def level_blocks(directory: RunDirectory, level: int) -> BlockPlan:
    """Return the parts in which a level of the result is filled."""
    plan = directory.plan
    shape = directory.label_image.level_shape(level)[len(plan.leading) :]
    return BlockPlan(
        shape, tuple(max(1, min(e, n)) for e, n in zip(plan.block, shape, strict=True))
    )


def _mark_written(directory: RunDirectory, level: int, batch: int, number: int) -> None:
    mark = directory.mark(level, batch, number)
    make_folder(mark.parent)
    mark.touch()


def idle(directory: RunDirectory, milliseconds: int, number: int) -> None:
    """Do nothing for a while: a step of known length, by which executors are measured."""
    time.sleep(milliseconds / 1000)
