"""One block: from data to a file with provisional ids and the table of its pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.assemble import join_alone, pack_block, show_block, write_blocks
from napari_unet.core.blockwise.run_directory import write_text
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.io.retry import UnreadableError, with_retries
from napari_unet.core.progress import Progress
from napari_unet.core.settings import PredictSettings
from napari_unet.nn.inference.decode import InstanceDecoder, SemanticDecoder
from napari_unet.nn.inference.map_source import MapSource, open_map_source

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Window
    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True)
class BlockDone(Progress):
    """A block that is on the disk, or that could not be read.

    Attributes
    ----------
    index
        The frame's position along the leading axes of the labels.
    window
        The block's place in the frame.
    problem
        Why it was left empty; "" if it was not.
    """

    index: tuple[int, ...] = ()
    window: tuple[slice, ...] = ()
    problem: str = ""


@dataclass
class BlockRun:
    """What a process needs to compute blocks of a run; kept from block to block.

    Attributes
    ----------
    place
        The folder of the run.
    stack, model
        The data, and the network on its device.
    preview
        Whether provisional labels are shown while the run goes on.
    """

    place: RunDirectory
    stack: Stack
    model: Model
    preview: bool = False
    _frame: tuple[int, MapSource] | None = field(default=None, repr=False)

    @cached_property
    def settings(self) -> PredictSettings:
        """The settled settings, with the plan's number format."""
        plan = self.place.plan
        return replace(PredictSettings(**plan.settled), precision=plan.precision)

    @cached_property
    def decoder(self) -> InstanceDecoder | SemanticDecoder:
        """What turns maps into provisional ids."""
        decode = self.place.plan.decoding
        if decode is None:
            return SemanticDecoder(None, False)
        return InstanceDecoder(self.model, decode, None, False)

    def maps(self, frame: int) -> MapSource:
        """Return the source of a frame's maps; the last one is kept."""
        if self._frame is None or self._frame[0] != frame:
            plan, stack = self.place.plan, with_retries(self.stack)
            normaliser = self.normaliser(frame)
            maps = open_map_source(
                stack,
                self.model,
                self.settings,
                plan.index(frame),
                normaliser,
                on_device=self.decoder.on_device,
                live=self.preview,
            )
            self._frame = (frame, maps)
        return self._frame[1]

    def normaliser(self, frame: int) -> Normaliser:
        """Return a frame's intensities, measured by whoever comes first and then the same for all.

        They come from a fixed sample in bounded memory, so two that come at once find the same.
        Those of a frame of one block need not be kept: nobody else asks for them.

        Raises
        ------
        UnreadableError
            Nothing of the frame can be read.
        """
        plan, file = self.place.plan, self.place.frame(frame)
        if file.exists():
            values = json.loads(file.read_text(encoding="utf-8"))
            low, high = np.array(values["low"]), np.array(values["high"])
            return Normaliser(low, high, self.stack.name, self.stack.notices)
        channels = self.stack.pick_channels(self.model.spec.in_channels, self.settings.channel)
        norm = self.model.card.normalisation
        where = (
            with_retries(self.stack),
            plan.index(frame),
            plan.ndim,
            tuple(sorted(set(channels))),
        )
        limits = (norm["low"], norm["high"])
        found = Normaliser.of(*where, *limits, skip=(UnreadableError,))
        if (found.low == found.high).all():  # blank, or nothing of it could be read: then say so
            found = Normaliser.of(*where, *limits)
        if plan.blocks.count > 1:
            write_text(file, json.dumps({"low": found.low.tolist(), "high": found.high.tolist()}))
        return found


class BlockIds:
    """An array of ids that is written by windows of the frame but holds one block of it."""

    def __init__(self, block: Window) -> None:
        self.block = block
        self.ids = np.zeros([w.stop - w.start for w in block], np.uint32)

    def __setitem__(self, window: Window, values: Any) -> None:
        place = tuple(
            slice(w.start - b.start, w.stop - b.start)
            for w, b in zip(window, self.block, strict=True)
        )
        self.ids[place] = values


def block_steps(run: BlockRun, group: int, number: int) -> Generator[int, None, list[str]]:
    """Compute a block of a group's frames and put it on the disk.

    Yields the pixels that are done, after each tile. A block whose data cannot be read leaves a
    note of it. Closing the generator leaves nothing.

    Returns
    -------
    list of str
        For each frame of the group why its block is empty; "" if it is not.
    """
    place, plan = run.place, run.place.plan
    window = plan.blocks.window(number)
    pixels = int(np.prod([w.stop - w.start for w in window]))
    found, problems = {}, {}
    for at, frame in enumerate(plan.groups.frames(group)):
        try:
            found[frame] = yield from _compute(run, frame, window, at * pixels)
        except UnreadableError as error:
            problems[frame] = str(error)
    place.check(plan.run)
    for frame, problem in problems.items():
        write_text(place.failure(frame, number), json.dumps({"reason": problem}))
    if found:
        write_blocks(place, group, number, found)
    return [problems.get(frame, "") for frame in plan.groups.frames(group)]


def _compute(
    run: BlockRun, frame: int, window: Window, done: int
) -> Generator[int, None, dict[str, np.ndarray]]:
    maps, decoder, out = run.maps(frame), run.decoder, BlockIds(window)
    decoder.out = out
    decoder.start((), maps.frame.size)
    for tile, raw in maps.run([] if maps.frame.blank else maps.plan(window)):
        decoder.add(tile, raw)
        done += int(np.prod([w.stop - w.start for w in tile.write]))
        yield done
    decoder.out = None
    if isinstance(decoder, SemanticDecoder):
        if run.preview:
            show_block(run.place, frame, window, out.ids)
        return pack_block(out.ids, None)
    table, pieces = decoder.summarise(window)
    ids, decode = table[out.ids], run.place.plan.decoding
    whole = run.place.plan.blocks.count == 1
    if decode is not None and (run.preview or whole):
        alone = join_alone(pieces, decode)
        if run.preview:
            show_block(run.place, frame, window, alone[ids])
        if whole:
            return {"ids": alone[ids], "objects": np.array([alone.max()])}
    return pack_block(ids, pieces)
