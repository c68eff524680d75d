r"""Which tile is fastest on this computer, and how many threads it can use.

    python benchmarks/speed.py                         # 4096 x 4096 px; some minutes on two cores
    python benchmarks/speed.py --size 2048 --edges 512 1024 --repeats 1
    python benchmarks/speed.py --batches               # small planes together; 3 minutes
    python benchmarks/speed.py --files                 # folders of small images; a minute
    python benchmarks/speed.py --compare --size 2048   # with MONAI's window, by processor time
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
        python benchmarks/speed.py --compare --size 2048 --precision float32   # as without bfloat16

Prediction in tiles of each edge length, halo and all, in turns over the same image; beside it the
bare network on one piece of that edge, which pays no halo; and the bare network on one thread, two,
and so on.

With --batches: the bare network on small planes, 1, 2, 4 and 8 at once, on one thread and two and
so on, in both number formats; a stack of such planes from image to labels, one after the other and
together as `segment` chooses; and one such image as a file is run, whose size is looked at first.

With --files: images of each edge length, from files to label files on one thread, by each model:
their size estimated (as shipped), told, and told without the survey, in turns; milliseconds of the
processor a file. Half of the images show their objects at twice their size.

With --compare: tiled prediction, the bare network on tiles of 512 and 1024 px, and MONAI's sliding
window (overlap 0.25, Gaussian, 512 px) around the plain network in float32 and around our fused
one, in turns. The processor's time can be compared on a busy machine, too; use one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tifffile
import torch

from napari_unet.batch.file_job import FileJob, segment_file
from napari_unet.core.errors import ModelError
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.bench import (
    best_times,
    describe_machine,
    sliding_window,
    stand_in,
    tile_runner,
)
from napari_unet.nn.inference.device_memory import choose_batch
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import Model, load_model
from napari_unet.nn.inference.segment import segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCHES = (1, 2, 4, 8)
"""How many small planes the bare network is given at once."""
TILE_EDGES = (256, 512, 1024, 2048)
PLANE_EDGES = (64, 128, 192, 256, 384, 512)
FILE_EDGES, FILES = (64, 128, 256, 512), 10
"""Edge lengths of images in files, and how many of each are run."""
FILE_MODELS = ("general", "nuclei")
PLANES = 16
"""Planes of the stacks that are segmented from image to labels."""


def measure_edges(
    model: Model, size: int, edges: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """Return tiled and bare MPx/s for each edge length; the last tile is the whole image."""
    image = blobs((size, size))
    runner = tile_runner(model, image)
    whole = runner.frame.read((slice(0, size), slice(0, size)))
    values = torch.from_numpy(whole)[None]
    edges = [*(edge for edge in edges if edge < size), size]
    tasks: dict[str, Any] = {}
    for edge in edges:
        tasks[f"tiled {edge}"] = partial(predict, image, model, PredictSettings(tile=edge))
        tasks[f"bare {edge}"] = partial(runner.runner, values[..., :edge, :edge])
    times = best_times(tasks, repeats, model.device)
    return [
        {
            "edge": edge,
            "chosen": edge == min(runner.edge, size),
            "tiled_mpx_per_s": size**2 / 1e6 / times[f"tiled {edge}"],
            "bare_mpx_per_s": edge**2 / 1e6 / times[f"bare {edge}"],
            "bare_s": times[f"bare {edge}"],
        }
        for edge in edges
    ]


def measure_threads(model: Model, edge: int, repeats: int) -> dict[int, float]:
    """Return the bare network's MPx/s for each number of threads."""
    runner, before = model.runner(model.choose_precision()), torch.get_num_threads()
    values, rates = torch.rand(1, model.spec.in_channels, edge, edge), {}
    try:
        for threads in range(1, before + 1):
            torch.set_num_threads(threads)
            task = {"bare": partial(runner, values)}
            best_times(task, 1, model.device)
            rates[threads] = edge**2 / 1e6 / best_times(task, repeats, model.device)["bare"]
    finally:
        torch.set_num_threads(before)
    return rates


