"""Times that can be compared, and what they depend on.

They are taken in turns in one run, and of several the shortest counts: whatever else the computer
does only ever makes a time longer.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from napari_unet.nn.model import Model

Task = Callable[[], object]


def best_times(tasks: Mapping[str, Task], repeats: int, device: torch.device) -> dict[str, float]:
    """Run tasks in turns; return the shortest time of each, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            _synchronise(device)
            began = time.perf_counter()
            task()
            _synchronise(device)
            times[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in times.items()}


def describe_machine(model: Model) -> dict[str, Any]:
    """Return what the times depend on: processor, device, threads, torch, precision, model."""
    device = model.device
    cuda = device.type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(device) if cuda else processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": str(device),
        "precision": model.choose_precision(),
        "model": model.name,
        "model_hash": model.card.hash,
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()


def _synchronise(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
