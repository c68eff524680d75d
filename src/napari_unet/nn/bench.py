"""How fast this computer is: image to labels, beside the bare network and MONAI's inference."""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from napari_unet.core.errors import ModelError, UnetError
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import Model, load_model, pick_device
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.onnx_runtime import DEVICE as ONNX_DEVICE
from napari_unet.nn.inference.onnx_runtime import OnnxNet, choose_provider
from napari_unet.nn.inference.runner import Runner
from napari_unet.nn.inference.segment import segment
from napari_unet.nn.inference.tile_runner import open_tile_runner
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from napari_unet.nn.inference.tile_runner import TileRunner


Report = Callable[[str], object]

FRAMES_GOAL = {"cpu": {256: 15, 512: 5, 1024: 1}, "cuda": {256: 100, 512: 60, 1024: 20}}
"""Frames a second from image to labels that squares of so many pixels should reach."""
FORWARD_GOAL = 0.85
"""Share of the bare network's throughput that tiled prediction should reach."""
MONAI_GOAL = 4.0
"""How many times faster than MONAI's sliding window it should be, as MONAI's users run it (float32,
the plain network), where the processor multiplies bfloat16 ..."""
MONAI_FUSED_GOAL = 2.0
"""... and if MONAI's window runs our fast network in our number format."""
SPEC = ModelSpec(in_channels=3, depth=4, width=16, skip="add")
"""The shipped model's; its speed does not depend on the weights."""
SPEC_3D = ModelSpec(ndim=3, in_channels=1, depth=3, width=16, skip="add")


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes
    ----------
    sizes
        Edge lengths of the squares that are segmented.
    large
        Edge length of the square that is predicted in tiles.
    edges
        Edge lengths of a single tile; the bare network is timed with the fastest of them.
    window, batches
        MONAI's window, and numbers of windows at once; it is timed with the fastest of them.
    repeats
        How often each task is timed; the shortest time counts.
    volume
        Shape of the volume that a 3D model segments, None for none.
    """

    sizes: tuple[int, ...] = (256, 512, 1024)
    large: int = 2048
    edges: tuple[int, ...] = (512, 1024, 2048)
    window: int = 512
    batches: tuple[int, ...] = (1, 4)
    repeats: int = 2
    volume: tuple[int, int, int] | None = None


QUICK = Plan()
FULL = Plan(repeats=5, volume=(48, 192, 192))


def run_bench(
    quick: bool,
    report: Report,
    *,
    plan: Plan | None = None,
    model: Model | None = None,
) -> dict[str, Any]:
    """Measure this computer.

    Parameters
    ----------
    quick
        Take about two minutes on two slow cores; otherwise repeat more, and run a 3D model.
    report
        Called with each result as a line of text.
    plan
        What to measure instead of what `quick` chooses.
    model
        What to run instead of the shipped nuclei model (random weights where that is missing).

    Returns
    -------
    dict
        Plain JSON values: ``machine``, ``frames`` (a list, one entry a size), ``tiled`` and
        ``monai``, ``onnx``, ``volume``, ``seconds``. What was left out is None.
    """
    began = time.perf_counter()
    plan = plan or (QUICK if quick else FULL)
    model = model or _shipped()
    machine = describe_machine(model)
    report(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}; model "
        f"{machine['model']} on {machine['device']}, {machine['precision']}"
    )
    results: dict[str, Any] = {"quick": quick, "machine": machine, "frames": []}
    for size in plan.sizes:
        results["frames"].append(_frames(model, (size, size), plan.repeats, report))
    results["onnx"] = _onnx(model, plan, report)
    results |= _tiled(model, plan, report)
    results["volume"] = None
    if plan.volume:
        results["volume"] = _frames(
            stand_in(SPEC_3D, str(model.device)), plan.volume, plan.repeats, report
        )
    results["seconds"] = round(time.perf_counter() - began, 1)
    return results


def stand_in(spec: ModelSpec = SPEC, device: str = "auto") -> Model:
    """Return a model with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(spec)
    target = pick_device(device)
    # Run in the format that a trained model would: random maps have no objects that could agree.
    card = ModelCard(name="random weights", spec=spec, metrics={"bfloat16_dice": 1.0})
    return Model(card, net.to(target).eval(), target)


