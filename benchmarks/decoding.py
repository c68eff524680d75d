"""How long telling objects apart takes, in numpy and in torch, beside the network's forward pass.

    python benchmarks/decoding.py                      # 1024 x 1024 px and 64 x 128 x 128 voxels
    python benchmarks/decoding.py --device cuda --size 2048 --volume 96 192 192 --repeats 20

All times of a row are taken in turns in one run. Networks have random weights, which cost the same
as trained ones; what is decoded are the maps that a good network would give of synthetic objects.
The torch path starts from maps on the device, the numpy path from maps on the host: fetching them
from a GPU is timed as part of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.tile_merger import whole_tile
from napari_unet.core.instances.watershed import Basins, find_basins
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.nn.bench import SPEC, SPEC_3D, best_times, describe_machine, stand_in
from napari_unet.nn.inference.decode import find_basins_on_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.nn.inference.model import Model

PATHS = ("network", "numpy", "torch")
SOFT, NOISE, STEEP = 1.0, 0.02, 12.0
"""How blurred, in pixels, and how noisy the maps are; how many logits foreground rises by."""


def synthetic_maps(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return raw maps, float32 (2, *shape), of an image of bright, touching objects."""
    labels, _ = ndimage.label(blobs(shape, seed) > 350)
    maps = InstanceHead().targets(labels)
    noise = np.random.default_rng(seed).normal(0, NOISE, maps.shape)
    soft = [ndimage.gaussian_filter(m + n, SOFT) for m, n in zip(maps, noise, strict=True)]
    return np.stack([STEEP * (soft[0] - 0.5), soft[1]]).astype(np.float32)


def measure(model: Model, shape: tuple[int, ...], threads: int, repeats: int) -> dict[str, Any]:
    """Return seconds a megapixel of the network and of both ways to find a frame's basins."""
    runner, tile = model.runner(model.choose_precision()), whole_tile(shape)
    values = torch.rand(1, model.spec.in_channels, *shape)
    raw = torch.from_numpy(synthetic_maps(shape)).to(model.device)
    cut = InstanceHead.raw_threshold(DecodeSettings().threshold)

    def in_numpy() -> Basins:
        maps = raw.cpu().numpy()
        return find_basins(maps[0] > cut, maps[1], tile, shape)

    def in_torch() -> Basins:
        return find_basins_on_device(raw[0] > cut, raw[1], tile, shape)

    tasks = {"network": lambda: runner(values), "numpy": in_numpy, "torch": in_torch}
    torch.set_num_threads(threads)
    best_times(tasks, 1, model.device)
    times = best_times(tasks, repeats, model.device)
    pixels = float(np.prod(shape))
    found = in_numpy()
    return {
        "shape": list(shape),
        "threads": threads,
        "foreground": float((found.ids > 0).sum()) / pixels,
        "basins": len(found.names),
        "passes": len(found.heights),
        "s_per_mpx": {name: 1e6 * times[name] / pixels for name in PATHS},
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table: milliseconds a megapixel, and both decodings as shares of the network."""
    titles = ["frame", "threads", *(f"{name}, ms/MPx" for name in PATHS)]
    titles += ["numpy/network", "torch/network", "torch/numpy"]
    print("| " + " | ".join(titles) + " |")
    print("| " + " | ".join("---" for _ in titles) + " |")
    for row in rows:
        network, numpy, in_torch = (row["s_per_mpx"][name] for name in PATHS)
        cells = [" x ".join(map(str, row["shape"])), str(row["threads"])]
        cells += [f"{1e3 * value:.4g}" for value in (network, numpy, in_torch)]
        cells += [f"{numpy / network:.2%}", f"{in_torch / network:.2%}", f"{in_torch / numpy:.2f}"]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="edge length of the plane, px")
    parser.add_argument("--volume", type=int, nargs=3, default=[64, 128, 128], metavar="N")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--repeats", type=int, default=5, help="how often each time is taken")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    values = parser.parse_args()
    frames = {SPEC: (values.size, values.size), SPEC_3D: tuple(values.volume)}
    models = {spec: stand_in(spec, values.device) for spec in frames}
    machine = describe_machine(models[SPEC])
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value))
    rows = [
        measure(models[spec], shape, threads, values.repeats)
        for spec, shape in frames.items()
        for threads in values.threads
    ]
    show(rows)
    for row in rows:
        share = f"{row['foreground']:.0%} foreground"
        print(f"{row['shape']}: {share}, {row['basins']} basins, {row['passes']} passes")
    if values.json:
        found = {"machine": machine, "rows": rows}
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
