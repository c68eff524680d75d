"""A trained network in the forms that other programs run: one plain file, TorchScript, ONNX."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.io.files import first_line
from napari_unet.nn.unet.net import UNet, out_channels
from napari_unet.nn.unet.portable import PortableUNet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.settings.model_spec import ModelSpec

OPSET = 18
"""Version of ONNX's operators; older programs read it, too."""


def portable_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Return what a `PortableUNet` is built from, as plain values."""
    return {
        "ndim": spec.ndim,
        "in_channels": spec.in_channels,
        "outputs": out_channels(spec),
        "widths": list(spec.widths),
        "factors": [list(factors) for factors in spec.factors],
        "kernels": [list(spec.kernel_at(level)) for level in range(spec.depth + 1)],
        "convs": spec.convs,
        "skip": spec.skip,
        "up": spec.up,
        "pool": spec.pool,
        "norm": spec.norm,
        "activation": spec.activation,
        "residual": spec.residual,
        "attention": spec.attention,
        "head": spec.head,
    }


def to_portable(net: UNet, *, activated: bool = True) -> PortableUNet:
    """Return a network as a `PortableUNet` in evaluation mode, on the processor, with equal maps.

    Parameters
    ----------
    activated
        Whether an instance head's foreground is a probability; otherwise all maps are raw.
    """
    arguments = portable_arguments(net.spec)
    if not activated:
        arguments["head"] = "semantic"
    portable = PortableUNet(**arguments)
    portable.load_state_dict({name: value.cpu() for name, value in net.state_dict().items()})
    return portable.eval()


def example_input(spec: ModelSpec) -> torch.Tensor:
    """Return an input of twice the smallest size, (1, C, *spatial), for tracing."""
    return torch.zeros(1, spec.in_channels, *(2 * step for step in spec.stride))


def write_torchscript(net: PortableUNet, example: torch.Tensor, path: Path) -> None:
    """Write a network as TorchScript, for inputs of any size that the poolings divide."""
    with _quiet():
        traced = torch.jit.trace(net, example, check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(path))


def read_torchscript(path: Path, device: torch.device) -> torch.nn.Module:
    """Load a network from TorchScript, in evaluation mode; it is a program, which then may run.

    Raises
    ------
    ModelError
        The file is damaged, or no TorchScript.
    """
    try:
        with _quiet():
            net: torch.nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"{path} is no TorchScript ({first_line(error)}).") from error
    return net.eval()


def write_onnx(net: PortableUNet, example: torch.Tensor, path: Path) -> None:
    """Write a network as ONNX, for inputs of any size that the poolings divide.

    The input is called ``input``, the output ``output``.

    Raises
    ------
    ModelError
        The packages that write ONNX are not installed, or fail.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "ONNX needs packages that are not installed; run: pip install 'napari-unet[onnx]'."
        ) from error
    automatic = torch.export.Dim.AUTO
    sizes = {axis: automatic for axis in range(example.ndim) if axis != 1}
    # Of two different sizes, so that neither is taken for a constant or for the other's.
    example = torch.zeros(
        2, example.shape[1], *(n * (2 + at) for at, n in enumerate(example.shape[2:]))
    )
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                net,
                (example,),
                str(path),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=(sizes,),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except RuntimeError as error:
        raise ModelError(f"The network cannot be written as ONNX ({first_line(error)}).") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's advice to its own developers from the user: both ways of writing are current."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
