"""The click head: from a trunk's features, clicks and a previous mask to the clicked object.

It is a small U-Net on a window of features that the automatic segmentation has computed already.
Its inputs include the similarity of each pixel to those at the clicks, in an embedding that is
learned with it: thereby it works on objects of kinds that the trunk was never trained on.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_unet.core.errors import ModelError
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.layers import CONV
from napari_unet.nn.unet.net import UNet, fold, out_channels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

EMBEDDING = 8
"""Channels of the embedding by which pixels are compared."""
SPOT, REACH = 2.0, 16.0
"""Widths of a click in its two maps, in pixels: a Gaussian spot, and an exponential slope."""
PROMPTS = 7
"""Number of prompt maps: spot, slope and similarity for either kind of click; previous mask."""


@dataclass(frozen=True)
class Prompts:
    """The prompts for a batch of N windows.

    Attributes
    ----------
    places
        float32 (N, M, ndim): clicks in the windows' pixels.
    signs
        float32 (N, M): 1 for a positive click, -1 for a negative one, 0 for none.
    previous
        float32 (N, 1, *spatial): probability of the previous mask, 0 without one.
    """

    places: Tensor
    signs: Tensor
    previous: Tensor

    @classmethod
    def from_clicks(
        cls,
        positive: Sequence[np.ndarray],
        negative: Sequence[np.ndarray],
        previous: Tensor,
    ) -> Prompts:
        """Pack the clicks of each window, float32 (n, ndim) for each kind."""
        ndim = previous.ndim - 2
        pairs = list(zip(positive, negative, strict=True))
        most = max((len(p) + len(n) for p, n in pairs), default=0)
        places = torch.zeros(len(pairs), max(1, most), ndim)
        signs = torch.zeros(len(pairs), max(1, most))
        for row, (plus, minus) in enumerate(pairs):
            count = len(plus) + len(minus)
            places[row, : len(plus)] = torch.from_numpy(plus)
            places[row, len(plus) : count] = torch.from_numpy(minus)
            signs[row, : len(plus)] = 1
            signs[row, len(plus) : count] = -1
        device = previous.device
        return cls(places.to(device), signs.to(device), previous)


def click_spec(spec: ModelSpec) -> ModelSpec:
    """Return the spec of a model's click head: 406,000 weights for a width of 16."""
    inputs = spec.width + 1 + out_channels(spec) + PROMPTS
    return ModelSpec(
        ndim=spec.ndim,
        in_channels=inputs,
        head="semantic",
        classes=2,
        depth=4,
        width=16,
        max_width=64,
        convs=2,
        skip="add",
        up="linear",
    )


