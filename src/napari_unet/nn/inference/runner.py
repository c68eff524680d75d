"""A network ready to run: BatchNorm folded, one number format, and test-time augmentation.

With augmentation it sees each tile mirrored and turned, and its answers are averaged. Only
mirrorings and quarter turns are used: they move pixels without mixing them, and tiles that lie on
the network's grid stay on it, so tiled and whole answers agree as they do without.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from napari_unet.nn.unet.fused import FusedUNet
from napari_unet.nn.unet.layers import LAYOUT
from napari_unet.nn.unet.net import UNet, crop, fold, pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from napari_unet.core.tiles import Window

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

HELD_PIXELS = 2**18
"""Features of so many pixels are held from looks at an image to its run, at most."""
AUTO, OFF, FLIPS, TURNS = "auto", "off", "flips", "flips and turns"
"""The choices of `PredictSettings.augment`; `choose_augment` resolves the first."""


@dataclass(frozen=True)
class Flip:
    """One view of an image: its rows and columns exchanged or not, then mirrored or not.

    Attributes
    ----------
    swap
        Whether Y and X are exchanged.
    flips
        Axes along which the image is mirrored, counted from the end: -1 is X.
    """

    swap: bool = False
    flips: tuple[int, ...] = ()

    def apply(self, image: Tensor) -> Tensor:
        """Return an image (..., Y, X) in this view."""
        return (image.transpose(-1, -2) if self.swap else image).flip(self.flips)

    def undo(self, maps: Tensor) -> Tensor:
        """Return maps of the view in the image's orientation."""
        maps = maps.flip(self.flips)
        return maps.transpose(-1, -2) if self.swap else maps

    def place(self, window: Window, shape: Sequence[int]) -> Window:
        """Return where a window of an image of that shape lies in this view."""
        axes = list(zip(window, shape, strict=True))
        if self.swap:
            axes[-2:] = axes[:-3:-1]
        for axis in self.flips:
            w, size = axes[axis]
            axes[axis] = slice(size - w.stop, size - w.start), size
        return tuple(w for w, _ in axes)


def get_flips(augment: str, ndim: int) -> tuple[Flip, ...]:
    """Return the views that a setting stands for: 1, 2^ndim, or as many again with Y and X swapped.

    Quarter turns of a volume are made in its planes only: along Z voxels have another size.
    """
    if augment == OFF:
        return (Flip(),)
    axes = range(-1, -ndim - 1, -1)
    flips = [
        tuple(chosen) for count in range(ndim + 1) for chosen in itertools.combinations(axes, count)
    ]
    swaps = (False, True) if augment == TURNS else (False,)
    return tuple(Flip(swap, chosen) for swap in swaps for chosen in flips)


