"""How much is tried of each kind of file, under which bounds, and what came of it.

A minute by default, as in CI; ``pytest tests/fuzz --fuzz 20000 --timeout 0`` tries so many files of
each kind. What fails is shrunk by hypothesis and printed; it can be given again by ``@example``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from napari_unet.core.errors import UnetError

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0
"""A file that takes longer counts as one that hangs."""
MEGABYTES = 2000
"""Memory that reading damaged files may add to the process."""

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
    counts = COUNTS.setdefault(request.node.name, Counter())

    def run(strategy: Any, check: Callable[[Any], object], usual: int) -> None:
        before = peak_mb()
        wanted = request.config.getoption("--fuzz") or usual

        @settings(
            max_examples=wanted,
            deadline=None,
            database=None,
            derandomize=request.config.getoption("--fuzz") is None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(strategy)
        def attempt(drawn: Any) -> None:
            began = time.monotonic()
            try:
                check(drawn)
                counts["read"] += 1
            except UnetError as error:
                text = str(error)
                text.encode()
                assert "\n" not in text.strip() and len(text) < 1500, text
                counts["refused"] += 1
            took = time.monotonic() - began
            assert took < SECONDS, f"it took {took:.0f} s"

        attempt()
        grown = peak_mb() - before
        assert grown < MEGABYTES, f"the memory grew by {grown:.0f} MB"

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many files were tried."""
    if not COUNTS:
        return
    terminalreporter.write_sep("-", "fuzzing")
    for name, found in COUNTS.items():
        terminalreporter.write_line(
            f"{name}: {found.total():,} tried, {found['read']:,} read, {found['refused']:,} refused"
        )
