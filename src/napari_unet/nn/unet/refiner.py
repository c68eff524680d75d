"""The refiner: from the click head's answer and the image itself to a sharper outline.

The click head works at the trunk's scale, at which a typical object is some 22 pixels wide: arms of
a neuron are two or three pixels there. The refiner looks at the whole object up to four times as
fine, at nothing but the image, the clicks and the click head's logit, and corrects that. It knows
no features of the trunk, so that it outlives a tuning of it.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.net import UNet, fold
from napari_unet.nn.unet.prompts import Prompts, nearness

BLOCK = 2
"""The network works on blocks of so many pixels along each axis: four times as fast."""
INPUTS = 2 * BLOCK**2 + 4
"""Logit and image for each pixel of a block; and nearness of clicks."""
LIMIT = 8.0
"""Logits of the click head beyond it are taken for it: their size says no more."""
SCALE = 4.0
"""Logits are divided by it, so that all inputs are of about the same size."""


def refiner_spec() -> ModelSpec:
    """Return the spec of a refiner's network: 250,000 weights."""
    return ModelSpec(
        in_channels=INPUTS,
        head="semantic",
        classes=BLOCK**2,
        depth=4,
        width=16,
        max_width=48,
        skip="add",
        up="linear",
    )


class Refiner(nn.Module):
    """Corrects the logit of an object in a plane; as long as it is untrained, by nothing.

    Parameters
    ----------
    spec
        Of its U-Net; `refiner_spec` if not given.
    """

    def __init__(self, spec: ModelSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or refiner_spec()
        self.net = UNet(self.spec)
        nn.init.zeros_(self.net.head.weight)

    def forward(self, logit: Tensor, image: Tensor, prompts: Prompts) -> Tensor:
        """Return the corrected logit, float32 (N, Y, X).

        Parameters
        ----------
        logit
            float32 (N, Y, X): the click head's, enlarged.
        image
            float32 (N, Y, X): the normalised image's mean over its channels.
        prompts
            Clicks in these pixels; the previous mask is not looked at.
        """
        size = logit.shape[1:]
        beyond = (0, -size[1] % BLOCK, 0, -size[0] % BLOCK)
        coarse = F.pad(logit[:, None].clamp(-LIMIT, LIMIT), beyond, mode="replicate")
        seen = F.pad(image[:, None].clamp(-2, 3), beyond, mode="replicate")
        blocks = F.pixel_unshuffle(torch.cat((coarse / SCALE, seen), 1), BLOCK)
        places = (prompts.places + 0.5) / BLOCK - 0.5
        near = nearness(replace(prompts, places=places), blocks.shape[2:])
        inputs = torch.cat((blocks, near), 1)
        change = self.net(inputs.contiguous(memory_format=torch.channels_last))
        fine = coarse + F.pixel_shuffle(change.float(), BLOCK)
        return fine[:, 0, : size[0], : size[1]]

    def ready(self) -> Refiner:
        """Return a copy that runs fast, its BatchNorm folded; not for storing or training."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.net = fold(self.net).requires_grad_(False)
        fast: Refiner = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fast
