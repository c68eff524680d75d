"""Losses of the heads, each masked by what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from napari_unet.core.spec import ModelSpec


def head_loss(spec: ModelSpec, raw: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return the loss of a head's raw maps.

    Parameters
    ----------
    spec
        Names the head.
    raw
        The network's answer, (N, K, [Z,] Y, X).
    targets
        The head's targets, of the same shape.
    known
        (N, 1, [Z,] Y, X); pixels at 0 weigh nothing.

    Returns
    -------
    Tensor
        A scalar; 0 with a gradient where nothing is known.
    """
    if spec.head == "semantic":
        return masked_mean(-(targets * F.log_softmax(raw, 1)).sum(1, keepdim=True), known)
    return instance_loss(raw, targets, known)


def instance_loss(raw: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return cross-entropy and Dice loss of the foreground plus the error of the distance map.

    The distance counts three times inside objects: the background's zero is easy and its area is
    large.
    """
    foreground = targets[:, :1]
    entropy = F.binary_cross_entropy_with_logits(raw[:, :1], foreground, reduction="none")
    distance = F.smooth_l1_loss(raw[:, 1:], targets[:, 1:], reduction="none", beta=0.1)
    weight = 1 + 2 * foreground
    return (
        masked_mean(entropy, known)
        + 0.5 * dice_loss(torch.sigmoid(raw[:, :1]), foreground, known)
        + 2.0 * masked_mean(weight * distance, known)
    )


def dice_loss(probability: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return 1 - Dice over the known pixels of the whole batch (Milletari et al. 2016)."""
    overlap = (probability * target * known).sum()
    size = ((probability + target) * known).sum()
    return 1 - (2 * overlap + 1) / (size + 1)


def masked_mean(values: Tensor, known: Tensor) -> Tensor:
    """Average over the known pixels."""
    return (values * known).sum() / known.expand_as(values).sum().clamp(min=1)