def measure_batches(model: Model, edges: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield milliseconds a plane: of the bare network by batch, and of stacks to labels.

    On one thread they are the processor's time, which a busy machine changes least.
    """
    before = torch.get_num_threads()
    try:
        for threads in range(1, before + 1):
            torch.set_num_threads(threads)
            clock = time.process_time if threads == 1 else time.perf_counter
            for precision, edge in itertools.product(("bfloat16", "float32"), edges):
                tasks: dict[str, Any] = {}
                for batch in BATCHES:
                    values = torch.rand(batch, model.spec.in_channels, edge, edge)
                    tasks[f"{batch} at once"] = partial(model.runner(precision), values)
                counts = dict(zip(tasks, BATCHES, strict=True))
                if choose_batch(model.device, edge**2, 2**24) > 1:
                    for name, batch in (("stack, one by one", 1), ("stack, together", None)):
                        settings = PredictSettings(
                            diameter=model.diameter,
                            survey=False,
                            volumes="planes",
                            precision=precision,
                            batch=batch,
                        )
                        tasks[name] = partial(segment, blobs((PLANES, edge, edge)), model, settings)
                        counts[name] = PLANES
                    image, settings = blobs((edge, edge)), PredictSettings(precision=precision)
                    tasks["file"], counts["file"] = partial(segment, image, model, settings), 1
                best_times(tasks, 1, model.device)
                times = best_times(tasks, repeats, model.device, clock)
                row = {name: 1e3 * seconds / counts[name] for name, seconds in times.items()}
                yield {"threads": threads, "precision": precision, "edge": edge, "ms": row}
    finally:
        torch.set_num_threads(before)


def measure_files(
    edges: Sequence[int], count: int, repeats: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield milliseconds of the processor a file, by model and edge length, on one thread."""
    torch.set_num_threads(1)
    for edge in edges:
        jobs = []
        for number in range(count):
            source = folder / f"{edge}_{number}.tif"
            image = blobs((edge // 2, edge // 2), number).repeat(2, 0).repeat(2, 1)
            tifffile.imwrite(source, image if number % 2 else blobs((edge, edge), number))
            jobs.append(FileJob(source, source.with_suffix(".labels.tif")))
        for name in FILE_MODELS:
            model = load_model(name, "cpu")
            told = PredictSettings(diameter=model.diameter)
            tasks = {
                "estimated": partial(_segment_files, jobs, model, PredictSettings()),
                "told": partial(_segment_files, jobs, model, told),
                "told, no survey": partial(
                    _segment_files, jobs, model, replace(told, survey=False)
                ),
            }
            tasks["told, no survey"]()
            times = best_times(tasks, repeats, model.device, time.process_time)
            row = {name: 1e3 * seconds / count for name, seconds in times.items()}
            yield {"model": name, "edge": edge, "ms": row}


def _segment_files(jobs: Sequence[FileJob], model: Model, settings: PredictSettings) -> None:
    for job in jobs:
        run_to_end(segment_file(job, model, settings, overwrite=True))


def compare(model: Model, size: int, repeats: int, precision: str) -> dict[str, float]:
    """Return megapixels a second of processor time: tiled, bare by edge, and MONAI's two."""
    image = blobs((size, size))
    seen = tile_runner(model, image).frame.read((slice(0, size), slice(0, size)))
    values = torch.from_numpy(seen)[None]
    runner = model.runner(model.choose_precision(precision))
    settings = PredictSettings(diameter=model.diameter, survey=False, precision=precision)
    tasks: dict[str, Any] = {"tiled": partial(predict, image, model, settings)}
    pixels = dict.fromkeys(("tiled", "monai", "monai, fused"), values[0, 0].numel())
    for edge in (512, 1024):
        tasks[f"bare {edge}"] = partial(runner, values[..., :edge, :edge])
        pixels[f"bare {edge}"] = min(edge, size) ** 2
    for name, net in (("monai", model.net), ("monai, fused", runner)):
        if (slide := sliding_window(model, 512, net)) is not None:
            tasks[name] = partial(slide, values, 1)
    times = best_times(tasks, repeats, model.device, time.process_time)
    return {name: pixels[name] / 1e6 / seconds for name, seconds in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=4096, help="edge length of the image, px")
    parser.add_argument("--edges", type=int, nargs="+", help="tiles or planes, px")
    parser.add_argument("--repeats", type=int, default=2, help="how often each time is taken")
    parser.add_argument("--compare", action="store_true", help="with the bare network and MONAI")
    parser.add_argument("--batches", action="store_true", help="small planes together")
    parser.add_argument("--precision", default="auto", help="number format of a comparison")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--files", action="store_true", help="folders of small images")
    values = parser.parse_args()
    try:
        model = load_model("nuclei")
    except ModelError:
        model = stand_in()
    machine = describe_machine(model)
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value))
    if values.compare:
        rates = compare(model, values.size, values.repeats, values.precision)
        bare = max(rate for name, rate in rates.items() if name.startswith("bare"))
        for name, rate in rates.items():
            print(f"{name:12}: {rate:.3f} MPx/s, tiled is {rates['tiled'] / rate:.2f} x as fast")
        print(f"tiled prediction reaches {rates['tiled'] / bare:.0%} of the bare network")
        return
    if values.batches or values.files:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            planes = measure_batches(model, values.edges or PLANE_EDGES, values.repeats)
            files = measure_files(values.edges or FILE_EDGES, FILES, values.repeats, Path(folder))
            for row in files if values.files else planes:
                rows.append(row)
                what = ", ".join(f"{name} {value}" for name, value in row.items() if name != "ms")
                times = ", ".join(f"{name} {ms:.1f}" for name, ms in row["ms"].items())
                print(f"{what}, ms: {times}", flush=True)
        if values.json:
            values.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        return
    edges = measure_edges(model, values.size, values.edges or TILE_EDGES, values.repeats)
    for row in edges:
        print(
            f"tile {row['edge']:5}: tiled {row['tiled_mpx_per_s']:.3f} MPx/s, bare "
            f"{row['bare_mpx_per_s']:.3f} MPx/s ({row['bare_s']:.2f} s a piece)"
            f"{'  <- chosen' if row['chosen'] else ''}"
        )
    threads = {}
    if model.device.type == "cpu":
        threads = measure_threads(model, min(512, values.size), 2 * values.repeats)
        print("; ".join(f"{count} threads: {rate:.3f} MPx/s" for count, rate in threads.items()))
    if values.json:
        found = {"machine": machine, "size": values.size, "edges": edges, "threads": threads}
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
