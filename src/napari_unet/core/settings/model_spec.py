"""ModelSpec: what a network is built from."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, fields
from typing import Any

from napari_unet.core.errors import ModelError, SettingsError
from napari_unet.core.settings.fields import check_settings, setting


@dataclass(frozen=True)
class ModelSpec:
    """What a U-Net is built from; a model's weights fit exactly one spec.

    The network has ``depth`` poolings. Level ``i`` works at ``width * 2**i`` channels (at most
    ``max_width``) and holds ``convs`` convolutions on the way down and again on the way up.
    """

    ndim: int = setting(2, "2 for planes, 3 for volumes", low=2, high=3)
    in_channels: int = setting(3, "channels of the input image", low=1, high=64)
    head: str = setting(
        "instance", "separate objects, or classes of pixels", choices=("instance", "semantic")
    )
    classes: int = setting(1, "classes of a semantic head, background included", low=1, high=255)
    depth: int = setting(4, "how many times the image is pooled", low=1, high=7)
    width: int = setting(16, "channels at full resolution", low=1, high=512)
    max_width: int = setting(512, "most channels at any level", low=1, high=4096)
    kernel: int = setting(3, "size of each convolution's kernel, odd", unit="px", low=1, high=9)
    convs: int = setting(2, "convolutions a level, each way", low=1, high=8)
    skip: str = setting("concat", "how a level meets its skip", choices=("concat", "add"))
    up: str = setting("transpose", "up-sampling", choices=("transpose", "linear"))
    pool: str = setting("max", "down-sampling", choices=("max", "stride"))
    pooling: tuple[tuple[int, ...], ...] | None = None
    """Pooling factors for each level and axis, such as ((1, 2, 2), (2, 2, 2)); None: all are 2."""
    kernels: tuple[tuple[int, ...], ...] | None = None
    """Kernel for each axis of each level, the bottleneck's last, such as ((1, 3, 3), (3, 3, 3));
    None: `kernel` along every axis."""
    norm: str = setting("batch", "normalisation layers", choices=("batch", "none"))
    activation: str = setting(
        "relu", "activation", choices=("relu", "leaky_relu", "elu", "silu", "gelu")
    )
    residual: bool = setting(False, "add each block's input to its output")
    attention: bool = setting(False, "attention gates on the skips (Oktay et al. 2018)")
    dropout: float = setting(0.0, "share of channels dropped in training", low=0.0, high=0.9)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.kernel % 2 == 0:
            raise SettingsError(f"kernel is {self.kernel}; give an odd number.")
        if self.head == "semantic" and self.classes < 2:
            raise SettingsError(f"classes is {self.classes}; a semantic head needs at least 2.")
        self._check_kernels()
        if self.pooling is None:
            return
        object.__setattr__(self, "pooling", tuple(tuple(int(f) for f in p) for p in self.pooling))
        fits = all(len(p) == self.ndim and set(p) <= {1, 2} for p in self.pooling)
        if len(self.pooling) != self.depth or not fits:
            raise SettingsError(
                f"pooling is {self.pooling}; give {self.depth} tuples of {self.ndim} factors, "
                "each 1 or 2."
            )

    def _check_kernels(self) -> None:
        if self.kernels is None:
            return
        object.__setattr__(self, "kernels", tuple(tuple(int(k) for k in ks) for ks in self.kernels))
        fits = all(len(k) == self.ndim and set(k) <= {1, 3, 5, 7, 9} for k in self.kernels)
        if len(self.kernels) != self.depth + 1 or not fits:
            raise SettingsError(
                f"kernels is {self.kernels}; give {self.depth + 1} tuples of {self.ndim} odd "
                "numbers from 1 to 9, the bottleneck's last."
            )

    @property
    def reach(self) -> tuple[int, ...] | None:
        """How far an output pixel sees, where that is declared; None: it follows from the parts."""
        return None

    def limit_tile(self, edges: tuple[int, ...]) -> tuple[int, ...]:
        """Return the edges of a tile that the network takes: of any size."""
        return edges

    def kernel_at(self, level: int) -> tuple[int, ...]:
        """Return the kernel of a level along each axis; the bottleneck is level `depth`."""
        return self.kernels[level] if self.kernels else (self.kernel,) * self.ndim

    @property
    def factors(self) -> tuple[tuple[int, ...], ...]:
        """Pooling factor for each level and axis."""
        return self.pooling or ((2,) * self.ndim,) * self.depth

    @property
    def stride(self) -> tuple[int, ...]:
        """Product of the pooling factors along each axis: the grid that tiles must lie on."""
        return tuple(math.prod(level[axis] for level in self.factors) for axis in range(self.ndim))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each level, full resolution first, bottleneck last."""
        return tuple(min(self.width * 2**level, self.max_width) for level in range(self.depth + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Build a spec from `to_json`'s answer.

        Raises
        ------
        ModelError
            A name that no spec has, or a value outside its bounds.
        """
        if not isinstance(values, dict):
            raise ModelError(f"The model's spec is {values!r:.60}; it must be entries.")
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"The model's spec has unknown entries ({', '.join(unknown)}); "
                "it was made by a newer version, update napari-unet."
            )
        for item in fields(cls):
            flag = values.get(item.name, False)
            if isinstance(item.default, bool) and not isinstance(flag, bool):
                raise ModelError(
                    f"The model's spec cannot be used: {item.name} is {flag!r:.60}; "
                    "it must be true or false."
                )
        try:
            return cls(**values)
        except (SettingsError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"The model's spec cannot be used: {error}") from error