@dataclass(frozen=True, eq=False)
class Runner:
    """A network with BatchNorm folded, channels last, in one number format.

    With several views its answer is their average.

    What `summary` computed is held for the next call, if wished: a small image that was looked at
    for the size of its objects is mostly run as it was looked at, and is not computed twice.
    """

    net: UNet
    device: torch.device
    dtype: torch.dtype
    views: tuple[Flip, ...] = (Flip(),)
    _held: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    @classmethod
    def from_net(cls, net: UNet, device: torch.device, precision: str) -> Runner:
        """Make a fast copy of a network, which stays as it is."""
        dtype, layout = DTYPES[precision], LAYOUT[net.spec.ndim]
        fast = fold(net).to(dtype).to(memory_format=layout)  # type: ignore[call-overload]
        plain = type(fast) is UNet  # a subclass may answer in its own way
        return cls(FusedUNet(fast) if plain and device.type == "cpu" else fast, device, dtype)

    def __call__(
        self, tiles: Tensor, core: Window | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Run tiles, float32 (N, C, *spatial) in host memory; raw maps, float32, on the device.

        With `core`, a window of the tiles, the maps are its own: what lies around it is read, but
        computed no farther than they depend on it. With `features`, those that `trunk` gives for
        these tiles and this core, the first view, which is the tiles as they are, is read off them.
        """
        if features is None:
            features = self._take_held(tiles, core)
        with torch.inference_mode(), _exactly():
            total = None if features is None else self.read(features)
            others = self.views if total is None else self.views[1:]
            tiles = self._sent(tiles) if others else tiles
            for view in others:
                answer = view.undo(self._viewed(view, tiles, core))
                total = answer if total is None else total + answer
            assert total is not None  # there is one view at least
            return total / len(self.views) if len(self.views) > 1 else total

    def _viewed(self, view: Flip, tiles: Tensor, core: Window | None) -> Tensor:
        """Return the raw maps of tiles, or of a window of them, float32, in a view."""
        core = core and view.place(core, tiles.shape[2:])
        return self._run(self.net, view.apply(tiles), core).float()

    def _run(self, part: Callable[..., Tensor], tiles: Tensor, core: Window | None) -> Tensor:
        """Run the network or its trunk, which a network that others run cannot do in part."""
        tiles = tiles.contiguous(memory_format=LAYOUT[tiles.ndim - 2])
        if core is None:
            return part(tiles)
        return part(tiles, core) if isinstance(self.net, UNet) else crop(part(tiles), core)

    def trunk(self, tiles: Tensor, core: Window | None = None) -> Tensor:
        """Return the features of tiles, (N, width, *spatial) on the device; `views` do not matter.

        `read` turns them into the raw maps that a call with a single view and this `core` gives.
        """
        if (features := self._take_held(tiles, core)) is not None:
            return features
        with torch.inference_mode(), _exactly():
            return self._run(self.net.trunk, self._sent(tiles), core)

    def maps(self, tile: Tensor) -> Tensor:
        """Return the raw maps of one tile (C, *spatial), as `summary` does, and nothing else."""
        with torch.inference_mode(), _exactly():
            return self.read(self._run(self.net.trunk, self._sent(tile[None]), None))[0]

    def summary(self, tiles: Tensor, *, hold: bool = False) -> tuple[Tensor, Tensor]:
        """Return the raw maps of tiles (N, C, *spatial), and what the first is on the whole.

        Parameters
        ----------
        hold
            Whether the next call may be for the first tile, or for that tile padded to the
            network's grid: its features are held for it, beside those that are held already.

        Returns
        -------
        maps, summary
            float32 (N, K, *spatial), as a call with a single view gives them, and (F,): mean and
            standard deviation of each channel of each level's features, the coarsest first.
        """
        with torch.inference_mode(), _exactly():
            layout = LAYOUT[tiles.ndim - 2]
            levels = self.net.pyramid(self._sent(tiles).contiguous(memory_format=layout))
            parts: list[Tensor] = []
            for features in levels:
                parts += _mean_and_spread(features[0])
            # A network of ONNX Runtime has its features from torch: other numbers than its own.
            if hold and isinstance(self.net, UNet):
                self._hold(tiles[0], features[:1])
            features = crop(features, tuple(slice(0, size) for size in tiles.shape[2:]))
            return self.read(features), torch.cat(parts)

    def _hold(self, tile: Tensor, features: Tensor) -> None:
        """Hold the features of a padded tile, and let go of the oldest that are too many."""
        padded = pad_to_multiple(tile, self.net.spec.stride)
        self._held.append((padded.clone(), features))
        while sum(image[0].numel() for image, _ in self._held) > HELD_PIXELS:
            del self._held[0]

    def _take_held(self, tiles: Tensor, core: Window | None) -> Tensor | None:
        """Return the features (1, width, *spatial) that are held of these tiles; hold none more."""
        held, self._held[:] = [*self._held], []
        if not held or len(tiles) != 1:
            return None
        wanted = pad_to_multiple(tiles[0], self.net.spec.stride)
        for image, features in held:
            if torch.equal(image, wanted):
                return crop(features, core or tuple(slice(0, size) for size in tiles.shape[2:]))
        return None

    def read(self, features: Tensor) -> Tensor:
        """Read raw maps, float32 (N, K, *spatial), off features in any number format."""
        with torch.inference_mode(), _exactly():
            raw: Tensor = self.net.head(features.to(self.dtype)).float()
            return raw

    def _sent(self, tiles: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return tiles.pin_memory().to(self.device, non_blocking=True).to(self.dtype)
        return tiles.to(self.device).to(self.dtype)


def _exactly() -> AbstractContextManager[None]:
    # TF32, torch's default for convolutions on recent GPUs, is not what float32 promises.
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _mean_and_spread(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of features (C, *spatial), float32 (C,).

    `Tensor.std` takes ten times as long where channels are the last in memory.
    """
    pixels = features.flatten(1).T.float()
    mean = pixels.mean(0)
    return mean, (pixels - mean).square_().mean(0).sqrt_()
