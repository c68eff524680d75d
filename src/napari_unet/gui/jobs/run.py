"""What the runs of all panels are: one job, its result or error, and who is told of the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from napari_unet.gui.jobs.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class ResultRun(ABC):
    """One job, and the one thing that it finds; a subclass says how it begins.

    Parameters
    ----------
    progress
        Called in the window's thread with what the work yields.
    ended
        Called in the window's thread when it is over, with the run and "done", "cancelled" or
        "failed".

    Attributes
    ----------
    job
        The job; whoever makes the run submits it to a slot.
    result
        What the work returned; None until it is there.
    error
        What went wrong, if something did.
    """

    def __init__(self, progress: Callable[[Any], None], ended: Callable[[Any, str], None]) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._ended = ended
        self.job = Job(
            self._begin,
            on_item=progress,
            on_done=self._keep_result,
            on_error=self._keep_error,
            on_end=self._end,
        )

    def cancel(self) -> None:
        """Stop after the step under way."""
        self.job.cancel()

    def abandon(self) -> None:
        """Cancel; the panel is gone, so nobody is told of the end."""
        self.cancel()
        self._ended = nobody

    @abstractmethod
    def _begin(self) -> Generator[Any, None, Any]:
        """Look at what is needed, in the window's thread; return the work itself."""

    def _keep_result(self, result: Any) -> None:
        self.result = result

    def _keep_error(self, error: Exception) -> None:
        self.error = error

    def _end(self, state: str) -> None:
        """Let go of whoever waits for the end, and tell them."""
        ended, self._ended = self._ended, nobody
        ended(self, state)


def nobody(*_: object) -> None:
    """Stand in for a panel that is gone, or knows already."""
