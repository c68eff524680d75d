"""What a graphics card gives: tiles, number formats, graphs, copies, decoding, clicks, tuning.

    python benchmarks/gpu.py --json OUT                   # on a machine with a CUDA card
    python benchmarks/gpu.py --device cpu --size 256 --quick --json OUT     # as its test does

It needs torch, numpy, scipy, scikit-image and tifffile, and `src` on PYTHONPATH; nothing has to be
installed. It is to take less than six minutes: what would begin after --budget seconds is left out,
and named under `left_out`. Every part is timed in turns with what it is compared with, and a part
that fails is named with its error, while the others go on.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import napari_unet
from napari_unet.core.instances.watershed import find_basins
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.models.folder import WEIGHTS, read_card
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import plan_tiles
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.samples import Samples
from napari_unet.nn.bench import best_times, describe_machine, tile_runner
from napari_unet.nn.inference.decode import find_basins_on_device
from napari_unet.nn.inference.model import Model, pick_device
from napari_unet.nn.inference.runner import DTYPES
from napari_unet.nn.inference.segment import segment
from napari_unet.nn.inference.size_regression import SizeRegressor
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.training.checkpoint import TrainState
from napari_unet.nn.training.loop import LAYOUT, train
from napari_unet.nn.unet.click_head import build_click_head
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.utils.hooks import RemovableHandle

BUDGET_S = 330.0
COMPILE_S = 60.0
"""How long torch's compiler may take; without so much time left it is not tried."""
CPU_SHARE = 1024
"""Edge length of the piece that is also run on the processor, where labels are compared."""
DIAMETER = 22.0
WINDOW = 512
"""Edge length of the windows that a sliding window in MONAI's manner takes."""


