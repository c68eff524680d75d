"""The stages of a run in blocks: blocks, joining, through z, writing; each does what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise import assembling, stacking
from napari_unet.core.spec import Progress
from napari_unet.nn.blockwise.blocks import BlockDone

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.blockwise.runplan import RunPlan
    from napari_unet.core.blockwise.workplace import Workplace
    from napari_unet.nn.blockwise.pool import Item, Pool

WEIGHT = 20
"""A block counts so many steps in the progress; everything else counts one."""


def missing(place: Workplace, kind: str, count: int) -> list[Item]:
    """List group (of frames) and number of what has no file yet."""
    return [
        (group, number)
        for group in range(place.plan.groups.count)
        for number in sorted(set(range(count)) - place.done(kind, group))
    ]


def frames_in(plan: RunPlan, items: Sequence[Item]) -> int:
    """Count the frames' parts that items of groups and numbers stand for."""
    return sum(len(plan.groups.frames(group)) for group, *_ in items)


def all_stages(place: Workplace, pool: Pool) -> Generator[Progress, None, int]:
    """Do what is missing, stage by stage; return how many objects there are."""
    plan = place.plan
    image, blocks, frames = assembling.label_image(place), plan.blocks, plan.frames
    joined = plan.decode is not None and blocks.count > 1
    nodes = [int(np.prod(blocks.nodes(level))) for level in range(blocks.levels + 1)]
    parts = [assembling.level_blocks(plan, image, level).count for level in range(image.levels)]
    steps = WEIGHT * blocks.count + 2 * joined * sum(nodes) + sum(parts)
    count = _Count(steps * frames)
    todo = missing(place, "blocks", blocks.count)
    count.skip(WEIGHT * (frames * blocks.count - frames_in(plan, todo)))
    yield from _blocks(place, pool, todo, count)
    if joined:
        yield from _join(place, pool, nodes, count)
    if plan.least_voxels is None:
        objects = [assembling.objects_of(place, frame) for frame in range(frames)]
    else:
        objects = yield from _stack(place, count)
    image.create(np.uint16 if max(objects, default=0) < 2**16 else np.uint32)
    for level, each in enumerate(parts):
        todo = missing(place, f"written/{level}", each)
        count.skip(frames * each - frames_in(plan, todo))
        items = todo if level == 0 else [(level, *item) for item in todo]
        for item, _ in pool.run("coarsen" if level else "write", items):
            yield count.step("writing", frames_in(plan, [item[-2:]]) if item else 0)
    return sum(objects)


def _blocks(
    place: Workplace, pool: Pool, todo: Sequence[Item], count: _Count
) -> Generator[Progress, None, None]:
    plan = place.plan
    pixels = max(1, int(np.prod(plan.block)))
    for item, what in pool.run("block", todo):
        if item is None:
            yield count.at(WEIGHT * what // (pixels + 1), "blocks")
            continue
        window = plan.blocks.window(item[1])
        for frame, problem in zip(plan.groups.frames(item[0]), what, strict=True):
            step = count.step("blocks", WEIGHT)
            yield BlockDone(step.done, step.total, "blocks", plan.index(frame), window, problem)


def _join(
    place: Workplace, pool: Pool, nodes: Sequence[int], count: _Count
) -> Generator[Progress, None, None]:
    for level, each in enumerate(nodes):
        todo = [(f, level, n) for f, n in missing(place, f"join/up{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("join", todo):
            yield count.step("joining")
    for frame in range(place.plan.frames):
        if not place.numbers(frame).exists():
            assembling.number_frame(place, frame)
            yield count.at(0, "numbering")
    for level, each in reversed(list(enumerate(nodes))):
        todo = [(f, level, n) for f, n in missing(place, f"join/down{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("label", todo):
            yield count.step("joining")


def _stack(place: Workplace, count: _Count) -> Generator[Progress, None, list[int]]:
    """Join the objects of planes through z; return how many there are in each volume."""
    found = range(stacking.volumes(place.plan))
    for volume in found:
        if not place.stacked(volume).exists():
            for _ in stacking.join_volume(place, volume, assembling.block_labels):
                yield count.at(0, "joining through z")
    return [stacking.objects_in(place, volume) for volume in found]


@dataclass
class _Count:
    """Counts the steps of a run."""

    total: int
    done: int = 0

    def skip(self, steps: int) -> None:
        self.done += steps

    def step(self, what: str, steps: int = 1) -> Progress:
        self.done += steps
        return Progress(self.done, self.total, what)

    def at(self, beyond: int, what: str) -> Progress:
        return Progress(min(self.total, self.done + beyond), self.total, what)
