"""How often a second size of objects is named, and how often that helps.

    python benchmarks/second_size.py DATA [--model general] [--most 10]

DATA holds the folders of `KINDS`, each with `images`, `labels` and `split.csv`; of those with a
split the first validation images are taken. Their objects have one size each, as experts drew them,
so that a second one helps only where the size that is taken is wrong (by more than a factor of 1.6)
and the second is right. Drawn cells with a nucleus in each have two sizes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tifffile

import napari_unet as nu
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.inference.diameter_estimation import resolve_diameter

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))
from discs import nested_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

KINDS = (
    "bbbc038/histology",
    "bbbc038/fluorescence",
    "phase_cells",
    "axons_sem",
    "axons_tem",
    "neurons_brightfield",
    "bacteria_phase",
    "particles_em",
)
NESTED = ((20, 74), (14, 60), (16, 80), (24, 90), (12, 40), (30, 120))
"""Diameters of nuclei, and of the cells around them."""
RIGHT = 1.6


def look(image: np.ndarray | Path, model: nu.Model) -> tuple[float, float]:
    """Return the diameter that is taken, and a second one that is named, or 0."""
    settings, remarks = resolve_diameter(open_stack(image), model, nu.PredictSettings())
    named = [remark.sizes[1] for remark in remarks if remark.sizes]
    return settings.diameter or 0.0, next(iter(named), 0.0)


def pictures(data: Path, kind: str, most: int) -> Iterator[tuple[Path, float]]:
    """Yield images of a kind with the median diameter of their objects in pixels."""
    folder, _, modality = kind.partition("/")
    with (data / folder / "split.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["split"] in ("val", "measure")]
    rows = [row for row in rows if not modality or row["modality"] == modality]
    for row in rows[:most]:
        labels = tifffile.imread(data / folder / "labels" / f"{row['id']}.tif")
        yield data / folder / "images" / f"{row['id']}.tif", median_diameter(labels)


def is_right(diameter: float, true: float) -> bool:
    """Return whether a diameter is within a factor of the true one."""
    return diameter > 0 and max(diameter / true, true / diameter) <= RIGHT


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="general")
    parser.add_argument("--most", type=int, default=10)
    args = parser.parse_args()
    model = nu.load_model(args.model, "cpu")
    print("| kind | images | taken size is right | second named | that helps |")
    for kind in KINDS:
        images = right = named = helps = 0
        for path, true in pictures(args.data, kind, args.most):
            taken, other = look(path, model)
            images += 1
            right += is_right(taken, true)
            named += other > 0
            helps += is_right(other, true) and not is_right(taken, true)
        print(f"| {kind} | {images} | {right} | {named} | {helps} |", flush=True)
    found = [look(nested_image(*sizes, size=400), model)[1] for sizes in NESTED]
    print(f"| drawn cells with nuclei | {len(NESTED)} | - | {sum(x > 0 for x in found)} | all |")


if __name__ == "__main__":
    main()
