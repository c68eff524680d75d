"""Long work that gives a sign of life.

A volume takes seconds to validate; whoever waits wants to see that it goes on, and to stop it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import nn

Result = TypeVar("Result")

BEAT_S = 0.25
"""Seconds between two signs of life."""


class CancelledError(Exception):
    """The work was given up; nobody is told."""


class StopHook:
    """Stops a network between two of its layers, from another thread.

    Parameters
    ----------
    net
        The network; it works as before until `pulled` is set.
    """

    def __init__(self, net: nn.Module) -> None:
        self.pulled = threading.Event()
        for module in net.modules():
            if not any(module.children()):
                module.register_forward_pre_hook(self._check)

    def _check(self, *_: Any) -> None:
        if self.pulled.is_set():
            raise CancelledError


def run_cancellable(
    work: Callable[[], Result], brake: StopHook | None = None
) -> Generator[None, None, Result]:
    """Do work in a thread of its own, and yield every `BEAT_S` seconds until it is done.

    When the generator is closed meanwhile, the brake is pulled and the end of the work waited for.

    Returns
    -------
    What `work` returns; what it raises is raised here.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="napari-unet beat", daemon=True)
    thread.start()
    try:
        thread.join(BEAT_S)
        while thread.is_alive():
            yield
            thread.join(BEAT_S)
    finally:
        if thread.is_alive():
            if brake is not None:
                brake.pulled.set()
            thread.join()
            if brake is not None:
                brake.pulled.clear()
    if errors:
        raise errors.pop()
    return results.pop()
