"""Average precision of a model on the validation split of BBBC038, by modality.

    python benchmarks/accuracy.py DATA [--model nuclei]
    python benchmarks/accuracy.py DATA --zoom 0.5            # images of half, or twice, the size
    python benchmarks/accuracy.py DATA --augment flips       # test-time augmentation
    python benchmarks/accuracy.py DATA --worst 20 --overlays FOLDER

DATA is a folder with `images/`, `labels/` and `split.csv`. Everything goes through the public
functions, as a user's script would: open, segment (with `diameter=None`), evaluate.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile
from skimage.transform import rescale

import napari_unet as nu
from napari_unet.core.evaluation.metrics import Scores
from napari_unet.core.evaluation.overlay import draw_comparison, write_picture
from napari_unet.core.image.domain_shift import ShiftWarning


def zoomed(values: np.ndarray, zoom: float, labels: bool = False) -> np.ndarray:
    """Resample an image or labels to another pixel size."""
    if zoom == 1:
        return values
    return np.asarray(
        rescale(
            values,
            zoom,
            order=0 if labels else 1,
            anti_aliasing=zoom < 1 and not labels,
            preserve_range=True,
            channel_axis=-1 if values.ndim == 3 else None,
        ).astype(values.dtype)
    )


def main() -> None:
    """Segment every image, and print a table of scores by modality."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--split", default="val")
    parser.add_argument("--worst", type=int, default=0, help="also list this many worst images")
    parser.add_argument("--zoom", type=float, default=1.0, help="resample images and truth first")
    parser.add_argument("--augment", default="off", help="test-time augmentation")
    parser.add_argument("--overlays", type=Path, help="draw the worst images into this folder")
    args = parser.parse_args()
    settings = nu.PredictSettings(augment=args.augment)
    model = nu.load_model(args.model)
    with (args.data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == args.split]
    groups: dict[str, list[Scores]] = {}
    each: list[tuple[float, str, str, int, int]] = []
    began, warned = time.monotonic(), 0
    for row in rows:
        name = f"{row['id']}.tif"
        image = zoomed(tifffile.imread(args.data / "images" / name), args.zoom)
        truth = zoomed(tifffile.imread(args.data / "labels" / name), args.zoom, labels=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ShiftWarning)
            labels = nu.segment(image, model, settings)
        warned += bool(caught)
        scores = nu.evaluate(labels, truth)
        groups.setdefault(row["modality"], []).append(scores)
        found = (scores.objects, scores.true_objects)
        each.append((float(scores.ap[0]), row["id"], row["modality"], *found))
        if args.overlays:
            args.overlays.mkdir(exist_ok=True)
            where = args.overlays / f"{scores.ap[0]:.2f}-{row['id']}.png"
            write_picture(where, draw_comparison(labels, truth, image))
    print(
        f"model {model.name}, split {args.split}, zoom {args.zoom:g}, augmentation {args.augment}, "
        f"{time.monotonic() - began:.0f} s, {warned} of {len(rows)} images remarked on"
    )
    print("| modality | images | objects | found | AP50 | AP75 | AP90 | PQ | Dice |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for group, several in sorted(groups.items()):
        s = Scores.pooled(several)
        ap = " | ".join(f"{s.ap[s.at(t)]:.3f}" for t in (0.5, 0.75, 0.9))
        counts = f"{s.images} | {s.true_objects} | {s.objects}"
        print(f"| {group} | {counts} | {ap} | {s.pq[0]:.3f} | {s.dice:.3f} |")
    for ap, name, group, found, true in sorted(each)[: args.worst]:
        print(f"  {name}  {group}  AP50 {ap:.2f}  found {found} of {true}")


if __name__ == "__main__":
    main()
