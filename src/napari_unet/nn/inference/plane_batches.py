"""Small planes of one run go through the network together.

Each call of the network costs something, whatever it is given: a fifth of the time of a plane of
128 x 128 pixels on a processor, and more on a GPU, which waits for its orders. So planes that are
one tile each are launched together, and each frame finds its tile launched when its turn comes. All
else is as it is for one frame: decoding, the order, and what a plane fails at, which it does alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from napari_unet.core.settings.foreign_spec import ForeignSpec
from napari_unet.nn.inference.device_memory import choose_batch
from napari_unet.nn.inference.launched_tiles import cancel, launch_tiles
from napari_unet.nn.inference.remote import RemoteRunner
from napari_unet.nn.inference.tile_runner import TileRunner
from napari_unet.nn.remote.connection import LINES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from napari_unet.core.tiles import Tile, Window

PATIENCE_S = 0.2
"""Seconds after which planes that are slow to read are no longer waited for, so that whoever
watches or cancels need not wait either."""
UNINTERRUPTED = 2**20
"""Pixels that a processor is given in one call at most, however many planes were asked for."""

Source = TypeVar("Source")


def batch_planes(
    sources: Iterable[Source], window: Window | None = None, batch: int | None = None
) -> Generator[Source | TileRunner, None, None]:
    """Yield the sources of a run's frames in their order, those of small planes with started tiles.

    The first comes alone and before others are opened, so that its objects are there as early as
    they can be; then two together, four, and so on. Whoever stops early closes the generator.

    Parameters
    ----------
    sources
        A `MapSource` for each frame, opened when it is asked for. If one cannot be opened, those
        before it come first.
    window
        Part of each frame that is run; all of it if not given.
    batch
        How many planes go together; not given: as many as pays on the device and fits into its
        memory.
    """
    running: deque[Source | TileRunner] = deque()
    failed: list[Exception] = []
    try:
        for number, group in enumerate(_groups(_until_failure(sources, failed), window, batch)):
            ahead = _ahead(group, window) if number else 0
            running.extend(_launched(group, window) if ahead or len(group) > 1 else group)
            while len(running) > ahead:
                yield running.popleft()
        while running:
            yield running.popleft()
    finally:
        for source in running:
            cancel(source.started if isinstance(source, TileRunner) else ())
    if failed:
        raise failed[0]


def _until_failure(sources: Iterable[Source], failed: list[Exception]) -> Iterator[Source]:
    try:
        yield from sources
    except Exception as error:  # whatever it is, it is raised when the frame's turn comes
        failed.append(error)


def _groups(
    sources: Iterable[Source], window: Window | None, batch: int | None
) -> Iterator[list[Source]]:
    """Divide sources into those that go together."""
    group: list[Source] = []
    wanted, began = 1, time.perf_counter()
    for source in sources:
        group.append(source)
        if len(group) < wanted and time.perf_counter() - began < PATIENCE_S:
            continue
        yield group
        wanted = min(2 * wanted, _count_together(source, window, batch))
        group, began = [], time.perf_counter()
    if group:
        yield group


def _only_tile(source: TileRunner, window: Window | None) -> Tile | None:
    """Return the tile of a plane that is one; None of anything else.

    A network of others sees one plane after the other, whatever it is given.
    """
    if source.spec.ndim != 2 or isinstance(source.spec, ForeignSpec):
        return None
    tiles = source.plan(window)
    return tiles[0] if len(tiles) == 1 else None


def _count_together(source: object, window: Window | None, batch: int | None) -> int:
    """Return how many planes like this one go through the network together."""
    if not isinstance(source, TileRunner) or isinstance(source.runner, RemoteRunner):
        return 1  # a server runs one tile after the other
    tile = _only_tile(source, window)
    if tile is None:
        return 1
    pixels = math.prod(source.network_tile(tile).read_shape)
    device = source.runner.device
    if batch and device.type == "cpu":  # nothing is shown, and Cancel waits, until all are done
        batch = min(batch, max(1, UNINTERRUPTED // pixels))
    return batch or choose_batch(device, pixels, source.batch * source.edge**2)


def _ahead(group: Sequence[object], window: Window | None) -> int:
    """Return how many planes stay launched while the one before them is decoded.

    A GPU computes the next group meanwhile, and a server is sent what its connections carry.
    """
    source = group[-1]
    if not isinstance(source, TileRunner) or _only_tile(source, window) is None:
        return 0
    if isinstance(source.runner, RemoteRunner):
        return LINES - 1
    return len(group) if source.runner.device.type == "cuda" else 0


def _launched(group: Sequence[Source], window: Window | None) -> list[Source | TileRunner]:
    """Launch the tiles of small planes together; return the sources with them."""
    found = [
        (source, tile)
        for source in group
        if isinstance(source, TileRunner) and not source.frame.blank
        if (tile := _only_tile(source, window))
    ]
    if not found:
        return list(group)
    first, pieces = found[0][0], [source.piece(tile) for source, tile in found]
    try:
        pending = launch_tiles(first.runner, pieces, on_device=first.on_device, wanted=first.wanted)
    except Exception:  # each alone says what it fails at, or halves its tile if memory is short
        return list(group)
    launched = {
        id(source): replace(source, started=(tile,))
        for (source, _), tile in zip(found, pending, strict=True)
    }
    return [launched.get(id(source), source) for source in group]
