"""The network: a U-Net trunk, and the convolution that turns its features into a head's maps."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from napari_unet.core.errors import ModelError
from napari_unet.core.tiles import level_part
from napari_unet.nn.unet.layers import (
    BATCH_NORMS,
    CONV,
    LAYOUT,
    AttentionGate,
    BiasGradient,
    Block,
    ConvUnit,
    make_pool,
    make_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.tiles import LevelPart, Window

INSTANCE_MAPS = 2


def out_channels(spec: ModelSpec) -> int:
    """Count the raw maps of a model: foreground logit and distance, or one logit a class."""
    return INSTANCE_MAPS if spec.head == "instance" else spec.classes


def pad_symmetric(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Pad the last axes with mirrored values, as ``numpy.pad(mode="symmetric")`` does.

    torch's own reflection needs axes longer than the padding; this takes any width.

    Parameters
    ----------
    x
        Values (..., *spatial), no axis empty.
    widths
        Pixels to add before and after, for each of the last ``len(widths)`` axes.
    """
    for axis, (before, after) in enumerate(widths, start=x.ndim - len(widths)):
        if before or after:
            size = x.shape[axis]
            index = torch.arange(-before, size + after, device=x.device) % (2 * size)
            x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return x


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """Pad the far end of the last axes with mirrored values up to a multiple of `multiple`."""
    sizes = x.shape[x.ndim - len(multiple) :]
    return pad_symmetric(x, [(0, -size % m) for size, m in zip(sizes, multiple, strict=True)])


def crop(x: Tensor, window: Window, covered: Window | None = None) -> Tensor:
    """Return a window of values (N, C, *spatial), which cover `covered`, or begin at pixel 0."""
    for axis, wanted in enumerate(window):
        first, size = covered[axis].start if covered else 0, wanted.stop - wanted.start
        if x.shape[2 + axis] != size:  # the gradient of a crop costs a pass over all pixels
            x = x.narrow(2 + axis, wanted.start - first, size)
    return x


