"""What a U-Net is built from: the convolutions of a level, gates of skips, pooling, up-sampling."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.core.settings.model_spec import ModelSpec

CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory layout of networks and batches: convolutions are faster in it, on CPUs and GPUs."""
LINEAR = {2: "bilinear", 3: "trilinear"}
ACTIVATION: dict[str, Callable[[], nn.Module]] = {
    # In place where the gradient follows from the result: the input is not used elsewhere.
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "elu": partial(nn.ELU, inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class ConvUnit(nn.Module):
    """A convolution that keeps the size (zeros beyond the border), and its normalisation."""

    def __init__(self, spec: ModelSpec, inputs: int, outputs: int, level: int = 0) -> None:
        super().__init__()
        batch_norm, kernel = spec.norm == "batch", spec.kernel_at(level)
        padding = tuple(k // 2 for k in kernel)
        self.conv = CONV[spec.ndim](inputs, outputs, kernel, padding=padding, bias=not batch_norm)
        self.norm: nn.Module = BATCH_NORM[spec.ndim](outputs) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial)."""
        if self.training and isinstance(self.norm, BATCH_NORMS) and not self.norm.training:
            return self._forward_frozen(x, self.norm)
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    def _forward_frozen(self, x: Tensor, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> Tensor:
        """Train with the statistics as they are: a scale and a shift, which the kernel takes in.

        The gradients are the same, and the normalisation costs no pass over the pixels.
        """
        variance: Any = norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        kernel = self.conv.weight * scale.view(-1, *[1] * (x.ndim - 1))
        shift = norm.bias - norm.running_mean * scale  # type: ignore[operator]
        y: Tensor = self.conv._conv_forward(x, kernel, shift.detach())
        return BiasGradient.apply(y, shift)  # type: ignore[no-any-return, no-untyped-call]


class BiasGradient(torch.autograd.Function):
    """Give a bias that was added already its gradient: the sum over the pixels.

    On CPUs the backward pass of a transposed convolution takes ten times as long for its bias as
    for its kernel; the plain sum takes next to nothing.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        """Return `y`, (N, C, *spatial), which the bias (C) is a part of."""
        ctx.mark_dirty(y)  # not so, but torch lets what follows work in place on it
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of `y` and of the bias."""
        (gradient,) = gradients
        axes = [axis for axis in range(gradient.ndim) if axis != 1]
        exact = torch.promote_types(gradient.dtype, torch.float32)
        return gradient, gradient.sum(axes, dtype=exact)


class Block(nn.Module):
    """One level's convolutions, each followed by the activation.

    A residual block adds its input before the last activation, through a 1x1 convolution if the
    number of channels differs. Dropout drops whole channels of the block's output.
    """

    def __init__(self, spec: ModelSpec, inputs: int, outputs: int, level: int = 0) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            ConvUnit(spec, outputs if i else inputs, outputs, level) for i in range(spec.convs)
        )
        self.activation = ACTIVATION[spec.activation]()
        self.shortcut: nn.Module | None = None
        if spec.residual:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else CONV[spec.ndim](inputs, outputs, 1)
        self.dropout: nn.Module = DROPOUT[spec.ndim](spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial)."""
        y = x
        for unit in self.units[:-1]:
            y = self.activation(unit(y))
        y = self.units[-1](y)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.dropout(self.activation(y))  # type: ignore[no-any-return]


class AttentionGate(nn.Module):
    """Weigh the pixels of a skip by a number in [0, 1] (Oktay et al. 2018, arXiv:1804.03999).

    The gating signal is the up-sampled one, so that both have the skip's resolution and the gate
    works on single pixels: the receptive field stays the same.
    """

    def __init__(self, spec: ModelSpec, channels: int) -> None:
        super().__init__()
        conv, inner = CONV[spec.ndim], max(1, channels // 2)
        self.of_skip = conv(channels, inner, 1, bias=False)
        self.of_signal = conv(channels, inner, 1)
        self.weigh = conv(inner, 1, 1)

    def weights(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Return the weight of each pixel, (N, 1, *spatial), from 0 to 1."""
        return torch.sigmoid(self.weigh(F.relu(self.of_skip(skip) + self.of_signal(signal))))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Return the weighted skip; all are (N, channels, *spatial)."""
        return skip * self.weights(skip, signal)


class LinearUp(nn.Module):
    """Linear interpolation, with a 1x1 convolution that reduces the number of channels.

    The convolution comes first: both orders give the same values, this one with fewer operations.
    """

    def __init__(self, spec: ModelSpec, inputs: int, outputs: int, factor: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = CONV[spec.ndim](inputs, outputs, 1)
        self.factor = tuple(float(f) for f in factor)
        self.mode = LINEAR[spec.ndim]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, *spatial) to (N, outputs, *spatial * factor)."""
        return F.interpolate(
            self.conv(x), scale_factor=self.factor, mode=self.mode, align_corners=False
        )


def make_pool(spec: ModelSpec, level: int) -> nn.Module:
    """Build the down-sampling from `level` to the next."""
    channels, factor = spec.widths[level], spec.factors[level]
    if spec.pool == "max":
        return MAX_POOL[spec.ndim](factor)
    conv: nn.Module = CONV[spec.ndim](channels, channels, factor, stride=factor)
    return conv


def make_up(spec: ModelSpec, level: int) -> nn.Module:
    """Build the up-sampling to `level` from the next."""
    outputs, inputs = spec.widths[level : level + 2]
    factor = spec.factors[level]
    if spec.up == "linear":
        return LinearUp(spec, inputs, outputs, factor)
    conv: nn.Module = CONV_TRANSPOSE[spec.ndim](inputs, outputs, factor, stride=factor)
    return conv
