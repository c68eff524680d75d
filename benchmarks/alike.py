"""How well a few examples tell which objects are alike: precision and recall.

    python benchmarks/alike.py DATA            # bbbc038 and generated scenes, under two minutes
    python benchmarks/alike.py DATA --only scenes --seeds 3

DATA holds the folder `bbbc038`, whose validation images of one kind and size are taken for a stack:
they come from several microscopes, so that a stack is harder than its slices.
Its true labels are those that are corrected, with one kind of mistake or of object put in:

- debris: specks of 0.15 to 0.4 of the objects' radius are drawn into the image and its labels;
- pairs: of the objects that touch, some are merged with a neighbour;
- mitotic: some objects are redrawn as compact and bright.

A generated scene (`lab.synthetic_kinds`) of 512 x 512 pixels is a stack of its own. The robot edits
one of these objects, and asks for those alike. Each further example is one click of a user: where
something is marked wrongly, on the surest such object, or else on a missed one. Precision and
recall are of what is marked then, examples left out, with the slider as it stands, and the largest
recall that some place of the slider gives at a precision of 0.9.

Across images (`others`): all examples and counterexamples are of one image of the stack, and what
is marked is judged in the other images, as where *Alike* looks in files that nobody has opened.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from lab.report import write_results
from lab.synthetic_images import smooth_noise
from lab.synthetic_kinds import make_object_scene
from scipy import ndimage

import napari_unet as nu
from napari_unet.core.alike.descriptors import object_masks, touching_pairs
from napari_unet.core.alike.ranking import AlikeRanking, first_cut
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.nn.inference.embeddings import FeatureCache
from napari_unet.nn.inference.object_features import describe_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    Frame = tuple[np.ndarray, np.ndarray]

EXAMPLES = (1, 3, 5)
FIGURES = ("precision", "recall", "recall_at_p90")
TASKS = ("debris", "pairs", "mitotic")
SCENES = ("blobs", "cells", "rods", "islands")
LEAST = 5
"""Objects of the wanted kind that a slice or stack must have to be measured on."""


@dataclass(frozen=True)
class Case:
    """Descriptors (N, D) of a slice or stack, and which objects are wanted, bool (N,).

    Where `planes` (N,) says which image each is of, the examples are of one image, and the others
    are judged.
    """

    scope: str
    descriptors: np.ndarray
    wanted: np.ndarray
    planes: np.ndarray | None = None


def stacks_of_nuclei(folder: Path, most: int) -> Iterator[tuple[str, list[Frame]]]:
    """Yield the validation images of one kind and size together."""
    groups: dict[str, list[str]] = defaultdict(list)
    with (folder / "split.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == "val":
                groups[f"{row['modality']} {row['height']}x{row['width']}"].append(row["id"])
    for name, ids in groups.items():
        if len(ids) < 5:
            continue
        frames = [
            tuple(tifffile.imread(folder / part / f"{i}.tif") for part in ("images", "labels"))
            for i in ids[:: max(1, len(ids) // most)][:most]
        ]
        yield (
            name,
            [(image.astype(np.float32), labels.astype(np.int32)) for image, labels in frames],
        )


def scenes(count: int) -> Iterator[tuple[str, list[Frame]]]:
    """Yield generated scenes of 30 to 400 objects."""
    for kind in SCENES:
        found = 0
        for seed in range(100):
            scene = make_object_scene([seed, 77], 512, kind)
            labels = scene.layers[0].astype(np.int32)
            if 30 <= len(np.unique(labels)) - 1 <= 400 and scene.image.ndim == 2:
                yield f"{kind} {seed}", [(scene.image.astype(np.float32), labels)]
                found += 1
            if found == count:
                break


def with_debris(rng: Generator, frame: Frame) -> tuple[Frame, set[int]]:
    """Draw specks between the objects, about one to seven of them."""
    image, labels = frame[0].copy(), frame[1].copy()
    ids = np.unique(labels[labels > 0])
    radius = float(np.sqrt(np.median(np.bincount(labels.ravel())[ids]) / np.pi))
    free = ndimage.distance_transform_edt(labels == 0)
    level, ground = _levels(image, labels)
    put: set[int] = set()
    for _ in range(max(2, len(ids) // 7)):
        size = max(1.5, radius * rng.uniform(0.15, 0.4))
        places = np.argwhere(free > size + 2)
        if not len(places):
            break
        at = places[rng.integers(len(places))]
        away = np.hypot(*(grid - a for grid, a in zip(np.indices(labels.shape), at, strict=True)))
        rough = smooth_noise(rng, max(labels.shape), max(2, size / 2))
        inside = away * (1 + 0.25 * rough[: labels.shape[0], : labels.shape[1]]) <= size
        inside &= labels == 0
        number = int(labels.max()) + 1
        labels[inside] = number
        soft = ndimage.gaussian_filter(inside.astype(float), 0.8)[..., None]
        image = _blend(image, soft, ground + (level - ground) * rng.uniform(0.5, 1.6))
        free = np.minimum(free, away - size)
        put.add(number)
    return (image, labels), put


def with_pairs(rng: Generator, frame: Frame) -> tuple[Frame, set[int]]:
    """Merge objects with one that they touch: a third of the pairs, each object once."""
    image, labels = frame[0], frame[1].copy()
    used: set[int] = set()
    put: set[int] = set()
    for one, other in rng.permutation(np.array(touching_pairs(labels)).reshape(-1, 2)).tolist():
        if used & {one, other} or rng.random() > 0.33:
            continue
        labels[labels == other] = one
        used |= {one, other}
        put.add(one)
    return (image, labels), put


def with_mitotic(rng: Generator, frame: Frame) -> tuple[Frame, set[int]]:
    """Redraw one object in nine as compact and bright (dark, where objects are dark)."""
    image, labels = frame[0].copy(), frame[1].copy()
    level, ground = _levels(image, labels)
    masks = object_masks(labels)
    put: set[int] = set()
    for number in rng.permutation(list(masks))[: max(2, len(masks) // 9)].tolist():
        inside = labels == number
        depth = ndimage.distance_transform_edt(inside)
        core = depth > rng.uniform(0.25, 0.4) * depth.max()
        if core.sum() < 12:
            continue
        labels[inside & ~core] = 0
        image = _blend(image, ndimage.gaussian_filter(inside.astype(float), 0.7)[..., None], ground)
        bright = ground + (level - ground) * rng.uniform(1.5, 2.2)
        image = _blend(image, ndimage.gaussian_filter(core.astype(float), 0.8)[..., None], bright)
        put.add(int(number))
    return (image, labels), put


def _levels(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of objects and of background, for each channel."""
    pixels = image.reshape(*labels.shape, -1)
    return np.median(pixels[labels > 0], 0), np.median(pixels[labels == 0], 0)