class UNet(nn.Module):
    """A U-Net in 2D or 3D (Ronneberger et al. 2015; Çiçek et al. 2016), as its spec says.

    It takes images of any size: they are padded with mirrored values at the far end of each axis up
    to a multiple of the poolings, and the output is cropped. Lists of parts are indexed by level, 0
    is full resolution. The names of parts are those of the weights in model files.

    Parameters
    ----------
    spec
        What to build. Weights are drawn from torch's random numbers (He et al. 2015).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        levels, widths = range(spec.depth), spec.widths
        entering = (spec.in_channels, *widths)
        merged = 2 if spec.skip == "concat" else 1
        self.encoder = nn.ModuleList(Block(spec, entering[i], widths[i], i) for i in levels)
        self.pools = nn.ModuleList(make_pool(spec, i) for i in levels)
        self.bottleneck = Block(spec, widths[-2], widths[-1], spec.depth)
        self.ups = nn.ModuleList(make_up(spec, i) for i in levels)
        self.gates = nn.ModuleList(AttentionGate(spec, widths[i]) for i in levels if spec.attention)
        self.decoder = nn.ModuleList(Block(spec, merged * widths[i], widths[i], i) for i in levels)
        self.head = CONV[spec.ndim](widths[0], out_channels(spec), 1)
        if not self.head.weight.is_meta:  # drawing no numbers imports torch's compiler: a second
            self.apply(_initialise)

    def forward(self, x: Tensor, core: Window | None = None) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to raw maps (N, `out_channels`, [Z,] Y, X).

        Parameters
        ----------
        core
            A window of the images, outside of which they are only looked at: the maps are its own.

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self.head(self.trunk(x, core))  # type: ignore[no-any-return]

    def trunk(self, x: Tensor, core: Window | None = None) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to features (N, width, [Z,] Y, X).

        `core` is as in `forward`.

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self._finest(x, core, read=False)

    def pyramid(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the features of each level of images (N, in_channels, [Z,] Y, X), coarsest first.

        The first are the bottleneck's, the last the trunk's, of the input padded to a multiple of
        the poolings.

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self._levels(x, None, read=False)

    def _levels(self, x: Tensor, core: Window | None, *, read: bool) -> Iterator[Tensor]:
        """Do what `pyramid` does; with `read` the last are the head's raw maps.

        On the way up each level is computed only where `core` depends on it.
        """
        self._check(x)
        x = pad_to_multiple(x, self.spec.stride)
        skips: list[Tensor] = []
        parts: list[LevelPart] = []
        wanted = core or tuple(slice(0, size) for size in x.shape[2:])
        for level in range(self.spec.depth):
            parts.append(level_part(self.spec, level, wanted, x.shape[2:]))
            wanted = parts[-1].below
            skip, x = self._encode(level, x)
            skips.append(skip)
            del skip  # `skips` alone holds it: memory is short at full resolution
        x = self.bottleneck(x)
        yield x
        x = crop(x, wanted)
        for level in reversed(range(self.spec.depth)):
            x = self._decode(level, x, skips, parts[level], read=read and level == 0)
            yield x

    def _finest(self, x: Tensor, core: Window | None, *, read: bool) -> Tensor:
        """Return the last level of images, or what the head reads off it, without their padding."""
        window = core or tuple(slice(0, size) for size in x.shape[2:])
        for features in self._levels(x, core, read=read):
            x = features
        return crop(x, window, core)

    def _encode(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a level's features, and what its pooling makes of them."""
        y: Tensor = self.encoder[level](x)
        return y, self.pools[level](y)

    def _decode(
        self, level: int, x: Tensor, skips: list[Tensor], part: LevelPart, *, read: bool
    ) -> Tensor:
        """Return a part of a level's features, or what the head reads off them with `read`.

        They are made of the next level's, which cover `part.below`, and of the last skip, which is
        taken out.
        """
        merged = self._merged(level, x, part.below, skips.pop(), part)
        y = self._convolve(self.decoder[level], merged, part)
        return self.head(y) if read else y

    def _merged(
        self, level: int, x: Tensor, covered: Window, skip: Tensor, part: LevelPart
    ) -> Tensor:
        """Return what a level's convolutions read: its skip and the next level's features."""
        factors = self.spec.factors[level]
        up = self._up_sampled(level, crop(x, part.below, covered))
        there = tuple(
            slice(b.start * f, b.stop * f) for b, f in zip(part.below, factors, strict=True)
        )
        return self._merge(level, crop(skip, part.read), crop(up, part.read, there))

    def _convolve(self, block: nn.Module, x: Tensor, part: LevelPart) -> Tensor:
        """Run a level's convolutions over `part.read`; return what is exact, `part.write`."""
        return crop(block(x), part.write, part.read)

    def _up_sampled(self, level: int, x: Tensor) -> Tensor:
        """Up-sample features to `level` from the next."""
        up: Any = self.ups[level]
        if self.spec.up == "linear" or not torch.is_grad_enabled():
            return up(x)  # type: ignore[no-any-return]
        convolve = F.conv_transpose2d if self.spec.ndim == 2 else F.conv_transpose3d
        y = convolve(x, up.weight, up.bias.detach(), up.stride)
        return BiasGradient.apply(y, up.bias)  # type: ignore[no-any-return, no-untyped-call]

    def _merge(self, level: int, skip: Tensor, x: Tensor) -> Tensor:
        """Merge a skip with the up-sampled features of the same size."""
        if self.spec.attention:
            skip = self.gates[level](skip, x)
        if self.spec.skip == "concat":
            return torch.cat((skip, x), dim=1)
        # Without gradients the up-sampled tensor is not needed again: save a large one. A part of
        # it is added into a new one instead, which convolutions need not bring into order.
        whole = x.is_contiguous(memory_format=LAYOUT[self.spec.ndim])
        return x.add_(skip) if whole and not torch.is_grad_enabled() else skip + x

    def _check(self, x: Tensor) -> None:
        """Raise a ModelError unless the input fits the spec."""
        spec, axes = self.spec, "Y, X" if self.spec.ndim == 2 else "Z, Y, X"
        if x.ndim != spec.ndim + 2 or x.shape[1] != spec.in_channels or not x.numel():
            raise ModelError(
                f"The network got an input of shape {tuple(x.shape)}; "
                f"it takes (N, {spec.in_channels}, {axes}), none of them 0."
            )


def _initialise(module: nn.Module) -> None:
    """Initialise a convolution so that activations keep their variance; biases start at 0."""
    if isinstance(module, ConvUnit):
        nn.init.kaiming_normal_(module.conv.weight, nonlinearity="relu")
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        # Kernel = stride: one tap reaches each output pixel, so the fan-in is the channels alone.
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    if isinstance(getattr(module, "bias", None), nn.Parameter):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def fold(net: UNet) -> UNet:
    """Copy a network for inference, its BatchNorm folded into the convolutions before.

    The copy is in evaluation mode and gives the same maps up to float rounding. Its parameters no
    longer fit its spec's `norm`: it is for running, not for storing or training.
    """
    folded = copy.deepcopy(net).eval()
    for part in folded.modules():
        if isinstance(part, ConvUnit) and isinstance(part.norm, BATCH_NORMS):
            part.conv = fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()
        activation: Any = part.activation if isinstance(part, Block) else None
        if hasattr(activation, "inplace"):
            activation.inplace = True  # the convolution's output is not used elsewhere
    return folded
