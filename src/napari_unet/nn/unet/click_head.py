"""The click head: from a trunk's features, clicks and a previous mask to the clicked object.

It is a small U-Net on a window of features that the automatic segmentation has computed already.
Its inputs include the similarity of each pixel to those at the clicks, in an embedding that is
learned with it: thereby it works on objects of kinds that the trunk was never trained on.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_unet.core.errors import ModelError
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.layers import CONV
from napari_unet.nn.unet.net import UNet, fold, out_channels
from napari_unet.nn.unet.prompts import PROMPTS, Prompts, nearness, similarity
from napari_unet.nn.unet.refiner import Refiner, refiner_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

EMBEDDING = 8
"""Channels of the embedding by which pixels are compared."""


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
    refiner
        What makes the outlines of its answers sharper, where they are wanted in the image's own
        pixels; planes only.
    """

    def __init__(
        self, model: ModelSpec, spec: ModelSpec | None = None, refiner: Refiner | None = None
    ) -> None:
        super().__init__()
        self.model, self.spec = model, spec or click_spec(model)
        self.refiner = refiner
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
        made.refiner = self.refiner.ready() if self.refiner else None
        layout = torch.channels_last if self.model.ndim == 2 else torch.channels_last_3d
        fast: ClickHead = made.to(memory_format=layout)  # type: ignore[call-overload]
        return fast

    def with_refiner(self, refiner: Refiner | None) -> ClickHead:
        """Return the same head, its weights shared, with another refiner or without one."""
        made = ClickHead(self.model, self.spec, refiner)
        made.embed, made.net = self.embed, self.net
        return made.train(self.training)

    def card_entry(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model card's entry `click`: what is known of the head, and its specs."""
        entry = {**known, "spec": self.spec.to_json()}
        refiner = entry.pop("refiner", {})
        if self.refiner:
            entry["refiner"] = {**refiner, "spec": self.refiner.spec.to_json()}
        return entry


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
        refined = ModelSpec.from_json(entry["refiner"]["spec"]) if "refiner" in entry else None
        if refined and (model.ndim != 2 or _ends(refined) != _ends(refiner_spec())):
            raise KeyError("refiner")
        with torch.device("meta"):  # a card may describe a head that no memory could hold
            parts = [ClickHead(model, spec), *([Refiner(refined)] if refined else [])]
        size = sum(value.numel() for part in parts for value in part.parameters())
        if size > sum(value.numel() for value in tensors.values()):
            raise KeyError("weights")
        head = ClickHead(model, spec, Refiner(refined) if refined else None)
        head.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            "The weights of the click head do not fit the model's card; the folder is damaged, "
            "import or train the model again."
        ) from error
    return head.eval()


def _ends(spec: ModelSpec) -> tuple[int, int, str, int]:
    """Return what a network reads and writes."""
    return spec.ndim, spec.in_channels, spec.head, spec.classes
