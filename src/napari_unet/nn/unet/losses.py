"""Losses of the heads, over the known pixels."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec


def head_loss(
    spec: ModelSpec, raw: Tensor, targets: Tensor, known: Tensor, focal: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a head's raw maps, and the terms that it is the sum of.

    Parameters
    ----------
    spec
        Names the head.
    raw
        The network's answer, (N, K, [Z,] Y, X).
    targets
        The head's targets, of the same shape.
    known
        Weights of the pixels, (N, 1, [Z,] Y, X), 0 for unknown ones. If there are two channels, the
        first is for an instance head's foreground, the second for its distance.
    focal
        Focusing of the cross-entropy, gamma in Lin et al. 2017; 0 is plain cross-entropy.

    Returns
    -------
    loss, terms
        A scalar, 0 with a gradient if nothing is known, and the weighted scalars by name.
    """
    compute_terms = semantic_loss if spec.head == "semantic" else instance_loss
    terms = compute_terms(raw, targets, known, focal)
    return reduce(torch.add, terms.values()), terms


def semantic_loss(
    raw: Tensor, targets: Tensor, known: Tensor, focal: float = 0.0
) -> dict[str, Tensor]:
    """Return cross-entropy and the classes' mean Dice loss."""
    log_probability = F.log_softmax(raw, 1)
    entropy = -(targets * log_probability).sum(1, keepdim=True)
    dice = [
        dice_loss(probability, target, known[:, 0])
        for probability, target in zip(
            log_probability.exp().unbind(1), targets.unbind(1), strict=True
        )
    ]
    return {
        "entropy": masked_mean(focus(entropy, focal), known),
        "dice": 0.5 * torch.stack(dice).mean(),
    }


def instance_loss(
    raw: Tensor, targets: Tensor, known: Tensor, focal: float = 0.0
) -> dict[str, Tensor]:
    """Return cross-entropy and Dice loss of the foreground, and the error of the distance map.

    The distance counts three times inside objects: in the large background, 0 is easy to predict.
    """
    foreground = targets[:, :1]
    entropy = F.binary_cross_entropy_with_logits(raw[:, :1], foreground, reduction="none")
    distance = F.smooth_l1_loss(raw[:, 1:], targets[:, 1:], reduction="none", beta=0.1)
    weight = 1 + 2 * foreground
    return {
        "entropy": masked_mean(focus(entropy, focal), known[:, :1]),
        "dice": 0.5 * dice_loss(torch.sigmoid(raw[:, :1]), foreground, known[:, :1]),
        "distance": 2.0 * masked_mean(weight * distance, known[:, -1:]),
    }


def focus(entropy: Tensor, gamma: float) -> Tensor:
    """Weigh pixels by (1 - p) ** gamma, p being the right class's probability (Lin et al. 2017)."""
    if gamma == 0:
        return entropy
    # If p is rounded to 1, the gradient of a power below 1 would be infinite.
    return (1 - torch.exp(-entropy)).clamp(min=1e-6) ** gamma * entropy


def dice_loss(probability: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return 1 - Dice over the known pixels of the whole batch (Milletari et al. 2016)."""
    overlap = (probability * target * known).sum()
    size = ((probability + target) * known).sum()
    return 1 - (2 * overlap + 1) / (size + 1)


def masked_mean(values: Tensor, known: Tensor) -> Tensor:
    """Average over the known pixels."""
    return (values * known).sum() / known.expand_as(values).sum().clamp(min=1)