def tile_runner(
    model: Model, image: np.ndarray, settings: PredictSettings | None = None
) -> TileRunner:
    """Return the runner of an image."""
    settings = settings or PredictSettings()
    return open_tile_runner(model, open_frame(open_stack(image), model, settings, ()), settings)


def _shipped() -> Model:
    try:
        return load_model("nuclei")
    except ModelError:
        return stand_in()


def _frames(model: Model, shape: tuple[int, ...], repeats: int, report: Report) -> dict[str, Any]:
    """Measure one frame from image to labels, and how much of that network and decoding take."""
    image = blobs(shape)
    runner = tile_runner(model, image)
    inputs = [runner.frame.read(tile.read)[None] for tile in runner.plan()]
    tensors = [torch.from_numpy(values) for values in inputs]
    maps = predict(image, model)
    tasks: dict[str, Task] = {
        "all": lambda: segment(image, model),
        "network": lambda: [runner.runner(values).cpu() for values in tensors],
        "decoding": lambda: decode_instances(maps, model.decoding),
    }
    best_times(tasks, 1, model.device)
    times = best_times(tasks, 2 * repeats, model.device)
    goal = FRAMES_GOAL.get(model.device.type, {}).get(shape[0]) if len(shape) == 2 else None
    entry = {
        "shape": list(shape),
        "frames_per_s": 1 / times["all"],
        "goal": goal,
        "mpx_per_s": image.size / 1e6 / times["all"],
        "network_share": times["network"] / times["all"],
        "decoding_share": times["decoding"] / times["all"],
    }
    aim = f" (goal {goal})" if goal else ""
    report(
        f"image to labels, {' x '.join(map(str, shape))}: {entry['frames_per_s']:.2f} frames/s"
        f"{aim}; network {entry['network_share']:.0%}, decoding {entry['decoding_share']:.0%}"
    )
    return entry


def _tiled(model: Model, plan: Plan, report: Report) -> dict[str, Any]:
    """Compare tiled prediction with the bare network and with MONAI, in turns."""
    image, device = blobs((plan.large, plan.large)), model.device
    # With the objects' size given, it does what MONAI does: no scale trials before the run.
    settings = PredictSettings(diameter=model.diameter, survey=False)
    runner = tile_runner(model, image)
    frame = tuple(slice(0, size) for size in runner.frame.shape)
    values = torch.from_numpy(runner.frame.read(frame)[None])
    best_edge = _best_edge(runner, values, plan.edges)
    piece = values[..., :best_edge, :best_edge]
    tasks: dict[str, Task] = {
        "tiled": lambda: predict(image, model, settings),
        "forward": lambda: runner.runner(piece),
    }
    slide = sliding_window(model, plan.window, model.net)
    fused = sliding_window(model, plan.window, runner.runner)
    batch = 0
    if slide and fused:
        # A strip of four windows, which overlap by a quarter, is enough to choose the batch.
        strip = values[..., : plan.window, : plan.window * 13 // 4]
        probes = {str(n): partial(slide, strip, n) for n in plan.batches}
        found = best_times(probes, 1, device)
        batch = int(min(found, key=lambda n: found[n]))
        tasks |= {"monai": lambda: slide(values, batch), "fused": lambda: fused(values, batch)}
    times = best_times(tasks, plan.repeats, device)
    rates = {
        name: (piece[0, 0].numel() if name == "forward" else image.size) / 1e6 / seconds
        for name, seconds in times.items()
    }
    return {
        "tiled": _against_forward(rates, plan.large, runner.edge, best_edge, report),
        "monai": _against_monai(rates, batch, report),
    }


def _onnx(model: Model, plan: Plan, report: Report) -> dict[str, Any] | None:
    """Compare ONNX Runtime with torch on one tile, in turns; None where it is not installed."""
    try:
        provider = choose_provider(ONNX_DEVICE)
        net = OnnxNet(model.to("cpu").net, model.card.hash, provider)
    except UnetError as error:
        report(f"ONNX Runtime is left out: {error}")
        return None
    edge = min(plan.edges)
    image = blobs((edge, edge))
    runner = tile_runner(model, image)
    values = torch.from_numpy(runner.frame.read(tuple(slice(0, n) for n in runner.frame.shape)))
    piece = values[None]
    torch_runner = model.runner("float32")
    onnx_runner = Runner(cast("UNet", net), torch.device("cpu"), torch.float32)
    tasks: dict[str, Task] = {
        "torch": lambda: torch_runner(piece),
        "onnx": lambda: onnx_runner(piece),
    }
    best_times(tasks, 1, model.device)
    times = best_times(tasks, plan.repeats, model.device)
    rates = {name: piece[0, 0].numel() / 1e6 / seconds for name, seconds in times.items()}
    report(
        f"ONNX Runtime ({provider}), one tile of {edge}: {rates['onnx']:.3g} MPx/s, torch with "
        f"float32 on {model.device}: {rates['torch']:.3g} MPx/s"
    )
    return {
        "provider": provider,
        "tile": edge,
        "mpx_per_s": rates["onnx"],
        "torch_mpx_per_s": rates["torch"],
        "ratio": rates["onnx"] / rates["torch"],
    }


def _best_edge(runner: TileRunner, values: Tensor, edges: tuple[int, ...]) -> int:
    """Return the edge length of the tile that the bare network runs fastest, per pixel."""
    fitting = [edge for edge in edges if edge <= min(values.shape[2:])] or [min(values.shape[2:])]
    tasks = {str(edge): partial(runner.runner, values[..., :edge, :edge]) for edge in fitting}
    times = best_times(tasks, 2, runner.runner.device)
    return min(fitting, key=lambda edge: times[str(edge)] / edge**2)


def sliding_window(
    model: Model, window: int, net: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, int], Tensor] | None:
    """Return MONAI's inference with a network; None without MONAI."""
    try:
        slide = importlib.import_module("monai.inferers").sliding_window_inference
    except ImportError:
        return None

    def run(values: Tensor, batch: int) -> Tensor:
        with torch.inference_mode():
            maps: Tensor = slide(
                values.to(model.device),
                (window,) * model.spec.ndim,
                batch,
                net,
                overlap=0.25,
                mode="gaussian",
            )
            return maps.cpu()

    return run


