"""A folded network made fast on processors: fused convolutions, large levels strip by strip.

oneDNN adds bias and activation while a convolution's result is still in the processor's cache;
torch carries these operators for its compiler. And a level whose feature maps are large is computed
in strips of rows that stay in the cache: memory beyond 32 MB is mapped anew for each layer. Both
give the values of the plain network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_unet.nn.unet.net import Block, UNet

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, Y, X) to (N, outputs, Y, X)."""
        y = x
        for conv in self.convs[:-1]:
            y = conv(y)
        return self.convs[-1](y, None if self.shortcut is None else self.shortcut(x))


class FusedConv:
    """A convolution and ReLU in one operator, the kernel in oneDNN's own order."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.padding = [int(n) for n in conv.padding]
        self.bias = None if conv.bias is None else conv.bias.detach()
        kernel = conv.weight.detach().contiguous().to_mkldnn()
        ones = [1, 1]
        self.kernel = torch._C._nn.mkldnn_reorder_conv2d_weight(kernel, self.padding, ones, ones, 1)

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Map (N, inputs, Y, X) to (N, outputs, Y, X); `other` is added before the activation."""
        run: Any = torch.ops.mkldnn._convolution_pointwise
        ones = [1, 1]
        where = (self.kernel, self.bias, self.padding, ones, ones, 1)
        if other is None:
            y: Tensor = run(x, *where, "relu", [], "")
        else:
            y = run.binary(x, other, *where, "add", None, "relu", [], "")
        return y


@dataclass(frozen=True)
class Strip:
    """Rows of a level that are computed together, as (start, stop) along its first axis.

    Attributes
    ----------
    read
        The rows that enter, with what the convolutions look at beyond `write`.
    write
        The rows that result.
    """

    read: tuple[int, int]
    write: tuple[int, int]

    @property
    def crop(self) -> tuple[int, int]:
        """The rows of `write`, counted from the first of `read`."""
        return self.write[0] - self.read[0], self.write[1] - self.read[0]


class FusedUNet(UNet):
    """A network for running on a processor, with the answers of the folded one that it is made of.

    Parameters
    ----------
    folded
        From `fold`, in its final number format and memory layout; its parts are taken over.
    strip_bytes
        Feature maps above this size are computed in strips.
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

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to raw maps (N, `out_channels`, [Z,] Y, X)."""
        return self._finest(x, self._levels(x, read=True))

    def _encode(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a level's features, and what its pooling makes of them, strip by strip."""
        block, pool, rows = self.encoder[level], self.pools[level], x.shape[2]
        strips = list(self._strips(level, x.shape, x.element_size()))
        if len(strips) == 1:
            y: Tensor = block(x)
            return y, pool(y)
        features, pooled, factor = None, None, self.spec.factors[level][0]
        for strip in strips:
            y = _rows(block(_rows(x, strip.read)), strip.crop)
            small: Tensor = pool(y)
            if features is None or pooled is None:
                features, pooled = _taller(y, rows), _taller(small, rows // factor)
            start, stop = strip.write
            _rows(features, strip.write).copy_(y)
            _rows(pooled, (start // factor, stop // factor)).copy_(small)
        return features, pooled  # type: ignore[return-value]

    def _decode(self, level: int, x: Tensor, skips: list[Tensor], *, read: bool) -> Tensor:
        """Return a level's features, or what the head reads off them, strip by strip."""
        skip = skips.pop()
        strips = list(self._strips(level, skip.shape, skip.element_size()))
        if len(strips) == 1:
            y: Tensor = self.decoder[level](self._merge(level, skip, self.ups[level](x)))
            return self.head(y) if read else y
        result, factor = None, self.spec.factors[level][0]
        beside = int(self.spec.up == "linear")  # interpolation looks at the row beside
        for strip in strips:
            first = max(0, strip.read[0] // factor - beside)
            last = min(x.shape[2], -(-strip.read[1] // factor) + beside)
            up = self.ups[level](_rows(x, (first, last)))
            up = _rows(up, (strip.read[0] - first * factor, strip.read[1] - first * factor))
            merged = self._merge(level, _rows(skip, strip.read), up)
            y = _rows(self.decoder[level](merged), strip.crop)
            if read:
                y = self.head(y)
            result = _taller(y, skip.shape[2]) if result is None else result
            _rows(result, strip.write).copy_(y)
        return result  # type: ignore[return-value]

    def _strips(self, level: int, shape: torch.Size, itemsize: int) -> Iterator[Strip]:
        """Divide a level's rows into strips whose feature maps are small enough."""
        rows, factor = shape[2], self.spec.factors[level][0]
        row = shape[0] * self.spec.widths[level] * math.prod(shape[3:]) * itemsize
        halo = self.spec.convs * (self.spec.kernel_at(level)[0] // 2)
        # A strip that is mostly halo would take longer than memory that is mapped anew.
        height = max(self.strip_bytes // row, 8 * halo, 1)
        height = -(-height // factor) * factor
        if row * rows <= 2 * self.strip_bytes:
            height = rows
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            yield Strip((max(0, start - halo), min(rows, stop + halo)), (start, stop))


def _rows(x: Tensor, span: tuple[int, int]) -> Tensor:
    """Return rows from start to stop of (N, C, rows, ...)."""
    return x.narrow(2, span[0], span[1] - span[0])


def _taller(part: Tensor, rows: int) -> Tensor:
    """Return an empty tensor like (N, C, ...), channels last, of so many rows."""
    shape = (*part.shape[:2], rows, *part.shape[3:])
    layout = torch.channels_last if part.ndim == 4 else torch.channels_last_3d
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)


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
