"""Write a wider copy of a 2D model, which finds the same before it is trained further.

    python scripts/widen_model.py general --width 24 --out RUN/start
    python scripts/train_general.py DATA --out RUN --start RUN/start --freeze-after 0 --minutes 60

The channels that are new begin as copies of others; what reads a channel that was copied takes a
random share of the original and the rest of the copy, so that they do not stay alike (Chen et al.
2016, Net2Net, arXiv:1511.05641). The click head, which reads the old channels, is left out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from napari_unet.nn.inference.model import Model, load_model, save_model
from napari_unet.nn.unet.net import UNet

SHARES = 0.1, 0.9
"""Between which the original's share lies."""


def widen(model: Model, width: int, seed: int = 0) -> Model:
    """Return a model of another `width`, up to twice the old one, that computes the same."""
    spec = replace(model.spec, width=width)
    net, random = UNet(spec), torch.Generator().manual_seed(seed)
    before, after = model.net.state_dict(), {}
    for name, new in net.state_dict().items():
        value = before[name]
        if value.ndim:
            # Transposed convolutions keep what they read first, and what they write second.
            out, read = (1, 0) if name.startswith("ups.") else (0, 1)
            value = copied(value, out if value.ndim > 1 else 0, new)
            if value.ndim > 1:
                value = shared(value, read, new, random)
        after[name] = value
    net.load_state_dict(after)
    card = model.card.replace(spec=spec, click={}, parent=model.card.hash or None, hash="")
    return replace(model, card=card, net=net.eval(), click=None, folder=None, _runners={})


def copied(value: torch.Tensor, axis: int, new: torch.Tensor) -> torch.Tensor:
    """Lengthen an axis to that of `new` by a copy of its first entries."""
    more = new.shape[axis] - value.shape[axis]
    return torch.cat([value, value.narrow(axis, 0, more)], axis) if more else value


def shared(
    value: torch.Tensor, axis: int, new: torch.Tensor, random: torch.Generator
) -> torch.Tensor:
    """Lengthen the axis of what is read, and divide the weights of what is there twice."""
    length = value.shape[axis]
    more = new.shape[axis] - length
    if not more:
        return value
    value = copied(value, axis, new).clone()
    first, second = value.narrow(axis, 0, more), value.narrow(axis, length, more)
    share = torch.rand(first.shape[:2], generator=random).reshape(*first.shape[:2], 1, 1)
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * share
    first.mul_(share)
    second.mul_(1 - share)
    return value


def main() -> None:
    """Widen the model that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = load_model(args.model, "cpu")
    old = model.spec.width
    if not old <= args.width <= 2 * old:
        parser.error(f"--width is {args.width}; the model has {old}: give {old} to {2 * old}.")
    save_model(widen(model, args.width), args.out)


if __name__ == "__main__":
    main()
