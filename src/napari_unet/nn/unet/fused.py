"""A folded network made fast on processors: fused convolutions, large levels strip by strip.

oneDNN adds bias and activation while a convolution's result is still in the processor's cache;
torch carries these operators for its compiler. And a level whose feature maps are large is computed
in strips of rows that stay in the cache: memory beyond 32 MB is mapped anew for each layer. Both
give the values of the plain network. Inside a tile convolutions do not pad: of what a strip, or the
core of a tile, needs around it, each computes only what the next one looks at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet.core.tiles import level_part
from napari_unet.nn.unet.net import UNet, crop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import LevelPart, Window
    from napari_unet.nn.unet.layers import Block

STRIP_BYTES = 4 * 2**20
"""Size of one feature map of a strip; several of them share the processor's cache."""
PRECISIONS = (torch.float32, torch.bfloat16)


class FusedBlock(nn.Module):
    """A folded `Block` of a plane's network, each convolution one operator with its activation.

    Parameters
    ----------
    block
        Without BatchNorm, with ReLU.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.shortcut = block.shortcut
        self.convs = [FusedConv(unit.conv) for unit in block.units]  # type: ignore[arg-type]
        self.reach = [sum(sides) for sides in zip(*(c.padding for c in self.convs), strict=True)]

    def forward(self, x: Tensor, inside: Sequence[bool] = (False, False)) -> Tensor:
        """Map (N, inputs, Y, X) to (N, outputs, Y, X).

        Along axes that are `inside` an image, nothing is padded, and the result is smaller by
        `reach` at either end; not for a block with a shortcut.
        """
        y = x
        for conv in self.convs[:-1]:
            y = conv(y, None, inside)
        other = None if self.shortcut is None else self.shortcut(x)
        return self.convs[-1](y, other, inside)


class FusedConv:
    """A convolution and ReLU in one operator, the kernel in oneDNN's own order."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.padding = [int(n) for n in conv.padding]
        self.bias = None if conv.bias is None else conv.bias.detach()
        kernel = conv.weight.detach().contiguous().to_mkldnn()
        ones = [1, 1]
        self.kernel = torch._C._nn.mkldnn_reorder_conv2d_weight(kernel, self.padding, ones, ones, 1)

    def __call__(self, x: Tensor, other: Tensor | None, inside: Sequence[bool]) -> Tensor:
        """Map (N, inputs, Y, X) to (N, outputs, Y, X); `other` is added before the activation."""
        run: Any = torch.ops.mkldnn._convolution_pointwise
        padding = [0 if within else n for n, within in zip(self.padding, inside, strict=True)]
        ones = [1, 1]
        where = (self.kernel, self.bias, padding, ones, ones, 1)
        if other is None:
            y: Tensor = run(x, *where, "relu", [], "")
        else:
            y = run.binary(x, other, *where, "add", None, "relu", [], "")
        return y


