"""Average precision of a model on the validation split of BBBC038, by modality.

    python benchmarks/accuracy.py DATA [--model nuclei]

DATA is a folder with `images/`, `labels/` and `split.csv`. Everything goes through the public
functions, as a user's script would: open, segment, evaluate.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import tifffile

import napari_unet as nu
from napari_unet.core.metrics import Scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--split", default="val")
    parser.add_argument("--worst", type=int, default=0, help="also list this many worst images")
    args = parser.parse_args()
    model = nu.load_model(args.model)
    with (args.data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == args.split]
    groups: dict[str, list[Scores]] = {}
    each: list[tuple[float, str, str, int, int]] = []
    began = time.monotonic()
    for row in rows:
        name = f"{row['id']}.tif"
        labels = nu.segment(args.data / "images" / name, model)
        scores = nu.evaluate(labels, tifffile.imread(args.data / "labels" / name))
        groups.setdefault(row["modality"], []).append(scores)
        found = (scores.objects, scores.true_objects)
        each.append((float(scores.ap[0]), row["id"], row["modality"], *found))
    print(f"model {model.name}, split {args.split}, {time.monotonic() - began:.0f} s")
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
