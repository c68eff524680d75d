"""Who does the steps of a run in blocks: this process here, a cluster in `cluster`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from napari_unet.core.blockwise import assembling
from napari_unet.nn.blockwise.blocks import BlockRun, block_steps
from napari_unet.nn.blockwise.probe import Probe, probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Item = tuple[int, ...]


class Pool(Protocol):
    """Who does the steps of a run."""

    @property
    def workers(self) -> int:
        """How many processes work."""
        ...

    def start(self, run: BlockRun) -> None:
        """Get to know the run; its plan is not needed yet."""
        ...

    def precision(self, wanted: str) -> str:
        """Return the number format that suits the devices."""
        ...

    def probe(self) -> Probe:
        """Run a tile to see how long it takes."""
        ...

    def run(self, kind: str, items: Sequence[Item]) -> Iterator[tuple[Item | None, Any]]:
        """Do a step for each item, in any order.

        Yields an item when it is done, a block with the problem of each of its frames ("" if there
        is none), and in between, often enough for a cancel, None with the pixels that are done
        beyond the finished items.
        """
        ...

    def close(self) -> None:
        """Stop, and let go of everything."""
        ...


class LocalPool:
    """Does everything in this process."""

    workers = 1

    def start(self, run: BlockRun) -> None:
        """Get to know the run."""
        self._run = run

    def precision(self, wanted: str) -> str:
        """Return the number format that suits the device."""
        return self._run.model.choose_precision(wanted)

    def probe(self) -> Probe:
        """Run a tile to see how long it takes."""
        return probe(self._run)

    def run(self, kind: str, items: Sequence[Item]) -> Iterator[tuple[Item | None, Any]]:
        """Do a step for each item, one after the other."""
        for item in items:
            problems: list[str] = []
            if kind == "block":
                steps = block_steps(self._run, *item)
                try:
                    while True:
                        try:
                            yield None, next(steps)
                        except StopIteration as end:
                            problems = end.value
                            break
                finally:
                    steps.close()
            else:
                STEPS[kind](self._run.place, *item)
            yield item, problems

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


STEPS: dict[str, Any] = {
    "join": assembling.join_node,
    "label": assembling.label_node,
    "write": assembling.write_block,
    "coarsen": assembling.coarsen_part,
    "idle": assembling.idle,
}
"""The steps that need no network; each takes the `Workplace` and its item."""
