"""How deep a valley has to be to divide an object: what a tuning chooses, and what would be best.

    python benchmarks/merging.py DATA                          # cells of electron microscopy
    python benchmarks/merging.py DATA --kind phase_cells --images 3 --steps 60

DATA holds a folder for each kind of image. The model is tuned on whole labelled images, evenly
spread over those that are not measured on; then AP50 is measured for each merging depth: on those
images, on what the model could do before (its rehearsal set), and, with sizes told, on images that
the tuning has never seen.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kinds import names_of, opened, planes_of, some

import napari_unet as nu
from napari_unet.core.evaluation.metrics import Scores
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.progress import run_to_end
from napari_unet.nn.training.calibrate import MERGES
from napari_unet.nn.training.held_out import CORRECTIONS, decode_sample, sample_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinds import Pair

    from napari_unet.core.training.training_sample import Sample


def ap50(model: nu.Model, maps: Sequence[np.ndarray], items: Sequence[Sample], merge: float) -> str:
    """Score the objects of samples that are divided at one depth."""
    settings = model.decoding.updated(merge=merge)
    scores = [
        nu.evaluate(decode_sample(values, item, settings, model.diameter), item.labels, (0.5,))
        for values, item in zip(maps, items, strict=True)
    ]
    return f"{Scores.pooled(scores).ap[0]:.3f}" if scores else ""


def untouched(model: nu.Model, pairs: Sequence[Pair], merge: float) -> str:
    """Score a model on images whose sizes are told."""
    scores = []
    for image, truth in pairs:
        settings = nu.PredictSettings(diameter=median_diameter(truth), merge=merge)
        scores.append(nu.evaluate(nu.segment(image, model, settings), truth, (0.5,)))
    return f"{Scores.pooled(scores).ap[0]:.3f}"


def main() -> None:
    """Tune, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", default="isbi2012", help="a folder of DATA")
    parser.add_argument("--model", default="general")
    parser.add_argument("--images", type=int, default=4, help="to tune on")
    parser.add_argument("--scored", type=int, default=3, help="images that are measured on")
    parser.add_argument("--steps", type=int, default=150, help="of the tuning")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    folder = args.data / args.kind
    measured = [name for names in names_of(folder).values() for name in some(names, args.scored)]
    others = sorted({p.stem for p in (folder / "images").glob("*.tif")} - set(measured))
    taught, seen = (
        [pair for name in names for pair in planes_of(folder, name)]
        for names in (some(others, args.images), measured)
    )
    pairs = [(opened(image), labels.astype(np.uint32)) for image, labels in taught]
    settings = nu.TrainSettings(minutes=None, steps=args.steps)
    model = nu.load_model(args.model)
    tuning = nu.Tuning(model, nu.Samples.from_labels(pairs), settings)
    tuned = run_to_end(tuning.steps())
    replay = [item for item in tuning.evaluation.held.items if item.group != CORRECTIONS]
    parts = (tuning.samples.items, replay)
    maps = [[sample_maps(tuned, item) for item in items] for items in parts]
    print(f"{args.kind}, {args.steps} steps: depth {model.decoding.merge} before, ", end="")
    print(f"{tuned.decoding.merge} chosen\n")
    print("| merging depth | images tuned on | rehearsal set | untouched images |")
    print("| --- | --- | --- | --- |")
    for merge in MERGES:
        known = [ap50(tuned, m, items, merge) for m, items in zip(maps, parts, strict=True)]
        print(f"| {merge} | {' | '.join(known)} | {untouched(tuned, seen, merge)} |", flush=True)


if __name__ == "__main__":
    main()