def _against_forward(
    rates: dict[str, float], size: int, edge: int, best_edge: int, report: Report
) -> dict[str, Any]:
    share = rates["tiled"] / rates["forward"]
    report(
        f"tiled, {size} x {size}: {rates['tiled']:.3g} MPx/s, {share:.0%} of the bare network's "
        f"{rates['forward']:.3g} MPx/s on a tile of {best_edge} (goal {FORWARD_GOAL:.0%})"
    )
    return {
        "shape": [size, size],
        "tile": edge,
        "mpx_per_s": rates["tiled"],
        "forward_tile": best_edge,
        "forward_mpx_per_s": rates["forward"],
        "share": share,
        "goal": FORWARD_GOAL,
    }


def _against_monai(rates: dict[str, float], batch: int, report: Report) -> dict[str, Any] | None:
    if "monai" not in rates:
        report("MONAI is not installed, nothing to compare with: pip install 'napari-unet[bench]'")
        return None
    ratio = rates["tiled"] / rates["monai"]
    report(
        f"MONAI's sliding_window_inference, {batch} windows at once: {rates['monai']:.3g} MPx/s; "
        f"tiled prediction is {ratio:.1f} x as fast (goal {MONAI_GOAL:g} x with bfloat16 on a CPU)"
    )
    fused = rates["tiled"] / rates["fused"]
    report(
        f"with the same fast network in MONAI's window: {rates['fused']:.3g} MPx/s; tiled "
        f"prediction is {fused:.1f} x as fast (goal {MONAI_FUSED_GOAL:g} x)"
    )
    return {
        "mpx_per_s": rates["monai"],
        "sw_batch_size": batch,
        "ratio": ratio,
        "goal": MONAI_GOAL,
        "fused_mpx_per_s": rates["fused"],
        "fused_ratio": fused,
        "fused_goal": MONAI_FUSED_GOAL,
    }


Task = Callable[[], object]


def best_times(
    tasks: Mapping[str, Task],
    repeats: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Run tasks in turns; return the shortest time of each, in seconds of a clock."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            _synchronise(device)
            began = clock()
            task()
            _synchronise(device)
            times[name].append(clock() - began)
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
