"""Who does the steps of a run: this process here, the workers of a cluster in `cluster`.

The step that needs the network is a block: from data to a file with provisional ids and the
`BlockSummary`. The others are those of `core.blockwise.assemble`.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from napari_unet.core.blockwise import assemble
from napari_unet.core.blockwise.run_directory import write_preview, write_run_text
from napari_unet.core.image.foreign_frame import restore_normaliser
from napari_unet.core.io.lazy_arrays import UnreadableError
from napari_unet.core.io.stack import with_retries
from napari_unet.core.progress import map_steps
from napari_unet.core.settings.tasks import EARLIER_DEFAULTS, PredictSettings
from napari_unet.nn.inference.decode import InstanceDecoder, SemanticDecoder
from napari_unet.nn.inference.map_source import MapSource, open_map_source
from napari_unet.nn.inference.model_input import measure_intensities
from napari_unet.nn.inference.tile_runner import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.instances.tile_merger import BlockSummary
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.model import Model

Answer = TypeVar("Answer")
StepArguments = tuple[int, ...]
"""What tells a step apart from others of its kind: batch and block, or frame, level and node."""

BLOCK_STEP = "block"
ASSEMBLY_STEPS: dict[str, Callable[..., None]] = {
    "join": assemble.join_node,
    "label": assemble.label_node,
    "write": assemble.write_block,
    "coarsen": assemble.coarsen_part,
    "idle": assemble.idle,
}
"""The steps that need no network; each takes the `RunDirectory` and its `StepArguments`."""


class Executor(Protocol):
    """Does the steps of a run."""

    @property
    def workers(self) -> int:
        """Number of processes that work."""
        ...

    def start(self, run: BlockRun) -> None:
        """Get to know the run; its plan is not needed yet."""
        ...

    def call(self, function: Callable[..., Answer], *values: Any) -> Answer:
        """Call a function of a module with the run and values where steps are done."""
        ...

    def do(
        self, kind: str, steps: Sequence[StepArguments]
    ) -> Iterator[tuple[StepArguments | None, Any]]:
        """Do steps of a kind, in any order.

        Yields the arguments of a step when it is done, those of a block with the problem of each of
        its frames ("" if there is none), and in between, often enough for a cancel, None with the
        pixels that are done beyond the finished steps.
        """
        ...

    def close(self) -> None:
        """Stop, and release everything."""
        ...


class LocalExecutor:
    """Does everything in this process."""

    workers = 1

    def start(self, run: BlockRun) -> None:
        """Get to know the run."""
        self._run = run

    def call(self, function: Callable[..., Answer], *values: Any) -> Answer:
        """Call a function with the run."""
        return function(self._run, *values)

    def do(
        self, kind: str, steps: Sequence[StepArguments]
    ) -> Iterator[tuple[StepArguments | None, Any]]:
        """Do steps of a kind, one after the other."""
        for step in steps:
            problems: list[str] = []
            if kind == BLOCK_STEP:
                with closing(compute_block(self._run, *step)) as work:
                    problems = yield from map_steps(work, lambda pixels: (None, pixels))
            else:
                ASSEMBLY_STEPS[kind](self._run.directory, *step)
            yield step, problems

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@dataclass
class BlockRun:
    """What a process needs to compute blocks of a run; kept from block to block.

    Attributes
    ----------
    directory
        The folder of the run.
    stack, model
        The data, and the network on its device.
    preview
        Whether provisional labels are shown while the run goes on.
    """

    directory: RunDirectory
    stack: Stack
    model: Model
    preview: bool = False
    _frame: tuple[int, MapSource] | None = field(default=None, repr=False)

    @cached_property
    def settings(self) -> PredictSettings:
        """The resolved settings, with the plan's number format."""
        plan = self.directory.plan
        settings = PredictSettings(**EARLIER_DEFAULTS | plan.resolved)
        return replace(settings, precision=plan.precision)

    @cached_property
    def decoder(self) -> InstanceDecoder | SemanticDecoder:
        """What turns maps into provisional ids."""
        decode = self.directory.plan.decoding
        if decode is None:
            return SemanticDecoder(None, False)
        return InstanceDecoder(self.model, decode, None, False)

    def maps(self, frame: int) -> MapSource:
        """Return the source of a frame's maps; the last one is kept."""
        if self._frame is None or self._frame[0] != frame:
            maps = open_map_source(
                with_retries(self.stack),
                self.model,
                self.settings,
                self.directory.plan.index(frame),
                self.normaliser(frame),
                on_device=self.decoder.on_device,
                live=self.preview,
                wanted=self.decoder.wanted,
            )
            self._frame = (frame, maps)
        return self._frame[1]

    def normaliser(self, frame: int) -> Normaliser:
        """Return a frame's intensities, measured by the first process that needs them.

        They are of a fixed sample in bounded memory, so two processes that measure at once find the
        same. Those of a frame of one block need not be kept: nobody else needs them.

        Raises
        ------
        UnreadableError
            Nothing of the frame can be read.
        """
        plan, file = self.directory.plan, self.directory.frame(frame)
        if file.exists():
            values = json.loads(file.read_text(encoding="utf-8"))
            return restore_normaliser(values, self.stack.name, self.stack.notices)
        channels = self.stack.pick_channels(self.model.spec.in_channels, self.settings.channel)
        source = (with_retries(self.stack), self.model, plan.index(frame), channels, plan.ndim)
        found = measure_intensities(*source, skip=(UnreadableError,))
        if (found.low == found.high).all():  # blank, or nothing of it could be read: raises then
            found = measure_intensities(*source)
        if plan.blocks.count > 1:
            write_run_text(file, json.dumps(found.to_json()))
        return found

    def decode(
        self, frame: int, window: Window, tiles: Sequence[Tile]
    ) -> Generator[Tile | None, None, tuple[np.ndarray, BlockSummary | None]]:
        """Compute tiles that cover a window of a frame, yielding each when it is done.

        While a server is waited for it yields None.

        Returns
        -------
        ids
            uint32, provisional ids (or classes) in the window.
        summary
            Of their basins; None if they are classes.
        """
        maps, decoder, out = self.maps(frame), self.decoder, _WindowIds(window)
        decoder.out = out
        decoder.start((), maps.frame.size)
        for step in maps.steps(tiles):
            tile, raw = (None, None) if isinstance(step, Waiting) else step
            if tile and raw is not None:
                decoder.add(tile, raw)
            yield tile if raw is not None else None
        decoder.out = None
        if isinstance(decoder, SemanticDecoder):
            return out.ids, None
        table, summary = decoder.summarise(window)
        return table[out.ids], summary


