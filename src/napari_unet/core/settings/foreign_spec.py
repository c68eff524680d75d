"""What is known of a network that napari-unet did not build: its axes, sizes, halo, operations."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from napari_unet.core.errors import ModelError
from napari_unet.core.settings.fields import setting
from napari_unet.core.settings.model_spec import ModelSpec

FOREIGN_SCHEMA = 1
"""Version of `network.json` that this version of the package writes."""
OBJECTS, CLASSES, IMAGE = "objects", "classes", "image"
"""What a network's output means: see `ForeignSpec.meaning`."""
ONNX, TORCHSCRIPT = "onnx", "torchscript"
"""The forms of weights that can be run without anybody's code or pickles."""
TILE = {2: 1024, 3: 128}
"""Edge length of the largest tile: nobody knows how much memory a foreign network takes."""
SMALLEST_GRID = 16
"""Tiles of a network of one size lie on a grid of at most so many pixels."""


@dataclass(frozen=True)
class Operation:
    """One step before or after the network, named as in the bioimage.io specification.

    Attributes
    ----------
    name
        Such as "scale_range" or "sigmoid".
    values
        Its arguments, as plain JSON values; lists hold a value for each channel.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignSpec(ModelSpec):
    """A network that is run as it is; of a `ModelSpec` it keeps axes, channels and head.

    Attributes
    ----------
    runtime
        `ONNX` or `TORCHSCRIPT`.
    input_axes, output_axes
        A letter for each axis: b, c, z, y, x; i and t for axes of one entry.
    output
        Which of the network's outputs is used.
    minimum, step
        Sizes that it takes along each spatial axis, ``minimum + k * step``; 0 for a single size.
    halo
        Pixels at each end of its output that are not to be used.
    shrink
        Pixels by which its output is smaller than its input, at each end.
    dtype
        Number format of its input.
    preprocessing, postprocessing
        What is done to a frame before, and to its output afterwards.
    names
        Of the channels of its output.
    meaning
        "objects": a foreground, and a boundary or distance that divides objects; "classes":
        probabilities of classes, or of one; "image": anything else.
    foreground, boundary, distance
        Channels of the output that mean that, for objects.
    probabilities
        Whether its output lies between 0 and 1; otherwise foreground and classes are logits.
    """

    width: int = setting(64, "taken for its size in memory", low=1)
    runtime: str = setting(ONNX, "form of the weights", choices=(ONNX, TORCHSCRIPT))
    input_axes: str = "bcyx"
    output_axes: str = "bcyx"
    output: int = 0
    minimum: tuple[int, ...] = (16, 16)
    step: tuple[int, ...] = (16, 16)
    halo: tuple[int, ...] = (0, 0)
    shrink: tuple[int, ...] = (0, 0)
    dtype: str = "float32"
    preprocessing: tuple[Operation, ...] = ()
    postprocessing: tuple[Operation, ...] = ()
    names: tuple[str, ...] = ("output",)
    meaning: str = setting(IMAGE, "what its output means", choices=(OBJECTS, CLASSES, IMAGE))
    foreground: int | None = None
    boundary: int | None = None
    distance: int | None = None
    probabilities: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("minimum", "step", "halo", "shrink"):
            values = tuple(int(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != self.ndim or min(values) < (1 if name == "minimum" else 0):
                raise ModelError(f"The network's {name} is {values}; give {self.ndim} numbers.")
        for axis, edge in enumerate(self._room()):
            if edge is not None and edge < self.stride[axis]:
                raise ModelError(
                    f"The network takes {self.minimum[axis]} pixels, of which the halo leaves "
                    "nothing; give a smaller halo."
                )

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid that tiles lie on: the steps of the sizes it takes."""
        return tuple(
            step or math.gcd(size, SMALLEST_GRID)
            for size, step in zip(self.minimum, self.step, strict=True)
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """How far an output pixel sees, as declared: halo, and what the network crops."""
        return tuple(h + s for h, s in zip(self.halo, self.shrink, strict=True))

    def _room(self) -> list[int | None]:
        """Return what is left of a single size without the halo, on the grid; None for any size."""
        halos = [-(-(r + 1) // g) * g for r, g in zip(self.reach, self.stride, strict=True)]
        return [
            None if step else (size - 2 * shrink - 2 * halo) // grid * grid
            for size, step, shrink, halo, grid in zip(
                self.minimum, self.step, self.shrink, halos, self.stride, strict=True
            )
        ]

    def limit_tile(self, edges: tuple[int, ...]) -> tuple[int, ...]:
        """Return the edges of a tile that the network takes whole."""
        most = TILE[self.ndim]
        return tuple(
            min(edge, most if room is None else room)
            for edge, room in zip(edges, self._room(), strict=True)
        )

    def input_size(self, axis: int, size: int) -> int:
        """Return the smallest size that the network takes, of at least `size` along an axis."""
        minimum, step = self.minimum[axis], self.step[axis]
        if size <= minimum:
            return minimum
        if not step:
            raise ModelError(f"The network takes {minimum} pixels along an axis, not {size}.")
        return minimum + -(-(size - minimum) // step) * step

    def to_text(self) -> str:
        """Return the text of `network.json`."""
        values = {"schema": FOREIGN_SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes) -> ForeignSpec:
        """Build a spec from `to_text`'s answer.

        Raises
        ------
        ModelError
            It is damaged, or of a newer version of the package.
        """
        try:
            values = dict(json.loads(text))
            schema = values.pop("schema")
            if schema > FOREIGN_SCHEMA:
                raise ModelError(
                    f"The network's description has schema {schema}, this version of napari-unet "
                    f"reads up to {FOREIGN_SCHEMA}; update napari-unet."
                )
            for name in ("preprocessing", "postprocessing"):
                steps = tuple(Operation(o["name"], dict(o["values"])) for o in values[name])
                values[name] = steps
            known = {item.name for item in fields(cls)}
            lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            return cls(**{k: v for k, v in {**values, **lists}.items() if k in known})
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"The network's description is damaged ({error}).") from error
