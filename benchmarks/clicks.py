"""How many clicks an object takes, and how long a click takes.

    python benchmarks/clicks.py DATA [--model nuclei] [--objects 4] [--baselines]
    python benchmarks/clicks.py DATA --speed [--sam]

DATA holds the folders `bbbc038` (validation split), `isbi2012` (cells of nerve tissue in electron
microscopy: measured, never trained on) and `ovule_nuclei_3d` (planes of it). A robot clicks into
the middle of the object, then into the middle of the largest error. Image sizes are estimated by
the model, as in use; scenes are those of seeds that no training takes.

`--sam` times the image encoder and the mask decoder of Segment Anything's ViT-B beside it (random
weights: speed does not depend on them); `pip install segment-anything torchvision` first.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from lab.synthetic_images import make_synthetic_image
from scipy import ndimage
from skimage.segmentation import random_walker, watershed

import napari_unet as nu
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.simulation import iou, simulate_clicks
from napari_unet.nn.inference.embeddings import FeatureCache
from napari_unet.nn.training.click_scores import (
    MAX_CLICKS,
    ClickScores,
    ClickTrial,
    click_through,
    pick_objects,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_unet.core.prompts.clicks import ClickSet

BENCHMARK_SCENES = 2
"""Seeds of the scenes begin with this; 0 and 1 are those of training and validation."""
COLUMNS = ("NoC80", "NoC85", "NoC90", "IoU1", "IoU2", "IoU3", "IoU5")

Pair = tuple[str, np.ndarray, np.ndarray]


def nuclei(data: Path) -> Iterator[Pair]:
    """Yield the validation images with their modality."""
    with (data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    for row in rows:
        name = f"{row['id']}.tif"
        image, labels = (tifffile.imread(data / part / name) for part in ("images", "labels"))
        yield f"nuclei, {row['modality']}", image, labels


def cells(data: Path) -> Iterator[Pair]:
    """Yield sections of nerve tissue, with the cells' interiors as objects."""
    for path in sorted((data / "images").glob("*.tif"))[::5]:
        inside = tifffile.imread(data / "labels" / path.name) > 0
        yield "cells in EM", tifffile.imread(path), ndimage.label(inside)[0]


def planes(data: Path) -> Iterator[Pair]:
    """Yield some planes of volumes."""
    for path in sorted((data / "images").glob("*.tif")):
        volume, labels = (tifffile.imread(data / part / path.name) for part in ("images", "labels"))
        for z in range(20, len(volume), 20):
            yield "plant nuclei, planes", volume[z], labels[z]


def scenes(count: int) -> Iterator[Pair]:
    """Yield generated scenes and, of each, one of its layers."""
    for number in range(count):
        scene = make_synthetic_image([BENCHMARK_SCENES, number])
        yield f"scenes, {scene.kind}", scene.image, scene.layers[number % len(scene.layers)]


def open_image(image: np.ndarray) -> nu.Stack:
    """Open an image whose last axis may be colours."""
    return open_stack(image, axes="YXS" if image.ndim == 3 else "YX")


def by_random_walker(image: np.ndarray, clicks: ClickSet) -> np.ndarray:
    """Segment by a random walker (Grady 2006); without a negative click the border is one."""
    markers = _markers(image, clicks)
    grey = image if image.ndim == 2 else image.mean(-1)
    spread = np.ptp(grey) or 1.0
    # Conjugate gradients with a diagonal preconditioner: what needs no further package.
    return np.asarray(random_walker(grey / spread, markers, beta=400, mode="cg_j") == 1)


def by_watershed(image: np.ndarray, clicks: ClickSet) -> np.ndarray:
    """Segment by a watershed of the gradient from the clicks."""
    grey = image if image.ndim == 2 else image.mean(-1)
    edges = ndimage.gaussian_gradient_magnitude(grey.astype(float), 1)
    return np.asarray(watershed(edges, _markers(image, clicks)) == 1)