def _blend(image: np.ndarray, soft: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Draw a level into an image; its noise stays."""
    pixels = image.reshape(*image.shape[:2], -1)
    fine = pixels - ndimage.gaussian_filter(pixels, (2, 2, 0))
    drawn = pixels * (1 - soft) + (level + fine) * soft
    return np.asarray(drawn.reshape(image.shape), np.float32)


CHANGES = {"debris": with_debris, "pairs": with_pairs, "mitotic": with_mitotic}


def make_cases(
    name: str, task: str, frames: list[Frame], model: nu.Model, seed: int
) -> Iterator[Case]:
    """Put one kind of object into a stack, and describe all of its objects.

    Yields the stack and, where there are several, each slice with enough of them.
    """
    rng = np.random.default_rng([seed, TASKS.index(task)])
    changed = [CHANGES[task](rng, frame) for frame in frames]
    if sum(len(put) for _, put in changed) < LEAST:
        return
    image = np.stack([image for (image, _), _ in changed])
    labels = np.stack([labels for (_, labels), _ in changed])
    stack = open_stack(image, "TYXC" if image.ndim == 4 else "TYX")
    areas = [np.bincount(plane.ravel())[1:] for plane in labels]
    sizes = np.concatenate([area[area > 0] for area in areas])
    diameter = float(np.median(2 * np.sqrt(sizes / np.pi)))
    settings = nu.PredictSettings(diameter=diameter, certify=False, survey=False)
    found = run_to_end(describe_stack(stack, labels, model, settings, cache=FeatureCache()))
    planes = np.array([item.index[0] for item in found.items])
    wanted = np.array([i.labels[0] in changed[i.index[0]][1] for i in found.items])
    if len(frames) > 1:
        yield Case("stack", found.values, wanted)
        enough = [p for p in range(len(frames)) if np.count_nonzero(wanted & (planes == p)) >= 2]
        if len(enough) > 1:
            yield Case("others", found.values, wanted, planes)
    for plane in range(len(frames)):
        here = planes == plane
        if np.count_nonzero(wanted[here]) >= LEAST:
            yield Case("slice", found.values[here], wanted[here])


def measure(case: Case, rng: Generator) -> dict[int, tuple[float, float, float]]:
    """Return precision, recall, and recall at a precision of 0.9, by the number of examples."""
    ranking = AlikeRanking(case.descriptors)
    here = there = np.ones(len(case.wanted), bool)
    if case.planes is not None:
        counts = np.bincount(case.planes[case.wanted])
        here = case.planes == rng.choice(np.flatnonzero(counts >= 2))
        there = ~here
    positives, negatives = [int(rng.choice(np.flatnonzero(case.wanted & here)))], []
    found = {}
    for count in range(1, max(EXAMPLES) + 1):
        scores = ranking.scores(positives, negatives)
        open_ = np.ones(len(scores), bool)
        open_[[*positives, *negatives]] = False
        cut = first_cut(scores[open_])
        if count in EXAMPLES:
            asked = open_ & there
            found[count] = judged(scores[asked], case.wanted[asked], cut)
        marked = open_ & (scores >= cut)
        wrong = np.flatnonzero(here & marked & ~case.wanted)
        missed = np.flatnonzero(here & open_ & ~marked & case.wanted)
        if len(wrong):
            negatives.append(int(wrong[scores[wrong].argmax()]))
        elif len(missed):
            positives.append(int(rng.choice(missed)))
        elif (right := np.flatnonzero(here & open_ & case.wanted)).size:
            positives.append(int(rng.choice(right)))
    return found


def judged(scores: np.ndarray, wanted: np.ndarray, cut: float) -> tuple[float, float, float]:
    """Return precision and recall of what is marked, and the best recall at a precision of 0.9."""
    marked = scores >= cut
    right = np.count_nonzero(marked & wanted)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(wanted[order])
    precise = hits / np.arange(1, len(order) + 1) >= 0.9
    best = hits[precise].max(initial=0) / max(1, wanted.sum())
    return right / max(1, np.count_nonzero(marked)), right / max(1, wanted.sum()), float(best)


def main() -> int:
    """Measure, print the means; status 1 if the slider cannot reach the goal after 3 examples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("bbbc038", "scenes"))
    parser.add_argument("--most", type=int, default=8, help="images of a stack")
    parser.add_argument("--scenes", type=int, default=2, help="generated scenes of a kind")
    parser.add_argument("--seeds", type=int, default=10, help="first objects that are tried")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    began = time.perf_counter()
    rows: dict[tuple[str, str, str, int], list[tuple[float, float, float]]] = defaultdict(list)
    sources: dict[str, Any] = {
        "bbbc038": ("nuclei", lambda: stacks_of_nuclei(args.data / "bbbc038", args.most)),
        "scenes": ("general", lambda: scenes(args.scenes)),
    }
    for source in [args.only] if args.only else list(sources):
        name, stacks = sources[source]
        model = nu.load_model(name, "cpu")
        for title, frames in stacks():
            for task in TASKS:
                for case in make_cases(title, task, frames, model, 0):
                    tries = [measure(case, np.random.default_rng(s)) for s in range(args.seeds)]
                    for n in EXAMPLES:
                        mean = np.mean([found[n] for found in tries], 0)
                        rows[source, case.scope, task, n].append(tuple(mean))
            print(title, f"{time.perf_counter() - began:.0f} s", flush=True)
    table = [
        {
            "images": source, "scope": scope, "task": task, "examples": count,
            "cases": len(values),
            **dict(zip(FIGURES, np.mean(values, 0).round(3).tolist(), strict=True)),
        }
        for (source, scope, task, count), values in sorted(rows.items())
    ]  # fmt: skip
    write_results({"alike": table, "seconds": round(time.perf_counter() - began)}, args.json)
    return int(any(row["examples"] == 3 and row["recall_at_p90"] < 0.7 for row in table))


if __name__ == "__main__":
    raise SystemExit(main())
