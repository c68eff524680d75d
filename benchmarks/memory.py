"""Peak memory of `napari-unet segment` on a large TIFF, beyond an interpreter with torch.

    python benchmarks/memory.py                    # 20,000 x 20,000 px, the shipped model
    python benchmarks/memory.py --size 4000 --model tiny

The image is made in a temporary folder (800 MB at 20,000 px) and removed at the end. The command
runs in a process of its own, whose resident memory is read every 20 ms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tifffile

from napari_unet.core.io.sample_images import blobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GOAL = 3e9
"""Bytes beyond the interpreter and torch that a run should stay below."""
EDGE = 512
"""Edge length of the TIFF's tiles."""


def write_image(path: Path, size: int) -> None:
    """Write a tiled, uncompressed uint16 TIFF, block by block."""
    with tifffile.TiffWriter(path, bigtiff=2 * size**2 > 4e9) as writer:
        writer.write(
            _blocks(size),
            shape=(size, size),
            dtype=np.uint16,
            tile=(EDGE, EDGE),
            photometric="minisblack",
        )


def _blocks(size: int) -> Iterator[np.ndarray]:
    patterns = [blobs((EDGE, EDGE), seed) for seed in range(16)]
    rng = np.random.default_rng(0)
    for top, left in itertools.product(range(0, size, EDGE), repeat=2):
        block = patterns[rng.integers(len(patterns))]
        yield np.ascontiguousarray(block[: size - top, : size - left])


def measure_peak(command: Sequence[str]) -> tuple[int, float]:
    """Run a command; return the most bytes that it had resident, and its seconds."""
    began, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.Error:  # it has just ended
                break
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return peak, time.perf_counter() - began


def tiny_model(folder: Path) -> Path:
    """Write a tiny network with random weights, for trying this script out."""
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.nn.bench import stand_in
    from napari_unet.nn.inference.model import save_model

    spec = ModelSpec(in_channels=1, depth=1, width=4, convs=1)
    return save_model(stand_in(spec, "cpu"), folder / "tiny")


def measure(size: int, model: str, options: Sequence[str], folder: Path) -> dict[str, Any]:
    """Make the image, segment it, and compare with torch alone."""
    image, labels = folder / "image.tif", folder / "labels.tif"
    write_image(image, size)
    name = str(tiny_model(folder)) if model == "tiny" else model
    base, _ = measure_peak([sys.executable, "-c", "import torch, time; time.sleep(0.5)"])
    segment = [sys.executable, "-m", "napari_unet", "segment", str(image), str(labels)]
    peak, seconds = measure_peak([*segment, "--model", name, *options])
    return {
        "size": size,
        "model": model,
        "options": list(options),
        "torch_bytes": base,
        "peak_bytes": peak,
        "beyond_bytes": peak - base,
        "goal_bytes": GOAL,
        "seconds": seconds,
        "mpx_per_s": size**2 / 1e6 / seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=20_000, help="edge length in pixels")
    parser.add_argument("--model", default="nuclei", help="a model's name or folder, or 'tiny'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    values, options = parser.parse_known_args()  # the rest is for `napari-unet segment`
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        found = measure(values.size, values.model, options, Path(folder))
    print(
        f"{found['size']} x {found['size']} uint16: peak {found['peak_bytes'] / 1e9:.2f} GB, "
        f"torch alone {found['torch_bytes'] / 1e9:.2f} GB, beyond it "
        f"{found['beyond_bytes'] / 1e9:.2f} GB (goal < {GOAL / 1e9:g} GB); "
        f"{found['seconds']:.0f} s, {found['mpx_per_s']:.2f} MPx/s"
    )
    if values.json:
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
