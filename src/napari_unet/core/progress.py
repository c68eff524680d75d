"""What long work says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np


@dataclass(frozen=True)
class Progress:
    """One report of long work: `done` of `total` units of `what` are finished."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class TileDone(Progress):
    """A tile's objects, as far as this tile alone can tell them apart.

    Attributes
    ----------
    index
        The plane's or volume's position along the leading axes of the labels: () or (t,), (z,),
        (t, z) for a 2D model, () or (t,) for a 3D model.
    window
        The tile's place in that plane or volume, one slice an axis.
    labels
        Preview labels of the window, unsigned, 0 is background; the ids are unlike those of the
        tiles before as far as the type allows. The final labels come with `FrameDone`.
    """

    index: tuple[int, ...] = ()
    window: tuple[slice, ...] = ()
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class FrameDone(Progress):
    """A plane or volume whose labels are final, in the output array at `index`."""

    index: tuple[int, ...] = ()
    objects: int = 0


@dataclass(frozen=True)
class TrainStep(Progress):
    """One training step: its loss, its rate, and the validation scores when there are new ones."""

    loss: float = math.nan
    learning_rate: float = math.nan
    seconds_left: float = math.nan
    validation: dict[str, float] | None = None


Step = TypeVar("Step")
Record = TypeVar("Record")
Result = TypeVar("Result")


def run_to_end(
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


def map_steps(
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