class ClickHead(nn.Module):
    """Clicks and features in, the logit of the clicked object out.

    Parameters
    ----------
    model
        Spec of the model whose features it reads.
    spec
        Of its own U-Net; `click_spec` if not given.
    """

    def __init__(self, model: ModelSpec, spec: ModelSpec | None = None) -> None:
        super().__init__()
        self.model, self.spec = model, spec or click_spec(model)
        self.embed = CONV[model.ndim](self.spec.in_channels - PROMPTS, EMBEDDING, 1)
        self.net = UNet(self.spec)

    def forward(self, window: Tensor, maps: Tensor, prompts: Prompts) -> Tensor:
        """Return the object's logit, float32 (N, *spatial).

        Parameters
        ----------
        window
            float32 (N, width + 1, *spatial): features, and the image's mean over its channels.
        maps
            float32 (N, K, *spatial): the activated maps of the automatic head.
        prompts
            Clicks and previous mask.
        """
        seen = torch.cat((window, maps), 1)
        near = nearness(prompts, window.shape[2:])
        alike = similarity(_unit(self.embed(seen)), prompts)
        inputs = torch.cat((seen, near, alike, prompts.previous), 1)
        layout = torch.channels_last if self.model.ndim == 2 else torch.channels_last_3d
        both = self.net(inputs.contiguous(memory_format=layout))
        logit: Tensor = both[:, 1] - both[:, 0]
        return logit.float()

    def ready(self) -> ClickHead:
        """Return a copy that runs fast, its BatchNorm folded; not for storing or training."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.net = fold(self.net).requires_grad_(False)
        layout = torch.channels_last if self.model.ndim == 2 else torch.channels_last_3d
        fast: ClickHead = made.to(memory_format=layout)  # type: ignore[call-overload]
        return fast


def nearness(prompts: Prompts, shape: Sequence[int]) -> Tensor:
    """Draw clicks, float32 (N, 4, *shape): spot and slope, of positive then negative clicks."""
    squares = torch.zeros(*prompts.signs.shape, *shape, device=prompts.signs.device)
    ndim = len(shape)
    for axis, size in enumerate(shape):
        steps = torch.arange(size, device=squares.device)
        away = (steps - prompts.places[..., axis, None]) ** 2  # (N, M, size)
        squares += away.view(*away.shape[:2], *(size if a == axis else 1 for a in range(ndim)))
    drawn = []
    for sign in (1, -1):
        other = (prompts.signs != sign).view(*prompts.signs.shape, *(1,) * ndim)
        nearest = squares.masked_fill(other, torch.inf).amin(1)
        drawn += [torch.exp(-nearest / (2 * SPOT**2)), torch.exp(-nearest.sqrt() / REACH)]
    return torch.stack(drawn, 1)


def similarity(embedded: Tensor, prompts: Prompts) -> Tensor:
    """Compare pixels with the clicked ones, float32 (N, 2, *spatial) in [-1, 1].

    `embedded` are unit vectors (N, E, *spatial). The maps are the highest similarity to a positive
    and to a negative click; 0 without clicks of that kind.
    """
    flat = embedded.flatten(2)
    index = torch.zeros_like(prompts.signs, dtype=torch.long)
    for axis, size in enumerate(embedded.shape[2:]):
        index = index * size + prompts.places[..., axis].round().long().clamp(0, size - 1)
    clicked = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))  # (N, E, M)
    alike = clicked.transpose(1, 2) @ flat  # (N, M, pixels)
    found = []
    for sign in (1, -1):
        chosen = (prompts.signs == sign)[..., None]
        most = alike.masked_fill(~chosen, -1).amax(1)
        found.append(torch.where(chosen.any(1), most, 0))
    return torch.stack(found, 1).view(len(flat), 2, *embedded.shape[2:])


def _unit(values: Tensor) -> Tensor:
    """Scale (N, E, *spatial) to length 1 along E; many times faster than `F.normalize`."""
    scaled: Tensor = values.float()
    return scaled * (scaled.square().sum(1, keepdim=True) + 1e-8).rsqrt()


def activate(spec: ModelSpec, raw: Tensor) -> Tensor:
    """Activate raw maps (N, K, *spatial) as the head's `activate` does, on their device."""
    if spec.head == "instance":
        return torch.cat((raw[:, :1].sigmoid(), raw[:, 1:]), 1)
    return raw.softmax(1)


def build_click_head(
    model: ModelSpec, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> ClickHead:
    """Build a click head from a model card's entry and its weights.

    Raises
    ------
    ModelError
        The weights do not fit.
    """
    try:
        spec, usual = ModelSpec.from_json(entry["spec"]), click_spec(model)
        if (spec.ndim, spec.in_channels) != (usual.ndim, usual.in_channels):
            raise KeyError("in_channels")
        with torch.device("meta"):  # a card may describe a head that no memory could hold
            size = sum(value.numel() for value in ClickHead(model, spec).parameters())
        if size > sum(value.numel() for value in tensors.values()):
            raise KeyError("weights")
        head = ClickHead(model, spec)
        head.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            "The weights of the click head do not fit the model's card; the folder is damaged, "
            "import or train the model again."
        ) from error
    return head.eval()
