"""How well the size of a kind's objects is learned from a few corrections, without any training.

    python benchmarks/taught_sizes.py DATA

First, of an image: a robot makes 10 corrections to what a model finds, in a random order (the right
outline stands for its clicks), and the size of the objects is taken from what it drew, from that
and from what it left (`labelled_diameter`, counting as 3, 10 or any number of objects). Then, of
another image of the kind: it is taken at the size of one image, and at the size that a model gives
it which was taught that. Printed are root mean square errors of the logarithm of the diameter;
errors beyond a factor of e count as that.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from kinds import Pair, opened, planes_of
from loop import Robot

import napari_unet as nu
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.training import known_pixels
from napari_unet.nn.inference.diameter_estimation import estimate_diameter
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.scale_trials import CONCLUSIVE_COUNT, try_scale
from napari_unet.nn.training.calibrate import MAX_SEEN

CASES = (
    ("nuclei", "axons_tem", ""),
    ("nuclei", "bbbc038", "histology"),
    ("nuclei", "phase_cells", ""),
    ("general", "bbbc038", "histology"),
    ("general", "axons_tem", ""),
    ("general", "axons_sem", ""),
    ("general", "isbi2012", ""),
    ("general", "bacteria_phase", ""),
)
"""Model, kind and group of the images."""
OTHERS = (0, 3, 10, 10**6)
EDGE, CORRECTIONS = 700, 10


def read_pairs(data: Path, kind: str, group: str, most: int) -> list[Pair]:
    """Return images and labels to measure on, cut to `EDGE` pixels."""
    with (data / kind / "split.csv").open() as table:
        rows = [r for r in csv.DictReader(table) if r["split"] in ("val", "measure")]
    names = [row["id"] for row in rows if row.get("modality", "") == group or not group]
    pairs = (next(planes_of(data / kind, name)) for name in names[:most])
    return [(image[:EDGE, :EDGE], truth[:EDGE, :EDGE]) for image, truth in pairs]


def corrected(labels: np.ndarray, truth: np.ndarray, robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Return labels after some corrections, and where the drawn objects are."""
    labels, drawn, count = labels.copy(), np.zeros(labels.shape, bool), 0
    for mistake in robot.mistakes(labels, truth):
        if count >= CORRECTIONS:
            break
        gone = [number for number in mistake.false if (labels == number).any()]
        labels[np.isin(labels, gone)] = mistake.whole or 0
        count += len(gone)
        if mistake.missed:
            labels[truth == mistake.missed] = labels.max() + 1
            drawn |= truth == mistake.missed
            count += 1
    return labels, drawn


def errors_of_images(pairs: list[Pair], model: nu.Model) -> dict[int, list[float]]:
    """Return the errors of the size of corrected images, by how much other objects count."""
    errors: dict[int, list[float]] = {others: [] for others in OTHERS}
    for image, truth in pairs:
        right = median_diameter(truth)
        found = nu.segment(opened(image), model, nu.PredictSettings(diameter=right))
        for seed in range(3):
            robot = Robot(model, np.random.default_rng(seed), 0, 0, Path(tempfile.gettempdir()))
            labels, drawn = corrected(found.astype(np.int32), truth, robot)
            for others in OTHERS if drawn.any() else ():
                known_pixels.OTHERS = others
                shown = labels if others else np.where(drawn, labels, 0)
                size = known_pixels.labelled_diameter(shown, drawn, InstanceHead())
                errors[others].append(math.log(size / right))
    return errors


def errors_of_others(pairs: list[Pair], model: nu.Model) -> tuple[list[float], ...]:
    """Return the errors of images taken at another one's size, and at what a taught model says."""
    errors: tuple[list[float], ...] = ([], [])
    for (first, first_truth), (image, truth) in itertools.permutations(pairs, 2):
        size, right = median_diameter(first_truth), median_diameter(truth)
        frame = open_frame(opened(first), model, nu.PredictSettings(), ())
        found = try_scale(frame, (model.diameter or 1) / size, model, nu.PredictSettings())
        seen = found.diameter / size if found.objects >= CONCLUSIVE_COUNT else 1.0
        size_taught = {"px": size, "seen": float(np.clip(seen, 1 / MAX_SEEN, MAX_SEEN))}
        training = {**model.card.training, "taught_diameter": size_taught}
        taught = replace(model, card=model.card.replace(training=training))
        errors[0].append(math.log(size / right))
        errors[1].append(math.log(estimate_diameter(opened(image), taught) / right))
    return errors


def spread(errors: list[float]) -> str:
    """Return the root mean square of errors."""
    limited = np.clip(errors, -1, 1)
    return f"{np.sqrt(np.mean(limited**2)):.2f}" if errors else ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=3, metavar="IMAGES", help="of a kind")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    models = {name: nu.load_model(name) for name, *_ in CASES}
    print("| kind | model | corrected alone | others as 3 | 10 | all |", end="")
    print(" another image: as taught | looked at |\n" + "| --- " * 8 + "|")
    for name, kind, group in CASES:
        pairs = read_pairs(args.data, kind, group, args.most)
        cells = [spread(e) for e in errors_of_images(pairs, models[name]).values()]
        cells += [spread(e) for e in errors_of_others(pairs, models[name])]
        print(f"| {kind} {group} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
