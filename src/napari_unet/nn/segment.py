"""From a stack to labels: frames, tiles, objects, and a certificate that there are no seams."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.heads import head_of
from napari_unet.core.objects import Joiner, add_tile
from napari_unet.core.passport import make_passport
from napari_unet.core.spec import FrameDone, InputError, PredictSettings, TileDone
from napari_unet.core.stack import Stack, open_stack
from napari_unet.nn.predict import Focus, check_fit, open_frame, prepare, run_tiles
from napari_unet.nn.seam import SeamCheck

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.model import Model

Steps = Generator[TileDone | FrameDone, None, "SegmentResult"]
Index = tuple[int, ...]


@dataclass(frozen=True)
class SegmentResult:
    """A finished segmentation.

    Attributes
    ----------
    labels
        The output array, of the stack's labels shape.
    objects
        How many objects there are, over all frames.
    passport
        How they were made: model, data, settings, versions, device, speed, and under ``seam`` the
        largest |difference| in logits between the tiles and one piece.
    """

    labels: Any
    objects: int
    passport: dict[str, Any]


@dataclass
class _Run:
    """What one run keeps between its frames."""

    stack: Stack
    model: Model
    settings: PredictSettings
    out: Any
    preview: bool
    done: int = 0
    total: int = 0
    objects: int = 0
    pixels: int = 0
    seam: float | None = None
    shown: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


def segment_steps(
    source: Stack | np.ndarray | str | Path | Any,
    model: Model,
    settings: PredictSettings | None = None,
    *,
    out: Any = None,
    what: Sequence[Index] | None = None,
    window: Window | None = None,
    focus: Focus | None = None,
    preview: bool = False,
) -> Steps:
    """Segment a stack, yielding after every tile and every frame.

    Closing the generator ends the run after the tile at hand; what is finished stays in `out`.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    model
        The model; a 2D model runs plane by plane, a 3D model volume by volume.
    settings
        How it is run.
    out
        Where the labels go: an array of uint32 and of the stack's labels shape, indexed by integers
        and slices. Until a frame is done it holds provisional ids. Made in memory if not given.
    what
        Which frames, as positions along the leading axes; taken in the order in which it is
        iterated. All of them if not given.
    window
        Part of each frame to segment, one slice an axis; all of it if not given.
    focus
        Asked before each tile: the position (in the frame's pixels) near which tiles come first.
    preview
        Whether somebody watches: tiles are smaller, and each report brings labels to show.

    Returns
    -------
    SegmentResult
        The labels with their passport.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.
    """
    settings = settings or PredictSettings()
    stack, began = open_stack(source), time.monotonic()
    check_fit(stack, model)
    frames = stack.indices(model.spec.ndim) if what is None else what
    run = _Run(stack, model, settings, _output(stack, out), preview)
    for number, index in enumerate(frames):
        yield from _segment_frame(
            run, index, len(frames), certify=number == 0, window=window, focus=focus
        )
    seconds = time.monotonic() - began
    passport = make_passport(stack, model.card, settings) | run.notes
    passport |= {
        "objects": run.objects,
        "seam": run.seam,
        "seconds": round(seconds, 3),
        "mpx_per_s": round(run.pixels / 1e6 / seconds, 4),
    }
    return SegmentResult(run.out, run.objects, passport)


def segment(
    source: Stack | np.ndarray | str | Path | Any,
    model: Model,
    settings: PredictSettings | None = None,
) -> np.ndarray:
    """Segment a stack.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    model
        The model; a 2D model runs plane by plane, a 3D model volume by volume.
    settings
        How it is run.

    Returns
    -------
    np.ndarray
        uint16, or uint32 above 65,535 objects in a frame, of the stack's shape without C:
        ([T,] [Z,] Y, X). 0 is background.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.
    """
    labels: np.ndarray = drain(segment_steps(source, model, settings)).labels
    return labels.astype(np.min_scalar_type(max(256, int(labels.max(initial=0)))), copy=False)


def drain(
    steps: Steps, watch: Callable[[TileDone | FrameDone], object] | None = None
) -> SegmentResult:
    """Run a generator of progress to its end and return its result."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: SegmentResult = end.value
            return result
        if watch:
            watch(step)


def _output(stack: Stack, out: Any) -> Any:
    if out is None:
        return np.zeros(stack.labels_shape, np.uint32)
    if tuple(out.shape) != stack.labels_shape or np.dtype(out.dtype) != np.uint32:
        raise InputError(
            f"The output is {out.dtype} of shape {tuple(out.shape)}; give uint32 of shape "
            f"{stack.labels_shape}."
        )
    return out


def _segment_frame(
    run: _Run,
    index: Index,
    frames: int,
    *,
    certify: bool,
    window: Window | None,
    focus: Focus | None,
) -> Generator[TileDone | FrameDone, None, None]:
    """Segment one plane or volume."""
    frame = open_frame(run.stack, run.model, run.settings, index)
    runner, edge = prepare(run.model, frame, run.settings, live=run.preview)
    tiles = runner.plan(edge, window)
    run.total = run.done + len(tiles) * (frames - run.done // max(1, len(tiles)))
    run.notes |= {
        "device": str(run.model.device),
        "precision": str(runner.runner.dtype).removeprefix("torch."),
        "tile": edge,
    }
    rng = np.random.default_rng(run.settings.seed)
    seam = SeamCheck(tiles, rng) if certify and run.settings.certify and tiles else None
    writer = _writer(run, index, frame.size)
    try:
        for tile, raw in run_tiles(runner, tiles, focus):
            if seam:
                seam.see(tile, raw)
            shown = writer.add(tile, raw)
            run.done += 1
            run.pixels += int(np.prod([w.stop - w.start for w in tile.write]))
            yield TileDone(run.done, max(run.total, run.done), "tiles", index, tile.write, shown)
        if seam:
            run.seam = seam.difference(runner)
    finally:  # a run that is cancelled keeps its tiles, too
        objects = writer.finish()
    run.objects += objects
    yield FrameDone(run.done, max(run.total, run.done), "frames", index, objects)


class _InstanceWriter:
    """Writes a frame's tiles as provisional ids, and at the end as objects."""

    def __init__(self, run: _Run, index: Index, size: tuple[int, ...]) -> None:
        settings = run.settings
        self._run, self._index, self._size = run, index, size
        self._joiner = Joiner(
            run.model.decoding.updated(
                threshold=settings.threshold, merge=settings.merge, min_size=settings.min_size
            )
        )
        self._head = head_of(run.model.spec)
        self._written: list[Window] = []

    def add(self, tile: Tile, raw: np.ndarray) -> np.ndarray | None:
        """Write a tile; return what to show of it, if anything."""
        maps = self._head.activate(raw)
        self._run.out[(*self._index, *tile.write)] = add_tile(self._joiner, maps, tile, self._size)
        self._written.append(tile.write)
        return self._preview(maps, tile) if self._run.preview else None

    def _preview(self, maps: np.ndarray, tile: Tile) -> np.ndarray:
        """Return the objects as this tile alone can tell them, with ids of their own, uint16."""
        alone = Joiner(replace(self._joiner.settings, min_size=1))
        ids = add_tile(alone, maps, tile, self._size)
        table = alone.finish()
        first, self._run.shown = self._run.shown, self._run.shown + int(table.max())
        table = np.where(table, (table + np.uint32(first) - 1) % 65535 + 1, 0)
        return np.asarray(table.astype(np.uint16)[ids])

    def finish(self) -> int:
        """Replace provisional ids by labels; return the number of objects."""
        table = self._joiner.finish()
        for window in self._written:
            place = (*self._index, *window)
            self._run.out[place] = table[np.asarray(self._run.out[place])]
        return int(table.max())


class _SemanticWriter:
    """Writes a frame's tiles as the most probable class of each pixel."""

    def __init__(self, run: _Run, index: Index) -> None:
        self._run, self._index = run, index
        self._classes: set[int] = set()

    def add(self, tile: Tile, raw: np.ndarray) -> np.ndarray | None:
        """Write a tile; return what to show of it, if anything."""
        classes = raw[(slice(None), *tile.inner)].argmax(0).astype(np.uint32)
        self._run.out[(*self._index, *tile.write)] = classes
        self._classes.update(np.unique(classes).tolist())
        return classes.astype(np.uint16) if self._run.preview else None

    def finish(self) -> int:
        """Return the number of classes found, background not counted."""
        return len(self._classes - {0})


def _writer(run: _Run, index: Index, size: tuple[int, ...]) -> _InstanceWriter | _SemanticWriter:
    if run.model.spec.head == "semantic":
        return _SemanticWriter(run, index)
    return _InstanceWriter(run, index, size)
