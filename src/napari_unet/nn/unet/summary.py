"""A table of a model's networks: their parts, weights and costs, measured on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.text import align
from napari_unet.core.tiles import receptive_field
from napari_unet.nn.unet.click_head import ClickHead
from napari_unet.nn.unet.net import UNet
from napari_unet.nn.unet.refiner import Refiner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

HEADINGS = ("part", "channels", "resolution", "parameters", "FLOP/px")


@dataclass(frozen=True)
class PartSummary:
    """A part of a network.

    Attributes
    ----------
    name
        Its name in the network, such as ``encoder.0``.
    channels
        Output channels.
    scale
        Input pixels per output pixel along each axis; 1 is full resolution.
    parameters
        Number of trained weights.
    flops
        Operations of its convolutions, 2 for each multiplication with addition, per pixel (voxel)
        of the network's input.
    """

    name: str
    channels: int
    scale: tuple[int, ...]
    parameters: int
    flops: float


@dataclass(frozen=True)
class NetworkSummary:
    """The parts of a network, in the order in which they run."""

    rows: tuple[PartSummary, ...]

    @property
    def parameters(self) -> int:
        """Number of trained weights in the whole network."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> float:
        """Operations per pixel (voxel) of the input."""
        return sum(row.flops for row in self.rows)


def summarise_network(spec: ModelSpec) -> NetworkSummary:
    """Describe the network of a spec, without memory for weights or images."""
    with torch.device("meta"):
        net = UNet(spec).eval()
        image = torch.empty(1, spec.in_channels, *spec.stride)
    outputs: dict[str, tuple[int, ...]] = {}
    parts = dict(_parts(net))
    for name, part in parts.items():
        part.register_forward_hook(_record(outputs, name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    flops = counter.get_flop_counts()
    pixels = image[0, 0].numel()
    rows = (
        PartSummary(
            name=name,
            channels=shape[1],
            scale=tuple(whole // part for whole, part in zip(spec.stride, shape[2:], strict=True)),
            parameters=sum(p.numel() for p in parts[name].parameters()),
            flops=sum(flops.get(f"UNet.{name}", {}).values()) / pixels,
        )
        for name, shape in outputs.items()
    )
    return NetworkSummary(tuple(rows))


def _parts(net: UNet) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network with their names; of lists, each member."""
    for name, part in net.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{level}", member) for level, member in enumerate(part))
        else:
            yield name, part


def _record(outputs: dict[str, tuple[int, ...]], name: str) -> Callable[..., None]:
    """Return a hook that records the shape of a part's output."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs[name] = tuple(output.shape)

    return hook


def format_summary(spec: ModelSpec, click: Mapping[str, Any] | None = None) -> str:
    """Format a network's summary as a table, with receptive field and tile grid below.

    Parameters
    ----------
    click
        The entry `click` of the model's card: its networks follow the total, with what each is for.
    """
    whole = summarise_network(spec)
    parts = [(r.name, str(r.channels), _resolution(r.scale), *_costs(r)) for r in whole.rows]
    for_clicks = _click_networks(spec, click or {})
    others = [(name, "", "", f"{weights:,}", "") for name, weights, _ in for_clicks]
    table = align([HEADINGS, *parts, ("total", "", "", *_costs(whole)), *others])
    rule = "-" * len(table[0])
    end = 1 + len(parts)
    axes = "y, x" if spec.ndim == 2 else "z, y, x"
    seen = ", ".join(map(str, receptive_field(spec)))
    grid = ", ".join(map(str, spec.stride))
    return "\n".join(
        [
            table[0],
            rule,
            *table[1:end],
            rule,
            *table[end:],
            *(f"The {name} {purpose}." for name, _, purpose in for_clicks),
            f"Each pixel is decided by the pixels up to ({seen}) away ({axes}).",
            f"Tiles lie on a grid of ({grid}) pixels.",
        ]
    )


def _click_networks(spec: ModelSpec, click: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return name, number of weights and purpose of the networks that answer clicks."""
    found: list[tuple[str, nn.Module, str]] = []
    with torch.device("meta"):
        if "spec" in click:
            head = ClickHead(spec, ModelSpec.from_json(click["spec"]))
            found.append(("click head", head, "finds a clicked object in the features above"))
        if "refiner" in click:
            refiner = Refiner(ModelSpec.from_json(click["refiner"]["spec"]))
            purpose = (
                "sharpens the outlines of large clicked objects, at the resolution of the image"
            )
            found.append(("refiner", refiner, purpose))
    return [(name, sum(p.numel() for p in net.parameters()), use) for name, net, use in found]


def _resolution(scale: tuple[int, ...]) -> str:
    """Format a part's resolution along each axis as a share of the input's."""
    return " x ".join("1" if s == 1 else f"1/{s}" for s in scale)


def _costs(entry: PartSummary | NetworkSummary) -> tuple[str, str]:
    """Format parameters and operations with separated thousands."""
    return f"{entry.parameters:,}", f"{entry.flops:,.0f}"
