"""How often images are remarked on: those of the model's kind, other kinds, and rescaled ones.

    python benchmarks/shift.py DATA [--model nuclei]

DATA holds the folders `bbbc038` (validation split: the model's own kind) and `isbi2012` (electron
microscopy). Photographs, textures and text of scikit-image and pure noise are other kinds, too.
Rescaled images are validation images three times larger or smaller, with the diameter that was
right for the original.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import skimage.data
import tifffile
from accuracy import zoomed

import napari_unet as nu
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.inference.diameter_estimation import resolve_diameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.image.domain_shift import ShiftRemark

OTHERS = (
    "camera",
    "astronaut",
    "coffee",
    "text",
    "page",
    "brick",
    "grass",
    "gravel",
    "moon",
    "clock",
)


def remarks(
    image: np.ndarray, model: nu.Model, diameter: float | None = None
) -> tuple[ShiftRemark, ...]:
    """Return what is remarked on before a run."""
    settings = nu.PredictSettings(diameter=diameter)
    return resolve_diameter(open_stack(image), model, settings)[1]


def validation(data: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the validation images of the model's kind, with their objects' diameter in pixels."""
    with (data / "bbbc038" / "split.csv").open() as file:
        names = [f"{row['id']}.tif" for row in csv.DictReader(file) if row["split"] == "val"]
    for name in names:
        labels = tifffile.imread(data / "bbbc038" / "labels" / name)
        yield tifffile.imread(data / "bbbc038" / "images" / name), median_diameter(labels)


def others(data: Path) -> Iterator[np.ndarray]:
    """Yield images of other kinds."""
    yield from (
        tifffile.imread(p) for p in sorted((data / "isbi2012" / "images").glob("*.tif"))[::3]
    )
    yield from (getattr(skimage.data, name)() for name in OTHERS)
    rng = np.random.default_rng(0)
    yield from (rng.normal(100, 20, (256, 256)) for _ in range(3))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--verbose", action="store_true", help="print every remark")
    args = parser.parse_args()
    model = nu.load_model(args.model)
    own = list(validation(args.data))
    cases = {
        "own kind, diameter estimated (goal <= 2 %)": [(image, None) for image, _ in own],
        "own kind, diameter given (goal <= 2 %)": [(image, size) for image, size in own],
        "other kinds (goal >= 80 %)": [(image, None) for image in others(args.data)],
        "three times larger (goal >= 80 %)": [(zoomed(image, 3), size) for image, size in own],
        "three times smaller (goal >= 80 %)": [(zoomed(image, 1 / 3), size) for image, size in own],
    }
    print("| images | count | remarked on |\n| --- | --- | --- |")
    for name, several in cases.items():
        found = [remarks(image, model, diameter) for image, diameter in several]
        share = sum(map(bool, found)) / len(found)
        print(f"| {name} | {len(found)} | {share:.0%} |", flush=True)
        for number, these in enumerate(found if args.verbose else ()):
            for remark in these:
                print(f"    {number}: {remark.text}")


if __name__ == "__main__":
    main()
