"""How well a few scribbles segment an image of any kind, against a random forest on filters.

    python benchmarks/scribbles.py DATA                      # five kinds, some minutes
    python benchmarks/scribbles.py DATA --kinds isbi2012 --images 6

A robot draws a stroke on some objects and as many on the background, half of those near an object,
as a user does who sees where objects touch. From the same strokes learn

- what the window does (`nn/interactive/scribbles.py`): a small network on filters of the image and
  the maps of a model that sees it as it is, its objects' size not told;
- the same without the maps;
- the usual thing (ilastik, Labkit, napari-apoc): scikit-image's `multiscale_basic_features` and a
  random forest of scikit-learn (extra `bench`), 100 trees.

All three are divided into objects alike. Given are the IoU of the foreground, the AP50 of the
objects, and the seconds until the first answer, one thread, features included; of a second answer,
after more strokes, they are left out. Images are cropped to --edge. Kinds that the model was
trained on are measured on their validation images.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from kinds import names_of, opened, planes_of
from scipy import ndimage
from skimage.draw import line
from skimage.feature import multiscale_basic_features

import napari_unet as nu
from napari_unet.core.progress import run_to_end
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT, divide_foreground
from napari_unet.nn.interactive.scribbles import ScribbleClassifier, feature_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("bbbc038", "axons_tem", "bacteria_phase", "particles_em", "isbi2012")
WIDTH, LENGTH = 3, 40
"""Of a stroke, in pixels."""
NEAR = 8
"""Half of the strokes on the background are this near to an object, in pixels."""

Found = tuple[np.ndarray, float, float]
"""Probability, seconds to the first answer, and to another one."""


def draw_strokes(truth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Scribble on some objects, and on the background; uint8 (Y, X)."""
    scribbles = np.zeros(truth.shape, np.uint8)
    background = truth == 0
    near = background & (ndimage.distance_transform_edt(background) < NEAR)
    for number in range(count):
        scribbles[_stroke((background, near)[number % 2], rng)] = BACKGROUND
    for label in rng.permutation(np.unique(truth[truth > 0]))[:count]:
        scribbles[_stroke(truth == label, rng)] = OBJECT
    return scribbles


def _stroke(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a line between two points well inside a region; only what is inside counts."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    points = np.argwhere(depth >= min(2.0, depth.max()))
    start = points[rng.integers(len(points))]
    reach = points[np.hypot(*(points - start).T) < LENGTH]
    drawn = np.zeros(region.shape, bool)
    drawn[line(*start, *reach[rng.integers(len(reach))])] = True
    return np.asarray(ndimage.binary_dilation(drawn, iterations=WIDTH // 2) & region)


def with_features(image: np.ndarray, scribbles: np.ndarray, model: nu.Model, maps: bool) -> Found:
    """Learn as the window does, with a model's maps or without."""
    began = time.perf_counter()
    found = run_to_end(feature_steps(opened(image), model))
    values = found.values if maps else found.values[:-4]
    ready = time.perf_counter()
    drawn = scribbles > 0
    classifier = ScribbleClassifier(values[:, drawn], scribbles[drawn])
    probability = classifier.probability(values)
    divide_foreground(probability)
    ended = time.perf_counter()
    return probability, ended - began, ended - ready


def with_forest(image: np.ndarray, scribbles: np.ndarray) -> Found:
    """Learn as others do."""
    from sklearn.ensemble import RandomForestClassifier

    began = time.perf_counter()
    axis = -1 if image.ndim == 3 else None
    values = multiscale_basic_features(image, channel_axis=axis)
    ready = time.perf_counter()
    forest = RandomForestClassifier(100, random_state=0, class_weight="balanced", n_jobs=1)
    forest.fit(values[scribbles > 0], scribbles[scribbles > 0] == OBJECT)
    flat = forest.predict_proba(values.reshape(-1, values.shape[-1]))[:, 1]
    probability = flat.reshape(scribbles.shape).astype(np.float32)
    divide_foreground(probability)
    ended = time.perf_counter()
    return probability, ended - began, ended - ready


def images_of(folder: Path, most: int, edge: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield up to so many images of each group of a kind, with labels."""
    for names in names_of(folder).values():
        for name in np.random.default_rng(0).permutation(names)[:most]:
            image, truth = next(planes_of(folder, name))
            yield image[:edge, :edge], truth[:edge, :edge]


def measure(
    image: np.ndarray, truth: np.ndarray, model: nu.Model, strokes: int, seed: int
) -> dict[str, list[float]]:
    """Return IoU, AP50 and seconds of each way."""
    scribbles = draw_strokes(truth, strokes, np.random.default_rng(seed))
    rows = {}
    for name, (probability, first, again) in {
        "filters and maps": with_features(image, scribbles, model, maps=True),
        "filters alone": with_features(image, scribbles, model, maps=False),
        "random forest": with_forest(image, scribbles),
    }.items():
        labels = divide_foreground(probability)
        either, both = (labels > 0) | (truth > 0), (labels > 0) & (truth > 0)
        ap50 = float(nu.evaluate(labels, truth, (0.5,)).ap[0])
        rows[name] = [both.sum() / max(1, either.sum()), ap50, first, again]
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="general")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--images", type=int, default=3, help="of each kind, or group of a kind")
    parser.add_argument("--strokes", type=int, default=6, help="on objects, and on the background")
    parser.add_argument("--seeds", type=int, default=2, help="how often strokes are drawn")
    parser.add_argument("--edge", type=int, default=512, help="of a crop, in pixels")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = nu.load_model(args.model, "cpu")
    ways = ("filters and maps", "filters alone", "random forest")
    print(f"| kind | images | {' | '.join(f'{way}: IoU / AP50' for way in ways)} | seconds |")
    print("|" + " --- |" * (len(ways) + 3))
    means = []
    for kind in args.kinds:
        rows = [
            measure(image, truth, model, args.strokes, seed)
            for image, truth in images_of(args.data / kind, args.images, args.edge)
            for seed in range(args.seeds)
        ]
        mean = {way: np.mean([row[way] for row in rows], 0) for way in ways}
        means.append(mean)
        print(_row(kind, len(rows) // args.seeds, mean), flush=True)
    print(_row("mean", 0, {way: np.mean([mean[way] for mean in means], 0) for way in ways}))


def _row(kind: str, images: int, mean: dict[str, np.ndarray]) -> str:
    scores = [f"{values[0]:.2f} / {values[1]:.2f}" for values in mean.values()]
    seconds = ", ".join(f"{values[2]:.1f} ({values[3]:.1f})" for values in mean.values())
    return f"| {kind} | {images or ''} | {' | '.join(scores)} | {seconds} |"


if __name__ == "__main__":
    main()
