"""What a run will take, estimated before it starts: time, memory, disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from napari_unet.core.errors import OutputError
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from pathlib import Path

_DISK_SLACK = 1.2
"""How much more disk is demanded than estimated: one tile does not stand for all."""
_BLOCK_BYTES = 24
"""Memory for each pixel of a block: ids, tables, and what is compressed."""


@dataclass(frozen=True)
class TileCost:
    """What one tile took, from which the needs of a run are estimated.

    Attributes
    ----------
    device
        Where the network runs.
    seconds, disk_bytes
        For each pixel; 0 if unknown.
    memory
        Bytes of the device's memory that a batch of tiles takes.
    tile
        Edge lengths of the tile.
    seam
        The largest |difference| in logits across the borders of tiles and blocks; None if not
        checked.
    """

    device: str
    seconds: float = 0.0
    disk_bytes: float = 0.0
    memory: float = 0.0
    tile: tuple[int, ...] = ()
    seam: float | None = None


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run will take.

    Attributes
    ----------
    blocks
        How many are left to do.
    seconds
        How long that takes; 0 if unknown.
    memory, gpu_memory, disk, free
        Bytes: of each process, of its GPU (0 without one), on the disk, and free there.
    device, workers
        Where the network runs, and how many processes run it.
    """

    blocks: int
    seconds: float
    memory: float
    gpu_memory: float
    disk: float
    free: float
    device: str
    workers: int = 1

    @classmethod
    def from_tile(
        cls, cost: TileCost, *, blocks: int, block_pixels: int, folder: Path, workers: int
    ) -> ResourceEstimate:
        """Estimate the needs from what one tile took.

        Parameters
        ----------
        blocks, block_pixels
            How many blocks are left to do, and the size of one.
        folder
            Where the result is written.
        """
        on_gpu = cost.device.startswith(("cuda", "mps"))
        host = psutil.Process().memory_info().rss + block_pixels * _BLOCK_BYTES
        return cls(
            blocks=blocks,
            seconds=blocks * block_pixels * cost.seconds / workers,
            memory=host + (0 if on_gpu else cost.memory),
            gpu_memory=cost.memory if on_gpu else 0.0,
            disk=blocks * block_pixels * cost.disk_bytes * _DISK_SLACK,
            free=shutil.disk_usage(folder).free,
            device=cost.device,
            workers=workers,
        )

    def line(self) -> str:
        """Return the estimate as one line."""
        where = self.device if self.workers == 1 else f"{self.workers} workers ({self.device})"
        time = f"about {_format_time(self.seconds)}" if self.seconds else "an unknown time"
        gpu = f", GPU memory {_format_bytes(self.gpu_memory)}" if self.gpu_memory else ""
        return (
            f"{pluralise(self.blocks, 'block')} on {where}: {time}, memory "
            f"{_format_bytes(self.memory)}{gpu}, disk {_format_bytes(self.disk)} "
            f"({_format_bytes(self.free)} free)"
        )

    def check(self, target: Path) -> None:
        """Raise OutputError if the disk is too small."""
        if self.disk > self.free:
            raise OutputError(
                f"{target} needs about {_format_bytes(self.disk)}, but only "
                f"{_format_bytes(self.free)} are free there; free some space, or choose another "
                "place."
            )


@dataclass(frozen=True)
class RunEstimated(Progress):
    """The estimate of a run that is about to start."""

    estimate: ResourceEstimate | None = None


def _format_bytes(count: float) -> str:
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{max(0.0, count) / 1e3:.0f} kB"


def _format_time(seconds: float) -> str:
    """Return a rough duration in words; a running clock is `core.text.format_duration`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours / 24:.1f} days"
