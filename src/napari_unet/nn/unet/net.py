"""The network: a U-Net trunk, and the convolution that turns its features into a head's maps."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from napari_unet.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_unet.core.settings.model_spec import ModelSpec

CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
ACTIVATION: dict[str, Callable[[], nn.Module]] = {
    # In place where the gradient follows from the result: the input is not used elsewhere.
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "elu": partial(nn.ELU, inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
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


def _pool(spec: ModelSpec, level: int) -> nn.Module:
    """Build the down-sampling from `level` to the next."""
    channels, factor = spec.widths[level], spec.factors[level]
    if spec.pool == "max":
        return MAX_POOL[spec.ndim](factor)
    conv: nn.Module = CONV[spec.ndim](channels, channels, factor, stride=factor)
    return conv


def _up(spec: ModelSpec, level: int) -> nn.Module:
    """Build the up-sampling to `level` from the next."""
    outputs, inputs = spec.widths[level : level + 2]
    factor = spec.factors[level]
    if spec.up == "linear":
        return LinearUp(spec, inputs, outputs, factor)
    conv: nn.Module = CONV_TRANSPOSE[spec.ndim](inputs, outputs, factor, stride=factor)
    return conv


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
        self.pools = nn.ModuleList(_pool(spec, i) for i in levels)
        self.bottleneck = Block(spec, widths[-2], widths[-1], spec.depth)
        self.ups = nn.ModuleList(_up(spec, i) for i in levels)
        self.gates = nn.ModuleList(AttentionGate(spec, widths[i]) for i in levels if spec.attention)
        self.decoder = nn.ModuleList(Block(spec, merged * widths[i], widths[i], i) for i in levels)
        self.head = CONV[spec.ndim](widths[0], out_channels(spec), 1)
        if not self.head.weight.is_meta:  # drawing no numbers imports torch's compiler: a second
            self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to raw maps (N, `out_channels`, [Z,] Y, X).

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self.head(self.trunk(x))  # type: ignore[no-any-return]

    def trunk(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, [Z,] Y, X) to features (N, width, [Z,] Y, X).

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self._finest(x, self.pyramid(x))

    def pyramid(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the features of each level of images (N, in_channels, [Z,] Y, X), coarsest first.

        The first are the bottleneck's, the last the trunk's, of the input padded to a multiple of
        the poolings.

        Raises
        ------
        ModelError
            The input has other axes or channels than the model's, or no pixels.
        """
        return self._levels(x, read=False)

    def _levels(self, x: Tensor, *, read: bool) -> Iterator[Tensor]:
        """Do what `pyramid` does; with `read` the last are the head's raw maps."""
        self._check(x)
        x, skips = pad_to_multiple(x, self.spec.stride), []
        for level in range(self.spec.depth):
            skip, x = self._encode(level, x)
            skips.append(skip)
            del skip  # `skips` alone holds it: memory is short at full resolution
        x = self.bottleneck(x)
        yield x
        for level in reversed(range(self.spec.depth)):
            x = self._decode(level, x, skips, read=read and level == 0)
            yield x

    def _finest(self, x: Tensor, levels: Iterator[Tensor]) -> Tensor:
        """Return the last of some levels, without the padding of the images `x`."""
        sizes = x.shape[2:]
        for features in levels:
            x = features
        for axis, size in enumerate(sizes, start=2):
            if x.shape[axis] != size:  # the gradient of a crop costs a pass over all pixels
                x = x.narrow(axis, 0, size)
        return x

    def _encode(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a level's features, and what its pooling makes of them."""
        y: Tensor = self.encoder[level](x)
        return y, self.pools[level](y)

    def _decode(self, level: int, x: Tensor, skips: list[Tensor], *, read: bool) -> Tensor:
        """Return a level's features from those of the next and the last skip, which is taken out.

        With `read`, what the head reads off them.
        """
        merged = self._merge(level, skips.pop(), self._up_sampled(level, x))
        y: Tensor = self.decoder[level](merged)
        return self.head(y) if read else y

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
        # Without gradients the up-sampled tensor is not needed again: save a large one.
        return skip + x if torch.is_grad_enabled() else x.add_(skip)

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
