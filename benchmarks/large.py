"""Figures of blockwise runs, one line each.

    python benchmarks/large.py throughput      # MPx/s and peak memory at 1, 4, 16, 64 blocks
    python benchmarks/large.py virtual         # a 100 GB stack that is never stored, for some time
    python benchmarks/large.py scaling         # 1, 2, 3 workers on simulated blocks; empty blocks
    python benchmarks/large.py resume          # kills at random moments, labels equal each time
    python benchmarks/large.py planes          # 100 small planes: files alone, and shared

Each run is a process of its own, whose resident memory is sampled every 20 ms. `--quick` takes
sizes that last a minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_unet.core.io.sample_images import blobs

BLOCK = {2: (1024, 1024), 3: (64, 256, 256)}
"""Edges of a block, for planes and volumes."""


def grid(count: int, ndim: int) -> tuple[int, ...]:
    """Arrange 1, 4, 16 or 64 blocks in Y and X."""
    side = round(count**0.5)
    return (1,) * (ndim - 2) + (side, side)


def lazy_image(blocks: tuple[int, ...], ndim: int) -> Any:
    """Return a dask array of that many blocks, made when it is read and never stored."""
    import dask.array as da

    edges = BLOCK[ndim]
    plane = blobs(edges[-2:], 0)
    pattern = np.broadcast_to(plane, edges) if ndim == 3 else plane

    def make(block_info: Any = None) -> np.ndarray:
        at = sum(block_info[None]["chunk-location"])
        return np.ascontiguousarray(np.roll(pattern, 37 * at, axis=-1))

    chunks = tuple((edge,) * n for edge, n in zip(edges, blocks, strict=True))
    empty = np.zeros((0,) * ndim, pattern.dtype)
    return da.map_blocks(make, chunks=chunks, dtype=pattern.dtype, meta=empty)


def get_model(ndim: int, name: str) -> Any:
    """Return the named model, or for volumes and for "tiny" one with random weights."""
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.nn.bench import stand_in
    from napari_unet.nn.inference.model import load_model

    if name != "tiny" and ndim == 2:
        return load_model(name, "cpu")
    return stand_in(ModelSpec(ndim=ndim, in_channels=1, depth=2, width=8), "cpu")


def child(target: str, ndim: int, blocks: tuple[int, ...], model: str, seconds: float) -> None:
    """Segment, for at most some seconds; print blocks done, and seconds of each quarter."""
    from napari_unet.core.blockwise.output_location import OutputLocation
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.blockwise.plan import BlockwiseRequest
    from napari_unet.nn.blockwise.run import BlockDone, segment_blocks

    settings = PredictSettings(survey=False, certify=False, diameter=None, tile=None)
    location = OutputLocation.resolve(target, None, "")
    image = lazy_image(blocks, ndim)
    request = BlockwiseRequest(image, location, settings, block=BLOCK[ndim], resume=True)
    steps, done, began = segment_blocks(request, get_model(ndim, model)), 0, 0.0
    for step in steps:
        began = began or (time.perf_counter() if step.what == "blocks" else 0.0)
        done += isinstance(step, BlockDone)
        if seconds and began and time.perf_counter() - began > seconds:
            steps.close()
            break
    print(done, time.perf_counter() - began, flush=True)


def measure_peak(arguments: list[str]) -> tuple[str, int]:
    """Run this script as a child; return what it printed, and the most bytes it had resident."""
    peak = 0
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.02)
        text = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return text, peak


def throughput(values: argparse.Namespace, folder: Path) -> None:
    """Run 1, 4, 16, 64 blocks."""
    for ndim in (2, 3):
        for count in (1, 4, 16) if values.quick else (1, 4, 16, 64):
            blocks = ",".join(map(str, grid(count, ndim)))
            target = folder / f"{ndim}-{count}.zarr"
            text, peak = measure_peak(["child", str(target), str(ndim), blocks, values.model, "0"])
            done, seconds = text.split()
            pixels = int(done) * np.prod(BLOCK[ndim], dtype=float) / 1e6
            print(
                f"{ndim}D, {count:2} blocks: {pixels / float(seconds):.3f} MPx/s, "
                f"peak {peak / 1e9:.2f} GB",
                flush=True,
            )


def virtual(values: argparse.Namespace, folder: Path) -> None:
    """Run a stack of 100 GB for some time, and for twice and four times as long."""
    for seconds in (10, 20) if values.quick else (60, 120, 240):
        target = folder / f"virtual-{seconds}.zarr"
        blocks = "216,216"
        arguments = ["child", str(target), "2", blocks, values.model, str(seconds)]
        text, peak = measure_peak(arguments)
        gigabytes = np.prod([216 * 1024.0] * 2) * 2 / 1e9
        print(
            f"{gigabytes:.0f} GB, {text.split()[0]} blocks in {seconds} s: "
            f"peak {peak / 1e9:.2f} GB",
            flush=True,
        )


def scaling(values: argparse.Namespace, folder: Path) -> None:
    """Time simulated blocks on 1, 2, 3 workers, and empty ones."""
    from distributed import LocalCluster

    from napari_unet.core.blockwise.run_directory import RunDirectory
    from napari_unet.core.io.stack import open_stack
    from napari_unet.nn.blockwise.cluster import ClusterExecutor
    from napari_unet.nn.blockwise.executor import BlockRun
    from napari_unet.nn.inference.model import write_exactly

    model = get_model(2, "tiny")
    write_exactly(model, folder / "model")
    count, first = (60, 0.0) if values.quick else (300, 0.0)
    for workers in (1, 2, 3):
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster:
            executor = ClusterExecutor(cluster.scheduler_address)
            executor.start(BlockRun(RunDirectory(folder), open_stack(np.zeros((8, 8))), model))
            list(executor.do("idle", [(0, n) for n in range(12)]))  # every worker has its model
            began = time.perf_counter()
            list(executor.do("idle", [(200, n) for n in range(count)]))
            seconds = time.perf_counter() - began
            first = first or seconds
            began = time.perf_counter()
            empty = 500 if values.quick else 3000
            list(executor.do("idle", [(0, n) for n in range(empty)]))
            rate = empty / (time.perf_counter() - began)
            executor.close()
        print(
            f"{workers} workers: {count} blocks of 0.2 s in {seconds:.1f} s, efficiency "
            f"{count * 0.2 / workers / seconds:.2f}; {rate:.0f} empty blocks a second",
            flush=True,
        )


def resume(values: argparse.Namespace, folder: Path) -> None:
    """Kill runs at random moments, each up to three times, and compare what they come to."""
    import zarr

    def run(target: Path, patience: float | None) -> bool:
        arguments = ["child", str(target), "2", "4,4", "tiny", "0"]
        command = [sys.executable, __file__, *arguments]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                return True
        if process.returncode:
            raise SystemExit(f"a resumed run ended with status {process.returncode}")
        return False

    rng, kills, equal, runs, wanted_kills = np.random.default_rng(0), 0, 0, 0, values.kills
    began = time.perf_counter()
    run(folder / "whole.zarr", None)
    whole_seconds = time.perf_counter() - began
    wanted = zarr.open_array(str(folder / "whole.zarr" / "0"), mode="r")[:]
    while kills < wanted_kills:
        target = folder / f"run{runs}.zarr"
        for _ in range(int(rng.integers(1, 4))):
            if kills == wanted_kills or not run(target, rng.uniform(0.6, 1) * whole_seconds):
                break
            kills += 1
        run(target, None)
        runs += 1
        equal += np.array_equal(zarr.open_array(str(target / "0"), mode="r")[:], wanted)
    print(f"{kills} kills in {runs} runs: {equal} of {runs} equal the uninterrupted run")


def planes(values: argparse.Namespace, folder: Path) -> None:
    """Segment a stack of small planes with a file for each, and with shared ones; count syncs."""
    from napari_unet.core.blockwise import blocks
    from napari_unet.core.blockwise.output_location import OutputLocation
    from napari_unet.core.io.stack import open_stack
    from napari_unet.core.progress import run_to_end
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.blockwise.plan import BlockwiseRequest
    from napari_unet.nn.blockwise.run import segment_blocks

    count = 20 if values.quick else 100
    stack = open_stack(np.stack([blobs((100, 100), 0)] * count), axes="ZYX")
    settings = PredictSettings(survey=False, certify=False, diameter=20.0, volumes="joined")
    model, sync, shared = get_model(2, values.model), os.fsync, blocks.BATCH_PIXELS
    for slow in (0.0, 0.04):
        for together in (1, shared):
            calls: list[int] = []

            def counted(file: int, pause: float = slow, calls: list[int] = calls) -> None:
                calls.append(file)
                time.sleep(pause)
                sync(file)

            blocks.BATCH_PIXELS, os.fsync = together, counted
            location = OutputLocation.resolve(str(folder / f"{together}-{slow}.zarr"), None, "")
            began = time.perf_counter()
            run_to_end(segment_blocks(BlockwiseRequest(stack, location, settings), model))
            print(
                f"{count} planes, up to {together} px a file, syncs {1000 * slow:.0f} ms slower: "
                f"{len(calls)} syncs, {time.perf_counter() - began:.2f} s",
                flush=True,
            )
    blocks.BATCH_PIXELS, os.fsync = shared, sync


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["child"]:
        target, ndim, blocks, model, seconds = sys.argv[2:]
        child(target, int(ndim), tuple(map(int, blocks.split(","))), model, float(seconds))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = (throughput, virtual, scaling, resume, planes)
    what = {run.__name__: run for run in runs}
    parser.add_argument("what", choices=what)
    parser.add_argument("--quick", action="store_true", help="sizes that take a minute")
    parser.add_argument("--model", default="nuclei", help="for planes; 'tiny': random weights")
    parser.add_argument("--kills", type=int, default=100, help="for resume (default: 100)")
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    values = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        what[values.what](values, Path(folder))


if __name__ == "__main__":
    main()
