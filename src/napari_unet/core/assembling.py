"""From the files of finished blocks to a label image: the steps that need no network.

Each step reads files of a `Workplace`, writes one, and is harmless to repeat; steps of one kind do
not depend on each other, so any number of processes may share them:

    join level 0, 1, ... (`join_node`)  ->  number each frame (`number_frame`)  ->
    label level ..., 1, 0 (`label_node`)  ->  write (`write_block`)  ->  coarsen (`coarsen_part`)

Where objects are joined through z, that comes before writing (`stacking`).

Frames of one block need the writing alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blocks import BlockPlan
from napari_unet.core.files import make_folder
from napari_unet.core.joining import Closing, Part, join, label_roots, link, shrink
from napari_unet.core.ngff import LabelImage, chunks_for
from napari_unet.core.pieces import Pieces
from napari_unet.core.spec import OutputError
from napari_unet.core.stacking import stacked_labels
from napari_unet.core.workplace import read_arrays, write_arrays

if TYPE_CHECKING:
    from napari_unet.core.objects import DecodeSettings
    from napari_unet.core.runplan import RunPlan
    from napari_unet.core.workplace import Workplace

MOST = np.iinfo(np.uint32).max
_PART, _CLOSING = "part.", "closing."


def pack_block(ids: np.ndarray, pieces: Pieces | None) -> dict[str, np.ndarray]:
    """Return the arrays of a block's file: ids, and its pieces or the classes that it holds."""
    if pieces is None:
        return {"ids": ids, "classes": np.setdiff1d(ids, [0])}
    return {"ids": ids, **asdict(pieces)}


def read_pieces(place: Workplace, frame: int, number: int) -> Pieces:
    """Read what a block knows of its objects."""
    names = [item.name for item in fields(Pieces)]
    return Pieces(**read_arrays(place.block(frame, number), *names))


def join_alone(pieces: Pieces, decode: DecodeSettings) -> np.ndarray:
    """Return the label of each id of a frame's only block; entry 0 is 0."""
    _, closing = join([link(0, pieces, {})], decode)
    return np.concatenate([np.zeros(1, np.uint32), closing.objects])


def join_node(place: Workplace, frame: int, level: int, number: int) -> None:
    """Join the children of a node, or at level 0 look a block's neighbours up."""
    plan = place.plan
    decode, blocks = plan.decoding, plan.blocks
    assert decode is not None, "classes are not joined"
    if level == 0:
        parts = [_leaf(place, frame, number)] if place.block(frame, number).exists() else []
    else:
        parts = []
        for child in blocks.children(level, number):
            names = [_PART + item.name for item in fields(Part)]
            found = read_arrays(place.node(frame, level - 1, child), *names)
            part = Part(**{name.removeprefix(_PART): value for name, value in found.items()})
            parts.append(shrink(part, blocks.outer_faces(level - 1, child)))
    part, closing = join(parts, decode)
    arrays = {_PART + name: value for name, value in asdict(part).items()}
    arrays |= {_CLOSING + name: value for name, value in asdict(closing).items()}
    write_arrays(place.node(frame, level, number), arrays | {"count": np.array([closing.count])})


def number_frame(place: Workplace, frame: int) -> int:
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


def label_node(place: Workplace, frame: int, level: int, number: int) -> None:
    """Give the roots of a node their labels, those of the node above being known."""
    blocks = place.plan.blocks
    names = [_CLOSING + item.name for item in fields(Closing)]
    found = read_arrays(place.node(frame, level, number), *names)
    closing = Closing(**{name.removeprefix(_CLOSING): value for name, value in found.items()})
    first = int(read_arrays(place.numbers(frame), str(level))[str(level)][number])
    above = (np.zeros(0, np.int64), np.zeros(0, np.uint32))
    if level < blocks.levels:
        parent = read_arrays(place.labels(frame, level + 1, blocks.parent(level, number)))
        above = (parent["roots"], parent["labels"])
    labels = label_roots(closing, first, above)
    write_arrays(place.labels(frame, level, number), {"roots": closing.roots, "labels": labels})


