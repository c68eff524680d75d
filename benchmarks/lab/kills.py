"""A process that is killed at a random moment, and what it had said until then."""

from __future__ import annotations

import os
import signal
import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def run_until_killed(work: Callable[[Callable[[str], object]], object], delay: float) -> list[str]:
    """Fork a process that works, kill it (SIGKILL), and return what it said. POSIX only.

    What is loaded need not be loaded again: a kill costs little more than its delay.

    Parameters
    ----------
    work
        Goes on for ever; it is given a function that says a line.
    delay
        Seconds until the kill.

    Raises
    ------
    SystemExit
        The process ended by itself.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork where there are threads
        child = os.fork()
    if child == 0:
        try:
            os.close(read)
            work(lambda text: os.write(write, f"{text}\n".encode()))
        finally:
            os._exit(1)
    os.close(write)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the process ended by itself after {lines[-3:]}")
    return lines
