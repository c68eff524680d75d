"""The state of a training, and the file that it is resumed from."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.io.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from napari_unet.core.settings.tasks import TrainSettings
    from napari_unet.nn.unet.net import UNet


@dataclass
class TrainState:
    """Everything that a training needs to be resumed.

    Everything random follows from seed and step, so no random generator's state is kept.

    Attributes
    ----------
    net
        The network, trained in place.
    average
        Moving average of its weights and statistics: the result of a training.
    optimizer
        With its moments of the gradients.
    step, seconds
        Steps taken, and seconds spent.
    history
        Loss and scores of every validation.
    best, best_score
        The averaged weights with the best validation score, and the score; None before the first.
    """

    net: UNet
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_score: float | None = None

    @classmethod
    def start(cls, net: UNet, settings: TrainSettings) -> TrainState:
        """Begin a training of `net`, which is trained in place."""
        # Weight decay is for the kernels, not for biases and BatchNorm.
        decayed = [p for p in net.parameters() if p.ndim > 1]
        plain = [p for p in net.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate or 0.0,  # `train` sets it in every step
            fused=next(net.parameters()).device.type in ("cpu", "cuda"),  # in one pass
        )
        return cls(net, _copied(net.state_dict()), optimizer)

    def averaged_net(self) -> UNet:
        """Return a copy of the network with the averaged weights, in evaluation mode."""
        return self._net_of(self.average)

    def best_net(self) -> UNet:
        """Return a copy with the best averaged weights, or the last ones without validation."""
        return self._net_of(self.average if self.best is None else self.best)

    def keep_best(self, scores: Mapping[str, float]) -> None:
        """Keep the averaged weights if their first score is higher than all before."""
        score = next(iter(scores.values()), float("nan"))
        if score > (float("-inf") if self.best_score is None else self.best_score):
            self.best, self.best_score = _copied(self.average), float(score)

    def _net_of(self, weights: dict[str, Tensor]) -> UNet:
        net = copy.deepcopy(self.net)
        net.load_state_dict(weights)
        return net.eval()


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write weights, averages, optimizer and counters into one safetensors file, atomically.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    from safetensors.torch import save

    tensors = {f"net/{k}": v for k, v in state.net.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in state.average.items()}
    tensors |= {f"best/{k}": v for k, v in (state.best or {}).items()}
    for number, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{slot}": value for slot, value in slots.items()}
    notes = {
        "step": state.step,
        "seconds": state.seconds,
        "history": state.history,
        "best_score": state.best_score,
    }
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_file(path) as partial:
        partial.write_bytes(save(contiguous, metadata={"state": json.dumps(notes)}))


def load_checkpoint(state: TrainState, path: Path) -> None:
    """Bring a fresh state to where `save_checkpoint` left off.

    Raises
    ------
    ModelError
        The file is no checkpoint of this network.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            notes = json.loads(file.metadata()["state"])
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "average": {}, "best": {}}
        parts["optimizer"] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        state.net.load_state_dict(parts["net"])
        for name, value in state.average.items():  # in place: they stay on the network's device
            value.copy_(parts["average"][name])
        state.best = None
        if parts["best"]:
            state.best = {k: parts["best"][k].to(v.device) for k, v in state.average.items()}
        trained = [p for group in state.optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, slot = name.split("/")
            slots.setdefault(int(number), {})[slot] = _laid_out(value, trained[int(number)])
        whole = state.optimizer.state_dict()
        state.optimizer.load_state_dict({**whole, "state": slots})
        state.step, state.seconds = notes["step"], notes["seconds"]
        state.history, state.best_score = notes["history"], notes.get("best_score")
    except Exception as error:  # torch's own, of any type: the file holds another network's state
        raise ModelError(
            f"{path} cannot be resumed from ({error}); give the checkpoint of a training of the "
            "same network, or start again without it."
        ) from error


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """Return a moment in the memory layout of its weights: a fused optimizer takes it for granted.

    A file holds tensors in the order of their axes, networks have their channels last.
    """
    if value.shape != like.shape:  # the count of steps
        return value
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
