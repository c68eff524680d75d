"""Long work in a thread of its own, so that it reports and can be cancelled.

To validate a volume takes seconds; whoever waits wants to see that it goes on, and to stop it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import nn

Result = TypeVar("Result")

REPORT_EVERY_S = 0.25
"""Seconds between two reports; the window wants one every 0.2 to 0.5 s."""


class CancelledError(Exception):
    """The work was cancelled; it is raised in the work's thread and reported to nobody."""


class StopHook:
    """Stops a network between two of its layers, from another thread.

    Parameters
    ----------
    net
        The network; it works as usual until the event `cancelled` is set.
    """

    def __init__(self, net: nn.Module) -> None:
        self.cancelled = threading.Event()
        for module in net.modules():
            if not any(module.children()):
                module.register_forward_pre_hook(self._check)

    def _check(self, *_: Any) -> None:
        if self.cancelled.is_set():
            raise CancelledError


def run_cancellable(
    work: Callable[[], Result], stop_hook: StopHook | None = None
) -> Generator[None, None, Result]:
    """Do work in a thread of its own, and yield every `REPORT_EVERY_S` seconds until it is done.

    If the generator is closed meanwhile, the network is stopped by its hook, and the end of the
    work is waited for.

    Returns
    -------
    What `work` returns; an exception that it raises is raised here.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="napari-unet training", daemon=True)
    thread.start()
    try:
        thread.join(REPORT_EVERY_S)
        while thread.is_alive():
            yield
            thread.join(REPORT_EVERY_S)
    finally:
        if thread.is_alive():
            if stop_hook is not None:
                stop_hook.cancelled.set()
            thread.join()
            if stop_hook is not None:
                stop_hook.cancelled.clear()
    if errors:
        raise errors.pop()
    return results.pop()