class _WindowIds:
    """An array of ids that is written by windows of a frame but holds one window of it."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.ids = np.zeros([w.stop - w.start for w in window], np.uint32)

    def __setitem__(self, window: Window, values: Any) -> None:
        part = tuple(
            slice(w.start - origin.start, w.stop - origin.start)
            for w, origin in zip(window, self.window, strict=True)
        )
        self.ids[part] = values


def compute_block(run: BlockRun, batch: int, number: int) -> Generator[int, None, list[str]]:
    """Compute a block of a batch's frames and write it to the disk.

    Yields the pixels that are done, after each tile. A block whose data cannot be read leaves a
    note with the reason. Closing the generator leaves nothing.

    Returns
    -------
    list of str
        For each frame of the batch why its block is empty; "" if it is not.
    """
    directory, plan = run.directory, run.directory.plan
    window = plan.blocks.window(number)
    pixels = int(np.prod([w.stop - w.start for w in window]))
    found, problems = {}, {}
    for at, frame in enumerate(plan.batches.frames(batch)):
        try:
            found[frame] = yield from _compute_frame(run, frame, window, at * pixels)
        except UnreadableError as error:
            problems[frame] = str(error)
    directory.check_run(plan.run)
    for frame, problem in problems.items():
        write_run_text(directory.failure(frame, number), json.dumps({"reason": problem}))
    if found:
        assemble.write_block_file(directory, batch, number, found)
    return [problems.get(frame, "") for frame in plan.batches.frames(batch)]


def _compute_frame(
    run: BlockRun, frame: int, window: Window, done: int
) -> Generator[int, None, dict[str, np.ndarray]]:
    """Compute a block of one frame; return the arrays of its file."""
    maps, plan = run.maps(frame), run.directory.plan
    tiles = run.decode(frame, window, [] if maps.frame.blank else maps.plan(window))

    def count(tile: Tile | None) -> int:
        nonlocal done
        done += int(np.prod([w.stop - w.start for w in tile.write])) if tile else 0
        return done

    ids, summary = yield from map_steps(tiles, count)
    decode, single = plan.decoding, plan.blocks.count == 1
    if summary is None or decode is None:
        if run.preview:
            write_preview(run.directory, frame, window, ids)
    elif run.preview or single:
        labels = assemble.label_single_block(summary, decode)
        if run.preview:
            write_preview(run.directory, frame, window, labels[ids])
        if single:
            return {"ids": labels[ids], "objects": np.array([labels.max()])}
    return assemble.pack_block(ids, summary)
