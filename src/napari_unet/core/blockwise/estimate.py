"""What a run will take, said before it starts: time, memory, disk."""

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

SLACK = 1.2
"""How much more disk is asked for than was estimated."""
BLOCK_BYTES = 24
"""Memory for each pixel of a block: ids, tables, and what is compressed."""


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run will take.

    Attributes
    ----------
    blocks
        How many are left to do.
    seconds
        How long that takes; 0 if it is not known.
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
    def of(
        cls,
        *,
        blocks: int,
        block_pixels: int,
        seconds: float,
        disk_bytes: float,
        tile_bytes: float,
        device: str,
        folder: Path,
        workers: int = 1,
    ) -> ResourceEstimate:
        """Work out the needs from what one tile took.

        Parameters
        ----------
        seconds, disk_bytes
            For each pixel.
        tile_bytes
            Memory that a tile takes on its device.
        folder
            Where the result is written.
        """
        on_gpu = device.startswith(("cuda", "mps"))
        host = psutil.Process().memory_info().rss + block_pixels * BLOCK_BYTES
        return cls(
            blocks=blocks,
            seconds=blocks * block_pixels * seconds / workers,
            memory=host + (0 if on_gpu else tile_bytes),
            gpu_memory=tile_bytes if on_gpu else 0.0,
            disk=blocks * block_pixels * disk_bytes * SLACK,
            free=shutil.disk_usage(folder).free,
            device=device,
            workers=workers,
        )

    def line(self) -> str:
        """Say it in one line."""
        where = self.device if self.workers == 1 else f"{self.workers} workers ({self.device})"
        time = f"about {duration(self.seconds)}" if self.seconds else "an unknown time"
        gpu = f", GPU memory {size(self.gpu_memory)}" if self.gpu_memory else ""
        return (
            f"{pluralise(self.blocks, 'block')} on {where}: {time}, memory "
            f"{size(self.memory)}{gpu}, disk {size(self.disk)} ({size(self.free)} free)"
        )

    def check(self, target: Path) -> None:
        """Raise OutputError if the disk is too small."""
        if self.disk > self.free:
            raise OutputError(
                f"{target} needs about {size(self.disk)}, but only {size(self.free)} are free "
                f"there; free some space, or choose another place."
            )


@dataclass(frozen=True)
class Preflight(Progress):
    """The needs of a run that is about to start."""

    needs: ResourceEstimate | None = None


def size(count: float) -> str:
    """Write a number of bytes as people do."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{max(0.0, count) / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """Write a time as people do."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours / 24:.1f} days"
