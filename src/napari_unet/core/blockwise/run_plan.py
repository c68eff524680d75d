"""All that decides the labels of a run in blocks, settled once and kept in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.blocks import BlockPlan, PlaneBatches

if TYPE_CHECKING:
    from napari_unet.core.instances.tile_merger import DecodeSettings


@dataclass(frozen=True)
class RunPlan:
    """All that decides the labels, in plain JSON values.

    Attributes
    ----------
    run
        Identifies this run, so that a worker that comes late writes nothing into another's folder.
    axes, shape
        Of the labels.
    ndim
        2 if objects are found in planes, 3 in volumes: a frame is one of them.
    block
        Edge lengths of a block.
    settings
        `PredictSettings` as asked for.
    settled
        The same with the diameter and the smallest size that were found out.
    decode
        `DecodeSettings` of an instance head; None: the maps are classes.
    precision
        Number format of the network.
    identity
        Hashes of weights and data.
    provenance
        What the result will say of how it was made.
    least_voxels
        Planes' objects are joined through z, and those of fewer voxels dropped; None: they are not.
    together
        How many frames share a block's file; above 1 only where each frame is one block.
    """

    run: str
    axes: str
    shape: tuple[int, ...]
    ndim: int
    block: tuple[int, ...]
    settings: dict[str, Any]
    settled: dict[str, Any]
    decode: dict[str, Any] | None
    precision: str
    identity: dict[str, Any]
    provenance: dict[str, Any]
    least_voxels: int | None = None
    together: int = 1

    @cached_property
    def blocks(self) -> BlockPlan:
        """The blocks of each frame."""
        return BlockPlan(self.shape[len(self.shape) - self.ndim :], self.block)

    @property
    def leading(self) -> tuple[int, ...]:
        """How many frames there are along the leading axes."""
        return self.shape[: len(self.shape) - self.ndim]

    @cached_property
    def groups(self) -> PlaneBatches:
        """The frames that are computed and written together."""
        return PlaneBatches(self.leading, self.together)

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return int(np.prod(self.leading, dtype=np.int64))

    def index(self, frame: int) -> tuple[int, ...]:
        """Return a frame's position along the leading axes."""
        return (
            tuple(int(at) for at in np.unravel_index(frame, self.leading))
            if frame
            else ((0,) * len(self.leading))
        )

    @property
    def decoding(self) -> DecodeSettings | None:
        """How maps become objects; None if they are classes."""
        from napari_unet.core.instances.tile_merger import DecodeSettings

        return None if self.decode is None else DecodeSettings(**self.decode)

    def differs(self, **asked: Any) -> str:
        """Name those attributes, given as asked for now, that would give other labels.

        None stands for "as it was".
        """
        found = []
        for name, value in asked.items():
            mine = getattr(self, name)
            if value is None or value == mine:
                continue
            if isinstance(mine, dict):
                changed = [
                    k
                    for k in mine
                    if k not in HARMLESS
                    and mine[k] != value.get(k)
                    and not (k == "data" and None in (mine[k], value.get(k)))  # unreadable in part
                ]
                found += [f"{k} {mine[k]!r}, now {value.get(k)!r}" for k in changed]
            else:
                found.append(f"{name} {mine}, now {value}")
        return "; ".join(found)

    def to_json(self) -> str:
        """Return the plan as text."""
        values = asdict(self)
        values["passport"] = values.pop("provenance")  # its name in the file
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> RunPlan:
        """Read `to_json`'s answer."""
        values = json.loads(text)
        values["provenance"] = values["passport"]
        values = {item.name: values[item.name] for item in fields(cls)}
        for name in ("shape", "block"):
            values[name] = tuple(values[name])
        return cls(**values)


HARMLESS = {"tile", "batch", "certify", "survey", "seed"}
"""Settings that do not change the labels."""
