"""New models, new heads on trained trunks, and frozen parts of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.inference.model import Model, pick_device
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from torch import Tensor

INSTANCE = "instance"


def fresh_model(spec: ModelSpec, name: str = "new", device: str = "auto", seed: int = 0) -> Model:
    """Build a model with random weights.

    Raises
    ------
    DeviceError
        The device is unknown or not available.
    """
    torch.manual_seed(seed)
    target = pick_device(device)
    return Model(ModelCard(name, spec), UNet(spec).to(target).eval(), target)


def fresh_spec(
    ndim: int = 2,
    channels: int = 3,
    classes: int | None = None,
    depth: int | None = None,
    width: int = 16,
    voxel_size_um: tuple[float, float, float] | None = None,
) -> ModelSpec:
    """Return the spec of a network from scratch.

    Parameters
    ----------
    classes
        Of a semantic head, background included; None: an instance head.
    depth
        Number of poolings; None: 4 for planes, 3 for volumes.
    voxel_size_um
        (z, y, x) of volumes: they are pooled along z as soon as voxels are as long in y as in z;
        until then kernels are flat, too.
    """
    if depth is None:
        depth = 4 if ndim == 2 else 3
    pooling = _pooling(depth, voxel_size_um) if ndim == 3 else None
    return ModelSpec(
        ndim=ndim,
        in_channels=channels,
        head=INSTANCE if classes is None else "semantic",
        classes=1 if classes is None else classes,
        depth=depth,
        width=width,
        skip="add",
        pooling=pooling,
        kernels=None if pooling is None else _kernels(pooling),
    )


def _pooling(
    depth: int, voxel_size_um: tuple[float, float, float] | None
) -> tuple[tuple[int, ...], ...] | None:
    if voxel_size_um is None:
        return None
    z, y = voxel_size_um[0], max(voxel_size_um[1:])
    levels = []
    for _ in range(depth):
        factor = 2 if z < 1.5 * y else 1
        levels.append((factor, 2, 2))
        z, y = z * factor, y * 2
    return tuple(levels)


def _kernels(pooling: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...] | None:
    """Return flat kernels for levels that are not pooled along z; None if there are none."""
    flat = tuple((1, 3, 3) if level[0] == 1 else (3, 3, 3) for level in pooling)
    return (*flat, (3, 3, 3)) if (1, 3, 3) in flat else None


def transfer_head(model: Model, classes: int | None, channels: int | None = None) -> Model:
    """Put a new head on a model's trunk; the trunk keeps its weights.

    Parameters
    ----------
    classes
        Of a semantic head, background included; None: an instance head.
    channels
        Of the images; None: as before. The first layer's weights are spread evenly over them.

    Returns
    -------
    Model
        The model itself if nothing changes.
    """
    spec = replace(
        model.spec,
        head=INSTANCE if classes is None else "semantic",
        classes=1 if classes is None else classes,
        in_channels=channels or model.spec.in_channels,
    )
    if spec == model.spec:
        return model
    weights = model.net.state_dict()
    net = UNet(spec)
    own = net.state_dict()
    for name, value in weights.items():
        if name.startswith("head.") and (spec.head, spec.classes) != (
            model.spec.head,
            model.spec.classes,
        ):
            continue
        own[name] = _spread_channels(value, own[name])
    net.load_state_dict(own)
    # Decoding, scores and rehearsal labels belong to the head before.
    training = {name: value for name, value in model.card.training.items() if name != "rounds"}
    card = model.card.replace(spec=spec, training=training, decode={}, metrics={}, replay="")
    return Model(card, net.to(model.device).eval(), model.device)


def freeze(net: UNet, what: str) -> None:
    """Freeze a part of a network: "nothing", "encoder" or "all but the head"."""
    for name, value in net.named_parameters():
        part = name.partition(".")[0]
        if what == "encoder":
            frozen = part in ("encoder", "pools", "bottleneck")
        else:
            frozen = what == "all but the head" and part != "head"
        value.requires_grad_(not frozen)


def _spread_channels(value: Tensor, wanted: Tensor) -> Tensor:
    """Spread the first layer's weights over another number of channels; their sum stays."""
    if value.shape == wanted.shape:
        return value
    if value.ndim != wanted.ndim or value.shape[0] != wanted.shape[0]:
        raise ModelError("The model's layers do not fit the new network.")
    total = value.sum(1, keepdim=True)
    return (total / wanted.shape[1]).expand_as(wanted).clone()