def _markers(image: np.ndarray, clicks: ClickSet) -> np.ndarray:
    markers = np.zeros(image.shape[:2], np.int32)
    markers[[0, -1]] = markers[:, [0, -1]] = 2
    for click in clicks.clicks:
        y, x = click.pixel
        markers[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 1 if click.positive else 2
    return markers


BASELINES: dict[str, Callable[[np.ndarray, ClickSet], np.ndarray]] = {
    "random walker": by_random_walker,
    "watershed": by_watershed,
}


def baseline(method: Any, image: np.ndarray, truth: np.ndarray) -> list[float]:
    """Click on an object for a method that knows no learning."""
    steps = simulate_clicks(truth, lambda clicks: method(image, clicks), MAX_CLICKS)
    found = [iou(mask, truth) for _, mask in steps]
    return found + found[-1:] * (MAX_CLICKS - len(found))


def row(name: str, ious: list[list[float]]) -> str:
    """Write one line of the table."""
    scores = ClickScores(np.array(ious))
    noc = [scores.number_of_clicks(wanted) for wanted in (0.8, 0.85, 0.9)]
    after = [scores.after(k) for k in (1, 2, 3, 5)]
    cells = [f"{n:.2f}" for n in noc] + [f"{v:.3f}" for v in after]
    return f"| {name} | {len(ious)} | {' | '.join(cells)} |"


def accuracy(args: argparse.Namespace, model: nu.Model) -> None:
    """Print the table of clicks."""
    pairs = [
        *nuclei(args.data / "bbbc038"),
        *cells(args.data / "isbi2012"),
        *planes(args.data / "ovule_nuclei_3d"),
        *scenes(args.scenes),
    ][:: args.every]
    rng = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {}
    for group, image, labels in pairs:
        stack = open_image(image)
        session = nu.ClickSession(model, stack)
        for truth in pick_objects(labels, args.objects, rng):
            found.setdefault(group, []).append(click_through(ClickTrial(session, truth)))
            for name, method in BASELINES.items() if args.baselines else ():
                these = found.setdefault(f"{group}: {name}", [])
                these.append(baseline(method, image, truth))
    print("| objects | count |", " | ".join(COLUMNS), "|")
    print("|", " | ".join(["---"] * (2 + len(COLUMNS))), "|")
    for group in sorted(found):
        print(row(group, found[group]), flush=True)


def speed(model: nu.Model, size: int = 2048, count: int = 40) -> dict[str, float]:
    """Print how long clicks and hovering take, with and without features; return the medians."""
    rng = np.random.default_rng(0)
    settings = nu.PredictSettings(diameter=model.diameter)
    cache = FeatureCache()
    session = nu.ClickSession(model, blobs((size, size)), settings=settings, cache=cache)
    places = rng.uniform(64, size - 64, (count, 2))

    def milliseconds(act: Callable[[tuple[float, ...]], object], *, cold: bool) -> list[float]:
        times = []
        for place in map(tuple, places.tolist()):
            session.reset()
            cache.clear() if cold else session.preview(nu.Click(place))
            began = time.perf_counter()
            act(place)
            times.append(1000 * (time.perf_counter() - began))
        return times

    cases: dict[str, tuple[Callable[[tuple[float, ...]], object], bool]] = {
        "click, features cached": (lambda place: session.add(nu.Click(place)), False),
        "hover, features cached": (lambda place: session.preview(nu.Click(place)), False),
        "click, nothing cached": (lambda place: session.add(nu.Click(place)), True),
    }
    print(f"{size} x {size}, {count} places, {model.device}")
    print("| what | p50, ms | p95, ms |\n| --- | --- | --- |")
    medians = {}
    for name, (act, cold) in cases.items():
        medians[name], high = np.percentile(milliseconds(act, cold=cold), (50, 95))
        print(f"| {name} | {medians[name]:.1f} | {high:.1f} |", flush=True)
    return medians


def sam_milliseconds(device: torch.device, count: int = 20) -> tuple[float, float]:
    """Time Segment Anything's ViT-B: the embedding of an image, and a click in it (medians)."""
    from segment_anything import sam_model_registry

    net = sam_model_registry["vit_b"]().eval().to(device)
    image = torch.randn(1, 3, net.image_encoder.img_size, net.image_encoder.img_size).to(device)
    point = (torch.tensor([[[500.0, 500.0]]], device=device), torch.ones(1, 1, device=device))

    def embed() -> torch.Tensor:
        return net.image_encoder(image)

    def click() -> torch.Tensor:
        sparse, dense = net.prompt_encoder(points=point, boxes=None, masks=None)
        low, _ = net.mask_decoder(
            image_embeddings=embedding,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return net.postprocess_masks(low, image.shape[-2:], image.shape[-2:]).cpu()

    with torch.inference_mode():
        embedding = embed()
        return median_time(embed, 2), median_time(click, count)


def median_time(act: Callable[[], torch.Tensor], count: int) -> float:
    """Return how long something takes, in milliseconds: the median of some runs."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        act().cpu()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def compare_with_sam(model: nu.Model, ours: dict[str, float]) -> None:
    """Print Segment Anything's times and how many times as long they are."""
    embedding, click = sam_milliseconds(model.device)
    first, later = ours["click, nothing cached"], ours["click, features cached"]
    print("| Segment Anything, ViT-B | ms | times ours |\n| --- | --- | --- |")
    print(f"| first click: embedding and decoder | {embedding + click:.0f} | ", end="")
    print(f"{(embedding + click) / first:.1f} |")
    print(f"| click, embedding there | {click:.1f} | {click / later:.1f} |", flush=True)


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--objects", type=int, default=4, help="in each image")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--every", type=int, default=1, help="take every so many images only")
    parser.add_argument("--baselines", action="store_true", help="random walker and watershed, too")
    parser.add_argument("--speed", action="store_true", help="time clicks instead")
    parser.add_argument("--sam", action="store_true", help="with --speed: Segment Anything, too")
    args = parser.parse_args()
    model = nu.load_model(args.model)
    if args.speed:
        ours = speed(model)
        if args.sam:
            compare_with_sam(model, ours)
    else:
        accuracy(args, model)


if __name__ == "__main__":
    main()
