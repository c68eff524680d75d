"""Long work is a generator of progress: run one to its end, or pass it on with other records."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Step = TypeVar("Step")
Record = TypeVar("Record")
Result = TypeVar("Result")


def drained(
    steps: Generator[Step, None, Result], watch: Callable[[Step], object] | None = None
) -> Result:
    """Run a generator to its end and return its result.

    Parameters
    ----------
    steps
        The generator; it is closed if `watch` raises.
    watch
        Called with each thing that it yields.
    """
    try:
        while True:
            step = next(steps)
            if watch is not None:
                watch(step)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        steps.close()


def mapped(
    steps: Generator[Step, None, Result], change: Callable[[Step], Record]
) -> Generator[Record, None, Result]:
    """Yield what `change` makes of each thing that a generator yields; return its result."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield change(step)