def objects_of(place: Workplace, frame: int) -> int:
    """Return how many objects (or classes) a frame holds, once it is joined."""
    plan = place.plan
    if plan.decode is not None and plan.blocks.count > 1:
        return int(read_arrays(place.numbers(frame), "total")["total"][0])
    done = place.done("blocks", frame)
    if plan.decode is None:
        classes = [read_arrays(place.block(frame, n), "classes")["classes"] for n in done]
        return len(np.unique(np.concatenate([np.zeros(0, np.uint32), *classes])))
    return sum(int(read_arrays(place.block(frame, n), "objects")["objects"][0]) for n in done)


def block_labels(place: Workplace, frame: int, number: int) -> np.ndarray:
    """Return the labels of a block, as its frame alone has them; 0 where it could not be read."""
    plan = place.plan
    if not place.block(frame, number).exists():
        return np.zeros([w.stop - w.start for w in plan.blocks.window(number)], np.uint32)
    ids = read_arrays(place.block(frame, number), "ids")["ids"]
    return ids if plan.decode is None else _table(place, frame, number)[ids]


def write_block(place: Workplace, frame: int, number: int) -> None:
    """Write a block's labels into the result and mark it as written."""
    plan, image = place.plan, label_image(place)
    window, index = plan.blocks.window(number), plan.index(frame)
    if place.block(frame, number).exists():
        if plan.least_voxels is None:
            labels = block_labels(place, frame, number)
        else:
            labels = stacked_labels(place, frame, number, block_labels)
        array = image.open()
        array[(*index, *window)] = labels.astype(array.dtype)
        image.sync(0, window, index)
    _mark(place, 0, frame, number)


def coarsen_part(place: Workplace, level: int, frame: int, number: int) -> None:
    """Fill a part of a coarser level and mark it as written."""
    image, plan = label_image(place), place.plan
    window, index = level_blocks(plan, image, level).window(number), plan.index(frame)
    image.coarsen(level, window, index)
    image.sync(level, window, index)
    _mark(place, level, frame, number)


def idle(place: Workplace, milliseconds: int, number: int) -> None:
    """Do nothing for a while: a step of known length, by which the engine itself is measured."""
    time.sleep(milliseconds / 1000)


def label_image(place: Workplace) -> LabelImage:
    """Return where the result is made."""
    plan = place.plan
    chunks = chunks_for(plan.shape, plan.ndim, plan.block)
    return LabelImage(place.result, plan.axes, plan.shape, chunks, plan.identity["zarr_format"])


def level_blocks(plan: RunPlan, image: LabelImage, level: int) -> BlockPlan:
    """Return the parts in which a level of the result is filled."""
    shape = image.level_shape(level)[len(plan.leading) :]
    return BlockPlan(
        shape, tuple(max(1, min(e, n)) for e, n in zip(plan.block, shape, strict=True))
    )


def _leaf(place: Workplace, frame: int, number: int) -> Part:
    borders = {}
    for other in place.plan.blocks.neighbours(number):
        file = place.block(frame, other)
        if file.exists():
            found = read_arrays(file, "border", "border_basins")
            borders[other] = (found["border"], found["border_basins"])
    return link(number, read_pieces(place, frame, number), borders)


def _table(place: Workplace, frame: int, number: int) -> np.ndarray:
    """Return the label of each id of a block; entry 0 is 0."""
    plan = place.plan
    if plan.blocks.count == 1:
        decode = plan.decoding
        assert decode is not None
        return join_alone(read_pieces(place, frame, number), decode)
    labels = read_arrays(place.labels(frame, 0, number), "labels")["labels"]
    return np.concatenate([np.zeros(1, np.uint32), labels])


def _mark(place: Workplace, level: int, frame: int, number: int) -> None:
    mark = place.mark(level, frame, number)
    make_folder(mark.parent)
    mark.touch()
