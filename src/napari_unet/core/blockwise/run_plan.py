"""What decides the labels of a blockwise run: kept in its folder, compared when it is resumed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.blocks import BlockPlan, PlaneBatches
from napari_unet.core.settings.tasks import DecodeSettings, is_other_setting

if TYPE_CHECKING:
    from napari_unet.core.tiles import Index

PLAN = "plan.json"
"""The file of the plan; a folder without it holds no unfinished run."""


@dataclass(frozen=True)
class RunPlan:
    """All that decides the labels of a run, in plain JSON values; kept in its `RunDirectory`.

    Attributes
    ----------
    run
        Identifies this run, so that a late worker of an earlier one writes nothing into its folder.
    axes, shape
        Of the labels.
    ndim
        2 if objects are found in planes, 3 in volumes: a frame is one of them.
    block
        Edge lengths of a block.
    settings
        `PredictSettings` as requested.
    resolved
        The same with the diameter and the smallest object size that were estimated.
    decode
        `DecodeSettings` of an instance head; None: the maps are classes.
    precision
        Number format of the network.
    identity
        Hashes of weights and data.
    provenance
        What the result will say about how it was made.
    min_voxels
        The planes' objects are joined through z, and those of fewer voxels dropped; None: they
        are not joined.
    planes_per_batch
        How many frames share a file; above 1 only where each frame is one block.
    levels
        How many levels the result has; None: as many as its size asks for.
    """

    run: str
    axes: str
    shape: tuple[int, ...]
    ndim: int
    block: tuple[int, ...]
    settings: dict[str, Any]
    resolved: dict[str, Any]
    decode: dict[str, Any] | None
    precision: str
    identity: dict[str, Any]
    provenance: dict[str, Any]
    min_voxels: int | None = None
    planes_per_batch: int = 1
    levels: int | None = None

    @cached_property
    def blocks(self) -> BlockPlan:
        """The blocks of each frame."""
        return BlockPlan(self.shape[len(self.shape) - self.ndim :], self.block)

    @property
    def leading(self) -> tuple[int, ...]:
        """Size along the axes before those of a frame."""
        return self.shape[: len(self.shape) - self.ndim]

    @cached_property
    def batches(self) -> PlaneBatches:
        """The frames that are computed and written together."""
        return PlaneBatches(self.leading, self.planes_per_batch)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return math.prod(self.leading)

    @property
    def volumes(self) -> int:
        """Number of volumes that the frames, being planes, are of; Z is the last leading axis."""
        return self.frames // self.leading[-1] if self.frames else 0

    def index(self, frame: int) -> Index:
        """Return a frame's position along the leading axes."""
        return (
            tuple(int(at) for at in np.unravel_index(frame, self.leading))
            if frame
            else ((0,) * len(self.leading))
        )

    @property
    def decoding(self) -> DecodeSettings | None:
        """How maps become objects; None if they are classes."""
        return None if self.decode is None else DecodeSettings(**self.decode)

    def differs(self, **requested: Any) -> str:
        """Name the attributes whose requested values would give other labels; "" if none would.

        A requested value of None stands for "as it was".
        """
        found = []
        for name, value in requested.items():
            mine = getattr(self, name)
            if value is None or value == mine:
                continue
            if isinstance(mine, dict):
                changed = [
                    k
                    for k in mine
                    if is_other_setting(k, mine[k], value.get(k))
                    and not (k == "data" and None in (mine[k], value.get(k)))  # unreadable in part
                ]
                found += [f"{k} {mine[k]!r}, now {value.get(k)!r}" for k in changed]
            else:
                found.append(f"{name} {mine}, now {value}")
        return "; ".join(found)

    def to_json(self) -> str:
        """Return the plan as text."""
        values = {_FILE_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> RunPlan:
        """Read the text that `to_json` returned."""
        values = {"levels": None} | json.loads(text)  # of plans of before there were levels in it
        values = {item.name: values[_FILE_KEYS.get(item.name, item.name)] for item in fields(cls)}
        for name in ("shape", "block"):
            values[name] = tuple(values[name])
        return cls(**values)


_FILE_KEYS = {
    "resolved": "settled",
    "provenance": "passport",
    "min_voxels": "least_voxels",
    "planes_per_batch": "together",
}
"""What some attributes are called in ``plan.json``, whose keys stay."""