class FusedUNet(UNet):
    """A network for running on a processor, with the answers of the folded one that it is made of.

    Parameters
    ----------
    folded
        From `fold`, in its final number format and memory layout; its parts are taken over.
    strip_bytes
        Feature maps above four times this size are computed in strips of about this size.
    """

    def __init__(self, folded: UNet, strip_bytes: int = STRIP_BYTES) -> None:
        nn.Module.__init__(self)  # there are no new weights
        self.spec, self.strip_bytes = folded.spec, strip_bytes
        for name, part in folded.named_children():
            self.add_module(name, part)
        if can_fuse(folded):
            self.encoder = nn.ModuleList(FusedBlock(part) for part in folded.encoder)  # type: ignore[arg-type]
            self.decoder = nn.ModuleList(FusedBlock(part) for part in folded.decoder)  # type: ignore[arg-type]
            self.bottleneck = FusedBlock(folded.bottleneck)  # type: ignore[assignment]
        self.eval()

    def forward(self, x: Tensor, core: Window | None = None) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to raw maps, of `core` alone if it is given."""
        return self._finest(x, core, read=True)

    def _encode(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a level's features, and what its pooling makes of them, strip by strip."""
        block, pool, rows = self.encoder[level], self.pools[level], x.shape[2]
        strips = self._strips(level, tuple(slice(0, size) for size in x.shape[2:]), x)
        if len(strips) == 1:
            return super()._encode(level, x)
        features, pooled, factor = None, None, self.spec.factors[level][0]
        for strip in strips:
            y = self._convolve(block, crop(x, strip.read), strip)
            small: Tensor = pool(y)
            if features is None or pooled is None:
                features, pooled = _taller(y, rows), _taller(small, rows // factor)
            _fill(features, y, strip.write[0].start)
            _fill(pooled, small, strip.write[0].start // factor)
        return features, pooled  # type: ignore[return-value]

    def _decode(
        self, level: int, x: Tensor, skips: list[Tensor], part: LevelPart, *, read: bool
    ) -> Tensor:
        """Do what `UNet` does, strip by strip."""
        strips, whole = self._strips(level, part.write, skips[-1]), part.write[0]
        if len(strips) == 1:
            return super()._decode(level, x, skips, part, read=read)
        skip, result = skips.pop(), None
        for strip in strips:
            merged = self._merged(level, x, part.below, skip, strip)
            y = self._convolve(self.decoder[level], merged, strip)
            if read:
                y = self.head(y)
            result = _taller(y, whole.stop - whole.start) if result is None else result
            _fill(result, y, strip.write[0].start - whole.start)
        return result  # type: ignore[return-value]

    def _convolve(self, block: nn.Module, x: Tensor, part: LevelPart) -> Tensor:
        """Do what `UNet` does; where `part` touches no border, nothing that is cropped is made."""
        if not isinstance(block, FusedBlock) or block.shortcut is not None:
            return super()._convolve(block, x, part)
        inside = [
            reach == w.start - r.start == r.stop - w.stop
            for reach, r, w in zip(block.reach, part.read, part.write, strict=True)
        ]
        axes = zip(inside, part.read, part.write, strict=True)
        return crop(
            block(x, inside), part.write, tuple(w if within else r for within, r, w in axes)
        )

    def _strips(self, level: int, write: Window, like: Tensor) -> list[LevelPart]:
        """Divide a part of a level into strips of rows whose feature maps are small enough.

        `like` has the level's shape, batch and number format.
        """
        rows, factor = write[0].stop - write[0].start, self.spec.factors[level][0]
        across = math.prod(w.stop - w.start for w in write[1:])
        row = len(like) * self.spec.widths[level] * across * like.element_size()
        halo = self.spec.convs * (self.spec.kernel_at(level)[0] // 2)
        # A strip that is mostly halo would take longer than memory that is mapped anew.
        height = max(self.strip_bytes // row, 8 * halo, 1)
        # Nor are a few strips worth it, whose results are copied: the memory of a level of 16 MB is
        # still that of the one before.
        count = 1 if row * rows <= 4 * self.strip_bytes else -(-rows // height)
        height = -(-rows // (count * factor)) * factor
        starts = range(write[0].start, write[0].stop, height)
        spans = [slice(start, min(start + height, write[0].stop)) for start in starts]
        return [level_part(self.spec, level, (s, *write[1:]), like.shape[2:]) for s in spans]


def _taller(part: Tensor, rows: int) -> Tensor:
    """Return an empty tensor like (N, C, rows, ...), channels last, of so many rows.

    Its memory is numpy's, which asks Linux for large pages: to map those takes a quarter of the
    time.
    """
    shape = (len(part), rows, *part.shape[3:], part.shape[1])
    memory = torch.from_numpy(np.empty(math.prod(shape) * part.element_size(), np.uint8))
    return memory.view(part.dtype).view(shape).movedim(-1, 1)


def _fill(whole: Tensor, part: Tensor, row: int) -> None:
    """Copy rows (N, C, rows, ...) into a tensor of more rows."""
    whole.narrow(2, row, part.shape[2]).copy_(part)


def can_fuse(folded: UNet) -> bool:
    """Return whether torch has the fused operators for a network, here, and they give its values.

    They are not part of torch's stable interface, so that one is tried.
    """
    spec, weight = folded.spec, folded.head.weight
    if spec.ndim != 2 or spec.activation != "relu" or weight.device.type != "cpu":
        return False
    if weight.dtype not in PRECISIONS or not torch._C._has_mkldnn:
        return False
    block: Any = folded.bottleneck
    x = torch.linspace(-1, 1, 64 * block.units[0].conv.in_channels, dtype=weight.dtype)
    x = x.view(1, -1, 8, 8).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            wanted = block(x).float()
            error = (FusedBlock(block)(x).float() - wanted).abs().max()
        return bool(error <= max(4 * torch.finfo(weight.dtype).eps, 1e-5) * wanted.abs().max())
    except (AttributeError, RuntimeError, TypeError):
        return False
