"""Records of progress that long work yields, and how its generators are run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np


PLANES = "planes"
"""The unit of what goes through the planes of a volume, such as an object that is followed."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of `what` are finished."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class TileDone(Progress):
    """A tile is predicted; its objects are as far apart as this tile alone can tell.

    Attributes
    ----------
    index
        Position of the plane or volume along the leading axes of the labels: (), (t,), (z,) or
        (t, z) for a 2D model, () or (t,) for a 3D model.
    window
        The tile in that plane or volume, one slice an axis.
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
class Stalled(Progress):
    """Nothing is finished at the moment: a server is waited for.

    Attributes
    ----------
    reason
        Why it takes longer, such as a lost connection; "" if nothing is wrong.
    """

    reason: str = ""


@dataclass(frozen=True)
class TrainStep(Progress):
    """One training step: its loss, its rate, and the validation scores when there are new ones."""

    loss: float = math.nan
    learning_rate: float = math.nan
    seconds_left: float = math.nan
    validation: dict[str, float] | None = None


@dataclass(frozen=True)
class ImageRemark:
    """What is unusual about how an image was read, in sentences."""

    text: str


@dataclass(frozen=True)
class ImageReport(Progress):
    """What is read of an image, where that is not all or not sure; comes before the first tile."""

    remarks: tuple[ImageRemark, ...] = ()


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
        Called with each record that it yields.
    """
    mapped = map_steps(steps, watch or (lambda step: None))
    try:
        while True:
            next(mapped)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        mapped.close()


def map_steps(
    steps: Generator[Step, None, Result], change: Callable[[Step], Record]
) -> Generator[Record, None, Result]:
    """Yield `change(record)` for each record that a generator yields; return its result.

    The generator is closed at once when this one is, so that it removes what is half written.
    """
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield change(step)
    finally:
        steps.close()
