"""Average precision of models on many kinds of image, with the size of objects estimated and told.

    python benchmarks/kinds.py DATA [--models nuclei general] [--most 12]
    python benchmarks/kinds.py DATA --unseen         # kinds that nothing was trained on
    python benchmarks/kinds.py DATA --clicks 2       # clicks on so many objects of each image, too
    python benchmarks/kinds.py DATA --augment off    # no image is seen mirrored

DATA holds a folder for each kind, with `images/`, `labels/` and, where there is one, a `split.csv`.
The validation images of the kinds that the general model is trained on are measured. Those of
`--unseen` say what happens on a kind that nobody has seen: no setting is to be chosen by them.
--most takes so many images of a kind, evenly spread. Everything goes through the public functions,
as a user's script would.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from scipy import ndimage

import napari_unet as nu
from napari_unet.core.evaluation.metrics import Scores
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.nn.training.click_scores import (
    ClickScores,
    ClickTrial,
    click_through,
    pick_objects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAINED = (
    "bbbc038",
    "phase_cells",
    "axons_tem",
    "axons_sem",
    "neurons_brightfield",
)
"""Kinds that have a validation split."""
UNSEEN = ("bacteria_phase", "particles_em", "isbi2012", "ovule_nuclei_3d")
LEVELS = (0.5, 0.75, 0.9)
CLICKS = 10
"""Most clicks on an object."""

Pair = tuple[np.ndarray, np.ndarray]


def names_of(folder: Path) -> dict[str, list[str]]:
    """Return the images of a kind by group: those to validate or to measure on, if it says."""
    table = folder / "split.csv"
    if not table.is_file():
        return {folder.name: sorted(p.stem for p in (folder / "images").glob("*.tif"))}
    groups: dict[str, list[str]] = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            if row["split"] in ("val", "measure"):
                group = f"{folder.name} {row.get('modality') or ''}".strip()
                groups.setdefault(group, []).append(row["id"])
    return groups


def planes_of(folder: Path, name: str) -> Iterator[Pair]:
    """Yield image and labels; of a volume some planes, of membranes the cells between them."""
    image, labels = (
        tifffile.imread(folder / part / f"{name}.tif") for part in ("images", "labels")
    )
    if labels.ndim == 3:
        for z in range(20, len(labels), 20):
            yield image[z], labels[z]
    elif folder.name == "isbi2012":
        yield image, ndimage.label(labels > 0)[0]
    else:
        yield image, labels


def some(items: list[str], most: int) -> list[str]:
    """Take up to `most` items, evenly spread; all of them for 0."""
    if not most or most >= len(items):
        return items
    return [items[int((i + 0.5) * len(items) / most)] for i in range(most)]


def opened(image: np.ndarray) -> nu.Stack:
    """Return an image, grey or in colours, as a stack."""
    return nu.open_stack(image, axes="YXS" if image.ndim == 3 else "YX")


def clicked(image: np.ndarray, truth: np.ndarray, model: nu.Model, count: int) -> list[list[float]]:
    """Click on some objects of an image whose size is told; return the IoU after each click."""
    stack = opened(image)
    settings = nu.PredictSettings(diameter=median_diameter(truth))
    session = nu.ClickSession(model, stack, settings=settings)
    rng = np.random.default_rng(0)
    return [click_through(ClickTrial(session, o), CLICKS) for o in pick_objects(truth, count, rng)]


def measure(
    pairs: Iterator[Pair], model: nu.Model, clicks: int, augment: str
) -> tuple[list[Scores], list[Scores], list[list[float]]]:
    """Score a model on one group: size estimated, size told, and clicks."""
    estimated, told, ious = [], [], []
    for image, truth in pairs:
        for size, scores in ((None, estimated), (median_diameter(truth) or None, told)):
            settings = nu.PredictSettings(diameter=size, augment=augment)
            labels = nu.segment(image, model, settings)
            scores.append(nu.evaluate(labels, truth, LEVELS))
        if clicks:
            ious += clicked(image, truth, model, clicks)
    return estimated, told, ious


def row(
    group: str, model: str, scores: tuple[list[Scores], list[Scores], list[list[float]]]
) -> str:
    """Write one line of the table."""
    estimated, told, ious = scores
    pooled = [Scores.pooled(these) for these in (estimated, told)]
    cells = [" / ".join(f"{v:.2f}".lstrip("0") for v in s.ap) for s in pooled]
    counts = f"{pooled[0].images} | {pooled[0].true_objects} | {pooled[0].objects}"
    line = f"| {group} | {model} | {counts} | {cells[0]} | {cells[1]} |"
    if ious:
        after = ClickScores(np.array(ious))
        values = " / ".join(f"{after.after(k):.2f}".lstrip("0") for k in (1, 3, 5))
        line += f" {values} | {after.number_of_clicks(0.85):.1f} |"
    return line


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["nuclei", "general"])
    parser.add_argument("--kinds", nargs="+", help="folders; default: all with a validation split")
    parser.add_argument("--unseen", action="store_true", help="the kinds that are never trained on")
    parser.add_argument("--most", type=int, default=0, metavar="IMAGES", help="of a kind; 0: all")
    parser.add_argument("--clicks", type=int, default=0, metavar="OBJECTS", help="in each image")
    parser.add_argument("--augment", default="auto", help="test-time augmentation")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    models = [nu.load_model(name) for name in args.models]
    began = time.monotonic()
    columns = ["kind", "model", "images", "objects", "found"]
    columns += ["AP50 / 75 / 90, size estimated", "size told"]
    columns += ["IoU after 1 / 3 / 5 clicks", f"NoC85, at most {CLICKS}"] if args.clicks else []
    print(f"| {' | '.join(columns)} |")
    print("|" + " --- |" * len(columns))
    for kind in args.kinds or (UNSEEN if args.unseen else TRAINED):
        folder = args.data / kind
        for group, names in names_of(folder).items():
            for model in models:
                pairs = (pair for n in some(names, args.most) for pair in planes_of(folder, n))
                clicks = args.clicks if model.click else 0
                found = measure(pairs, model, clicks, args.augment)
                print(row(group, model.name, found), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
