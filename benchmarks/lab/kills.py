"""A process that is killed at a random moment, and what it had said until then."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable


POLL_S, DISK_S = 0.003, 0.03
"""How often is looked how long a process has worked; it is killed up to so much later, for it may
wait for the disk then."""


def run_until_killed(work: Callable[[Callable[[str], object]], object], busy: float) -> list[str]:
    """Fork a process that works, kill it (SIGKILL), and return what it said. POSIX only.

    What is loaded need not be loaded again: a kill costs little more than that.

    Parameters
    ----------
    work
        Goes on for ever; it is given a function that says a line.
    busy
        Seconds of the processor that it may use: by the clock little may happen on a machine that
        others use, too.

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
    process = psutil.Process(child)
    with contextlib.suppress(psutil.Error):  # it has ended
        while sum(process.cpu_times()[:2]) < busy and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(POLL_S)
    time.sleep(busy * 7 % DISK_S)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the process ended by itself after {lines[-3:]}")
    return lines