def load_bundled(name: str, device: torch.device) -> Model:
    """Load a model of the package without safetensors: a header of JSON, and the numbers behind."""
    folder = Path(napari_unet.__file__).parent / "models" / name
    card, data = read_card(folder), (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"F16": np.float16, "F32": np.float32, "I64": np.int64}
    tensors = {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        values = np.frombuffer(body[start:stop], kinds[entry["dtype"]]).reshape(entry["shape"])
        values = values.astype(np.float32) if values.dtype == np.float16 else values.copy()
        tensors[key] = torch.from_numpy(values)
    clicks = {k.removeprefix("click/"): tensors.pop(k) for k in list(tensors) if "click/" in k}
    sizes = {k.removeprefix("size/"): tensors.pop(k).numpy() for k in list(tensors) if "size/" in k}
    net = UNet(card.spec)
    net.load_state_dict(tensors)
    head = build_click_head(card.spec, card.click, clicks).to(device) if clicks else None
    size = SizeRegressor.from_arrays(sizes, card.spec)
    return Model(card, net.to(device).eval(), device, click=head, size=size)


class Bench:
    """The parts, what they found, and the time that is left.

    Parameters
    ----------
    model
        On the device that is measured.
    size
        Edge length of the image.
    quick
        Everything tiny and once.
    budget
        Seconds after which no part begins.
    """

    def __init__(self, model: Model, size: int, *, quick: bool, budget: float) -> None:
        self.model, self.size, self.quick, self.budget = model, size, quick, budget
        self.device, self.cuda = model.device, model.device.type == "cuda"
        self.image = blobs((size, size))
        self.repeats = 1 if quick else 3
        self.formats = ["float32", "bfloat16"] + (["float16"] if self.cuda else [])
        self.format = "float16" if self.cuda else model.choose_precision()
        self.edge = min(1024, size)
        self.began = time.perf_counter()
        self.results: dict[str, Any] = {"left_out": [], "failed": {}}

    def settings(self, **changes: Any) -> PredictSettings:
        """Return settings of a run without a look at the size, with tiles of a fixed edge."""
        # A card gets the tiles that its memory is chosen for; a processor's would ask for psutil.
        tile = None if self.cuda else self.edge
        usual = {"diameter": DIAMETER, "survey": False, "tile": tile, "precision": self.format}
        return PredictSettings(**usual | changes)

    def time(self, **tasks: Callable[[], object]) -> dict[str, float]:
        """Warm tasks up, then run them in turns; return the shortest time of each in seconds."""
        best_times(tasks, 1, self.device)
        return best_times(tasks, self.repeats, self.device)

    def run(self) -> dict[str, Any]:
        """Run the parts in the order of what is least known."""
        parts: list[Callable[[], Any]] = [
            self.end_to_end, self.equality, self.tiles, self.tiled, self.planes, self.roofline,
            self.windows, self.overlap, self.decoding, self.click, self.tuning, self.graphs,
        ]  # fmt: skip
        for part in parts:
            name, began = part.__name__, time.perf_counter()
            if began - self.began > self.budget:
                self.results["left_out"].append(name)
                continue
            try:
                with self.memory() as peak:
                    found = part()
                self.results[name] = found
            except Exception as error:  # whatever it is, it must not cost the other parts
                self.results["failed"][name] = f"{type(error).__name__}: {error}"[:500]
                continue
            entry = {"seconds": round(time.perf_counter() - began, 1), **peak}
            self.results.setdefault("parts", {})[name] = entry
            sys.stderr.write(f"{name} {json.dumps(entry)} {json.dumps(found)[:600]}\n")
        self.results["seconds"] = round(time.perf_counter() - self.began, 1)
        return self.results

    @contextmanager
    def memory(self) -> Iterator[dict[str, float]]:
        """Fill in the most memory that the card had allocated."""
        peak: dict[str, float] = {}
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield peak
        if self.cuda:
            peak["peak_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)

    def pixels(self, batch: int, edge: int) -> Tensor:
        """Return tiles of the image as the network takes them, float32 (N, C, Y, X) on the host."""
        runner = tile_runner_of(self)
        edge = min(edge, *runner.frame.shape)
        tile = torch.from_numpy(runner.frame.read((slice(0, edge), slice(0, edge))))
        return tile[None].repeat(batch, 1, 1, 1)

    def end_to_end(self) -> dict[str, Any]:
        """Time pixels to objects, in each number format, and with the look at the size."""
        found: dict[str, Any] = {}
        tasks: dict[str, Callable[[], object]] = {
            name: lambda name=name: segment(self.image, self.model, self.settings(precision=name))
            for name in self.formats
        }
        tasks["size estimated"] = lambda: segment(
            self.image, self.model, self.settings(diameter=None)
        )
        for name, seconds in self.time(**tasks).items():
            found[name] = {"seconds": seconds, "mpx_per_s": self.image.size / 1e6 / seconds}
        return found

    def equality(self) -> dict[str, Any]:
        """Compare the labels of the device with those of the processor in float32."""
        edge = min(self.size, CPU_SHARE)
        piece = self.image[:edge, :edge]
        host = Model(self.model.card, UNet(self.model.spec).eval(), torch.device("cpu"))
        host.net.load_state_dict({k: v.cpu() for k, v in self.model.net.state_dict().items()})
        # The tile is given: to choose one for the processor takes psutil.
        wanted = segment(piece, host, self.settings(precision="float32", tile=edge))
        found: dict[str, Any] = {"objects": int(wanted.max())}
        for name in self.formats:
            labels = segment(piece, self.model, self.settings(precision=name))
            inside = [labels > 0, wanted > 0]
            both = 2 * (inside[0] & inside[1]).sum() / max(1, sum(part.sum() for part in inside))
            found[name] = {
                "equal": bool(np.array_equal(labels, wanted)),
                "equal_pixels": float((labels == wanted).mean()),
                "dice": float(both),
                "objects": int(labels.max()),
            }
        return found

    def tiles(self) -> list[dict[str, Any]]:
        """Time the bare network by number format, edge length and batch."""
        found = []
        edges = [self.edge] if self.quick else [256, 512, 1024, 2048]
        for name in self.formats:
            runner = self.model.runner(name)
            for edge in edges:
                for batch in [1] if self.quick else [1, 4, 16]:
                    if batch * edge**2 > 2**24:
                        continue
                    values = self.pixels(batch, edge)
                    entry = {"format": name, "edge": values.shape[-1], "batch": batch}
                    sent = runner._sent(values).contiguous(memory_format=LAYOUT[2])

                    def forward(sent: Tensor = sent, runner: Any = runner) -> Tensor:
                        # As the runner does: float32 is no TF32.
                        exactly = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
                        with torch.inference_mode(), exactly:
                            return runner.net(sent)  # type: ignore[no-any-return]

                    with self.memory() as peak:
                        times = self.time(
                            device=forward, host=lambda v=values, r=runner: r(v).cpu()
                        )
                    pixels = values[:, 0].numel() / 1e6
                    entry |= {f"{k}_mpx_per_s": pixels / t for k, t in times.items()} | peak
                    found.append(entry)
        return found

    def tiled(self) -> list[dict[str, Any]]:
        """Time prediction in tiles over the image, by edge length and batch."""
        sizes = [(self.edge, 1)] if self.quick else [(512, 4), (1024, 1), (1024, 4), (2048, 4)]
        found = []
        for edge, batch in sizes:
            ours = tile_runner(self.model, self.image, self.settings(tile=edge, batch=batch))
            with self.memory() as peak:
                times = self.time(run=lambda ours=ours: [0 for _ in ours.run(ours.plan())])
            rate = self.image.size / 1e6 / times["run"]
            found.append({"edge": edge, "batch": batch, "mpx_per_s": rate, **peak})
        return found

    def planes(self) -> list[dict[str, Any]]:
        """Time stacks of small planes to labels, by how many go through the network together."""
        found = []
        for edge in [64] if self.quick else [128, 256, 512]:
            stack = blobs((5 if self.quick else 64, edge, edge))
            batches = [1, 4, None] if self.quick else [1, 4, 16, 64, None]
            tasks = {
                "chosen" if batch is None else f"{batch} together": partial(
                    segment, stack, self.model, self.settings(volumes="planes", batch=batch)
                )
                for batch in batches
            }
            labels = [task() for task in tasks.values()]
            found.append(
                {
                    "edge": edge,
                    "equal": all(np.array_equal(one, labels[0]) for one in labels),
                    "planes_per_s": {k: len(stack) / t for k, t in self.time(**tasks).items()},
                }
            )
        return found

    def roofline(self) -> dict[str, Any]:
        """Measure what the card can do at most; count what the network asks of it for a pixel."""
        count = 2**20 if self.quick else 2**28
        block = torch.zeros(count, dtype=torch.float32, device=self.device)
        other = torch.empty_like(block)
        host = torch.zeros(count // 4, dtype=torch.float32, pin_memory=self.cuda)
        part = block[: host.numel()]
        n = 256 if self.quick else 8192
        square = torch.zeros(n, n, dtype=DTYPES[self.format], device=self.device)
        times = self.time(
            copy=lambda: other.copy_(block),
            upload=lambda: part.copy_(host, non_blocking=True),
            download=lambda: host.copy_(part, non_blocking=True),
            multiply=lambda: square @ square,
        )
        moved, work = network_cost(self.model.net, DTYPES[self.format].itemsize)
        rates = {
            "memory_gb_per_s": 8e-9 * count / times["copy"],
            "upload_gb_per_s": 1e-9 * count / times["upload"],
            "download_gb_per_s": 1e-9 * count / times["download"],
            "tflop_per_s": 2e-12 * n**3 / times["multiply"],
        }
        return rates | {
            "format": self.format,
            "bytes_per_px": moved,
            "flop_per_px": work,
            "memory_bound_mpx_per_s": 1e3 * rates["memory_gb_per_s"] / moved,
            "compute_bound_mpx_per_s": 1e6 * rates["tflop_per_s"] / work,
        }

    def windows(self) -> dict[str, Any]:
        """Compare tiles with a sliding window in MONAI's manner, plain and with our network."""
        runner = self.model.runner(self.format)
        whole = self.pixels(1, self.size)
        edge = min(WINDOW, self.size)
        plain = self.model.net

        def run_plain(tiles: Tensor) -> Tensor:
            with torch.inference_mode():
                return plain(tiles.to(self.device))  # type: ignore[no-any-return]

        ours = tile_runner_of(self)
        times = self.time(
            tiled=lambda: [raw.cpu() for _, raw in ours.run(ours.plan())],
            sliding_float32=lambda: slide(run_plain, whole, edge).cpu(),
            sliding_fused=lambda: slide(runner, whole, edge).cpu(),
        )
        found = {f"{k}_mpx_per_s": whole[0, 0].numel() / 1e6 / t for k, t in times.items()}
        found |= {f"over_{k}": times[k] / times["tiled"] for k in times if k != "tiled"}
        return found

    def graphs(self) -> dict[str, Any]:
        """Compare eager with a CUDA graph and torch.compile, on a tile that lies on the device."""
        runner = self.model.runner(self.format)
        sent = runner._sent(self.pixels(1, self.edge)).contiguous(memory_format=LAYOUT[2])
        tasks: dict[str, Callable[[], object]] = {}
        notes: dict[str, str] = {}

        def eager() -> Tensor:
            with torch.inference_mode():
                return runner.net(sent)

        tasks["eager"] = eager
        if self.cuda:
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                for _ in range(3):
                    eager()
            torch.cuda.current_stream(self.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph):
                runner.net(sent)
            tasks["graph"] = graph.replay
            try:
                if time.perf_counter() - self.began > self.budget - COMPILE_S:
                    raise TimeoutError("no time is left for the compiler")
                compiled = torch.compile(runner.net)
                with torch.inference_mode():
                    compiled(sent)
            except Exception as error:
                notes["compile"] = f"{type(error).__name__}: {error}"[:200]
            else:

                def fast() -> Tensor:
                    with torch.inference_mode():
                        return compiled(sent)  # type: ignore[no-any-return]

                tasks["compile"] = fast
        pixels = sent[0, 0].numel() / 1e6
        return {f"{k}_mpx_per_s": pixels / t for k, t in self.time(**tasks).items()} | notes

    def overlap(self) -> dict[str, float]:
        """Compare a run over the frame with its parts, one after the other."""
        ours = tile_runner_of(self)
        tiles = ours.plan()
        images = [torch.from_numpy(ours.frame.read(tile.read))[None] for tile in tiles]
        sent = [ours.runner._sent(image).contiguous(memory_format=LAYOUT[2]) for image in images]

        def compute() -> list[Tensor]:
            with torch.inference_mode():
                return [ours.runner.net(image).float() for image in sent]

        raw = compute()
        times = self.time(
            run=lambda: [maps for _, maps in ours.run(tiles)],
            read=lambda: [ours.frame.read(tile.read) for tile in tiles],
            upload=lambda: [ours.runner._sent(image) for image in images],
            compute=compute,
            download=lambda: [maps.cpu() for maps in raw],
        )
        parts = sum(t for name, t in times.items() if name != "run")
        return times | {"run_over_parts": times["run"] / parts, "tiles": len(tiles)}

    def decoding(self) -> dict[str, Any]:
        """Compare the search for basins on the device with numpy on the host."""
        ours = tile_runner_of(self)
        shape = ours.frame.shape
        tile = plan_tiles(shape, (self.edge,) * 2, (0, 0), (1, 1), margin=1)[0]
        values = torch.from_numpy(ours.frame.read(tile.outer))[None]
        raw = ours.runner(values)[0]
        host = raw.cpu().numpy()
        there = find_basins_on_device(raw[0] > 0, raw[1], tile, shape)
        here = find_basins(host[0] > 0, host[1], tile, shape)
        times = self.time(
            device=lambda: find_basins_on_device(raw[0] > 0, raw[1], tile, shape),
            host=lambda: find_basins(host[0] > 0, host[1], tile, shape),
            fetch=lambda: raw.cpu(),
        )
        return times | {"edge": host.shape[-1], "same_ids": np.array_equal(there.ids, here.ids)}

    def click(self) -> dict[str, Any]:
        """Time a first click on an image, and more where the features are there; milliseconds."""
        if self.model.click is None:
            return {}
        first, second, more = [], [], []
        edge = min(self.size, CPU_SHARE)
        piece = self.image[:edge, :edge]
        for _ in range(1 + self.repeats):
            session = ClickSession(self.model, piece, settings=self.settings())
            places = [(edge / 2 + step, edge / 2) for step in (0, 3, 6)]
            for times, place in zip((first, second, more), places, strict=True):
                began = time.perf_counter()
                session.add(Click(place))
                times.append(1e3 * (time.perf_counter() - began))
        names = ("first_ms", "second_ms", "third_ms")
        return {n: min(t[1:]) for n, t in zip(names, (first, second, more), strict=True)}

    def tuning(self) -> dict[str, Any]:
        """Time a training step, crops included; milliseconds."""
        edge = min(self.size, 512)
        piece = self.image[:edge, :edge]
        labels = segment(piece, self.model, self.settings())
        labels[0, 0] = labels.max() + 1  # so that there is an object in any case
        spec = self.model.spec
        samples = Samples.from_labels([(piece, labels)], channels=spec.in_channels)
        found, count = {}, 2 if self.quick else 20
        for batch in [1] if self.quick else [4, 8]:
            net = UNet(spec)
            net.load_state_dict(self.model.net.state_dict())
            net.to(self.device, memory_format=LAYOUT[2])  # type: ignore[call-overload]
            crop = 64 if self.quick else 192
            config = TrainConfig(steps=10**6, batch=batch, crop=crop, validate_every=10**6)
            steps = train(TrainState.start(net, config), samples, replace(config, freeze_after=0))
            for _ in range(count // 2):
                next(steps)
            began = time.perf_counter()
            for _ in range(count):
                next(steps)
            found[f"batch {batch}"] = 1e3 * (time.perf_counter() - began) / count
            steps.close()
        return found


def tile_runner_of(bench: Bench) -> Any:
    """Return the runner of the bench's image, in its number format, with its tiles."""
    return tile_runner(bench.model, bench.image, bench.settings())


def slide(run: Callable[[Tensor], Tensor], image: Tensor, edge: int) -> Tensor:
    """Predict in windows that overlap by a quarter, weighed by a Gaussian, four at once."""
    step = max(1, edge * 3 // 4)
    line = torch.arange(edge) - (edge - 1) / 2
    bell = torch.exp(-0.5 * (line / (edge / 8)) ** 2).clamp(min=1e-3)
    weight = bell[:, None] * bell[None]
    size = image.shape[-1]
    starts = [*range(0, max(1, size - edge), step), size - edge]
    places = [(y, x) for y in sorted(set(starts)) for x in sorted(set(starts))]
    total: Tensor | None = None
    norm = torch.zeros(1, 1, size, size)
    for at in range(0, len(places), 4):
        batch = [image[..., y : y + edge, x : x + edge] for y, x in places[at : at + 4]]
        maps = run(torch.cat(batch)).float()
        if total is None:
            total = torch.zeros(1, maps.shape[1], size, size, device=maps.device)
            norm, weight = norm.to(maps.device), weight.to(maps.device)
        for (y, x), one in zip(places[at : at + 4], maps, strict=True):
            total[..., y : y + edge, x : x + edge] += one * weight
            norm[..., y : y + edge, x : x + edge] += weight
    assert total is not None
    return total / norm


def network_cost(net: UNet, itemsize: int, edge: int = 64) -> tuple[float, float]:
    """Return bytes that a network's convolutions read and write for a pixel, and operations."""
    moved, work = 0, 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal moved, work
        moved += (inputs[0].numel() + result.numel()) * itemsize
        weight: Any = module.weight
        # Each output (of a transposed convolution: each input) takes a kernel of products.
        turned = isinstance(module, nn.ConvTranspose2d)
        each = weight[0].numel()
        work += 2 * each * (inputs[0].numel() if turned else result.numel())

    hooks: list[RemovableHandle] = [
        module.register_forward_hook(count)  # type: ignore[arg-type]
        for module in net.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    weight = net.head.weight
    with torch.inference_mode():
        net(F.pad(torch.zeros(1, net.spec.in_channels, edge, edge, device=weight.device), (0, 0)))
    for hook in hooks:
        hook.remove()
    return moved / edge**2, work / edge**2


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to a file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="general", help="of those in the package")
    parser.add_argument("--size", type=int, default=8192, help="edge length of the image, px")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="everything tiny and once")
    args = parser.parse_args()
    model = load_bundled(args.model, pick_device(args.device))
    bench = Bench(model, args.size, quick=args.quick, budget=args.budget)
    results = {"machine": describe_machine(model), "size": args.size} | bench.run()
    text = json.dumps(results, indent=1)
    sys.stdout.write(text + "\n")
    if args.json:
        args.json.write_text(text)
    if results["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
