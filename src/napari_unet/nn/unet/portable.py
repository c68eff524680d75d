"""The U-Net of napari-unet in one file that needs nothing but torch.

It goes into exported packages, beside the weights. Parts have the names that they have in
napari-unet, so the weights fit both. What is left out is what other programs do themselves: images
come in float32 and in sizes that the poolings divide, and nothing is checked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_ACTIVATION: dict[str, Any] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class PortableUnit(nn.Module):
    """A convolution that keeps the size, and its normalisation."""

    def __init__(self, ndim: int, inputs: int, outputs: int, kernel: Any, norm: str) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.conv = _CONV[ndim](inputs, outputs, kernel, padding=padding, bias=norm != "batch")
        self.norm = _BATCH_NORM[ndim](outputs) if norm == "batch" else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial)."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class PortableBlock(nn.Module):
    """One level's convolutions, each followed by the activation."""

    def __init__(self, net: dict[str, Any], inputs: int, outputs: int, level: int) -> None:
        super().__init__()
        ndim, kernel = net["ndim"], net["kernels"][level]
        self.units = nn.ModuleList(
            PortableUnit(ndim, outputs if i else inputs, outputs, kernel, net["norm"])
            for i in range(net["convs"])
        )
        self.activation = _ACTIVATION[net["activation"]]()
        self.shortcut: nn.Module | None = None
        if net["residual"]:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else _CONV[ndim](inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial)."""
        y = x
        for unit in self.units[:-1]:
            y = self.activation(unit(y))
        y = self.units[-1](y)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.activation(y)  # type: ignore[no-any-return]


class PortableGate(nn.Module):
    """An attention gate on a skip (Oktay et al. 2018, arXiv:1804.03999)."""

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__()
        conv, inner = _CONV[ndim], max(1, channels // 2)
        self.of_skip = conv(channels, inner, 1, bias=False)
        self.of_signal = conv(channels, inner, 1)
        self.weigh = conv(inner, 1, 1)

    def forward(self, skip: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """Return the weighted skip."""
        seen = F.relu(self.of_skip(skip) + self.of_signal(signal))
        return skip * torch.sigmoid(self.weigh(seen))


class PortableUp(nn.Module):
    """A 1x1 convolution and linear interpolation."""

    def __init__(self, ndim: int, inputs: int, outputs: int, factor: Any) -> None:
        super().__init__()
        self.conv = _CONV[ndim](inputs, outputs, 1)
        self.factor = tuple(float(f) for f in factor)
        self.mode = "bilinear" if ndim == 2 else "trilinear"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial * factor)."""
        x = self.conv(x)
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=False)


class PortableUNet(nn.Module):
    """A U-Net with its head's activation, in 2D or 3D.

    Parameters
    ----------
    ndim, in_channels, outputs
        Spatial axes, channels of the image, maps of the head.
    widths, factors, kernels
        Channels and kernel at each level, the bottleneck's last; pooling factors of each level.
    convs, skip, up, pool, norm, activation, residual, attention
        As in the model's card.
    head
        "instance": the first map is a foreground probability, the second the relative distance to
        the object's border. "semantic": a logit for each class.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        outputs: int,
        widths: list[int],
        factors: list[list[int]],
        kernels: list[list[int]],
        convs: int = 2,
        skip: str = "concat",
        up: str = "transpose",
        pool: str = "max",
        norm: str = "batch",
        activation: str = "relu",
        residual: bool = False,
        attention: bool = False,
        head: str = "instance",
    ) -> None:
        super().__init__()
        net = {
            "ndim": ndim,
            "kernels": kernels,
            "convs": convs,
            "norm": norm,
            "activation": activation,
            "residual": residual,
        }
        self.kind, self.skip = head, skip
        levels = range(len(factors))
        entering = [in_channels, *widths]
        merged = 2 if skip == "concat" else 1
        conv = _CONV[ndim]
        self.encoder = nn.ModuleList(PortableBlock(net, entering[i], widths[i], i) for i in levels)
        self.pools = nn.ModuleList(
            _MAX_POOL[ndim](tuple(factors[i]))
            if pool == "max"
            else conv(widths[i], widths[i], tuple(factors[i]), stride=tuple(factors[i]))
            for i in levels
        )
        self.bottleneck = PortableBlock(net, widths[-2], widths[-1], len(factors))
        self.ups = nn.ModuleList(
            PortableUp(ndim, widths[i + 1], widths[i], factors[i])
            if up == "linear"
            else _CONV_TRANSPOSE[ndim](
                widths[i + 1], widths[i], tuple(factors[i]), stride=tuple(factors[i])
            )
            for i in levels
        )
        self.gates = nn.ModuleList(PortableGate(ndim, widths[i]) for i in levels if attention)
        self.decoder = nn.ModuleList(
            PortableBlock(net, merged * widths[i], widths[i], i) for i in levels
        )
        self.head = conv(widths[0], outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to maps (N, outputs, [Z,] Y, X)."""
        skips = []
        for block, pool in zip(self.encoder, self.pools, strict=True):
            x = block(x)
            skips.append(x)
            x = pool(x)
        x = self.bottleneck(x)
        for level in reversed(range(len(skips))):
            x = self.ups[level](x)
            skip = self.gates[level](skips[level], x) if len(self.gates) else skips[level]
            x = torch.cat((skip, x), 1) if self.skip == "concat" else skip + x
            x = self.decoder[level](x)
        x = self.head(x)
        if self.kind == "instance":
            return torch.cat((torch.sigmoid(x[:, :1]), x[:, 1:]), 1)
        return x
