"""How fast long work goes, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet.core.progress import Progress


class Eta:
    """How fast a run goes and how long it will still take."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.began

    def tick(self, done: int) -> None:
        """Note that so many tiles are done now."""
        self._last = (time.perf_counter(), done)
        self._first = self._first or self._last

    def rate(self) -> float:
        """Return tiles a second; 0 until the second one, for the first waited for other things."""
        if self._first is None or self._last is None:
            return 0.0
        (start, before), (end, done) = self._first, self._last
        return (done - before) / (end - start) if end > start else 0.0

    def describe(self, progress: Progress) -> str:
        """Return tiles, tiles a second and time left, as far as they are known."""
        if not progress.total:
            return f"{progress.what[:1].upper()}{progress.what[1:]} …"
        parts = [f"{progress.done} of {progress.total} {progress.what}"]
        if rate := self.rate():
            parts.append(f"{rate:.1f} tiles/s")
            parts.append(f"{format_duration((progress.total - progress.done) / rate)} left")
        return " · ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration as 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
