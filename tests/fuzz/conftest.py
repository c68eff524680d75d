"""How much is tried of each kind of file, under which bounds, and what came of it.

A minute by default, as in CI; ``pytest tests/fuzz --fuzz 20000 --timeout 0`` tries so many files of
each kind. What fails is shrunk by hypothesis and printed; it can be given again by ``@example``.
With ``--fuzz-counts FILE`` the counts so far, and what failed, are kept in a file, so that the run
may be stopped at any time and goes on when it is started again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from napari_unet.core.errors import UnetError

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0
"""A file at which the processor works for longer counts as one that hangs."""
PATIENCE = 100
"""So many times as long a file may wait, such as for a processor that has more to do."""
MEGABYTES = 2000
"""Memory that reading damaged files may add to the process."""
BATCH = 500
"""Files that are tried in one process of a long run: one that hangs or crashes ends no more."""
ROOM = 16 * 2**30
"""Address space of such a process, so that a file that fills the memory fills none but its own."""

COUNTS: dict[str, Counter[str]] = {}


def peak_mb() -> float:
    """Return the most memory that this process had so far; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what tries many inputs: each is read, or refused with a `UnetError` of one line.

    ``fuzz(strategy, check, usual)`` calls ``check(input)`` for `usual` inputs, or as many as
    ``--fuzz`` says.
    """
    name = request.node.name
    counts = COUNTS.setdefault(name, Counter())
    wanted = request.config.getoption("--fuzz")
    kept = request.config.getoption("--fuzz-counts")

    def run(strategy: Any, check: Callable[[Any], object], usual: int) -> None:
        if kept:
            _try_in_batches(Path(kept), name, strategy, check, wanted or usual)
        else:
            _try(strategy, check, wanted or usual, counts, None if wanted else 0)

    return run


def _try(
    strategy: Any,
    check: Callable[[Any], object],
    number: int,
    counts: Counter[str],
    number_of_batch: int | None,
    began_one: Callable[[], object] = lambda: None,
) -> None:
    """Try so many inputs; the same ones for a batch of the same number."""
    before = peak_mb()

    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=number_of_batch == 0,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def attempt(drawn: Any) -> None:
        began = time.process_time()
        began_one()
        try:
            check(drawn)
            counts["read"] += 1
        except UnetError as error:
            text = str(error)
            text.encode()
            assert "\n" not in text.strip() and len(text) < 1500, text
            counts["refused"] += 1
        took = time.process_time() - began
        assert took < SECONDS, f"it took {took:.0f} s"

    if number_of_batch:
        attempt = seed(number_of_batch)(attempt)
    attempt()
    grown = peak_mb() - before
    assert grown < MEGABYTES, f"the memory grew by {grown:.0f} MB"


def _try_in_batches(
    kept: Path, name: str, strategy: Any, check: Callable[[Any], object], wanted: int
) -> None:
    """Try inputs in processes of their own until the file of counts says that they are enough."""
    while True:
        saved = json.loads(kept.read_text()) if kept.exists() else {}
        mine = saved.setdefault(name, {"batches": 0, "read": 0, "refused": 0, "failed": []})
        COUNTS[name] = Counter(read=mine["read"], refused=mine["refused"])
        left = wanted - mine["read"] - mine["refused"]
        if left <= 0:
            break
        mine["batches"] += 1
        counts, failure = _try_apart(strategy, check, min(BATCH, left), mine["batches"])
        mine["read"] += counts["read"]
        mine["refused"] += counts["refused"]
        if failure:
            mine["failed"].append({"batch": mine["batches"], "what": failure})
        partial = kept.with_name(f"{kept.name}.partial")
        partial.write_text(json.dumps(saved, indent=1))
        partial.replace(kept)
    assert not mine["failed"], "\n\n".join(failure["what"] for failure in mine["failed"])


def _try_apart(
    strategy: Any, check: Callable[[Any], object], number: int, batch: int
) -> tuple[Counter[str], str]:
    """Try inputs in a process that is ended when one takes too long; return counts and failure."""
    import resource

    told, tell = os.pipe()
    child = os.fork()
    if not child:  # whatever happens, this process ends here
        try:
            os.close(told)
            resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
            counts, failure = Counter[str](), ""
            try:
                _try(strategy, check, number, counts, batch, lambda: os.write(tell, b"\n"))
            except BaseException:
                lines = [line[:300] for line in traceback.format_exc().splitlines()]
                failure = "\n".join(lines)[-6000:]
            os.write(tell, json.dumps({"counts": counts, "failure": failure}).encode())
        finally:
            os._exit(0)
    os.close(tell)
    heard = b""
    while _says_something(told, psutil.Process(child)):
        part = os.read(told, 2**16)
        if not part:
            break
        heard += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(told)
    status = os.waitpid(child, 0)[1]
    *begun, last = heard.split(b"\n")
    if last:
        result = json.loads(last)
        return Counter(result["counts"]), result["failure"]
    what = "crashed or hung" if status else "ended"
    return Counter(), f"file {len(begun)} of batch {batch} {what} (status {status})"


def _says_something(told: int, process: psutil.Process) -> bool:
    """Wait for a process until it says something, or has worked or waited for too long."""
    begun, worked = time.monotonic(), sum(process.cpu_times()[:2])
    while not select.select([told], [], [], SECONDS)[0]:
        if sum(process.cpu_times()[:2]) - worked > 2 * SECONDS:
            return False
        if time.monotonic() - begun > PATIENCE * SECONDS:
            return False
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many files were tried."""
    if not COUNTS:
        return
    terminalreporter.write_sep("-", "fuzzing")
    for name, found in COUNTS.items():
        terminalreporter.write_line(
            f"{name}: {found.total():,} tried, {found['read']:,} read, {found['refused']:,} refused"
        )
