"""Which shape field separates objects best: networks of one kind, trained alike, decoded alike.

    python benchmarks/shape_fields.py DATA --steps 450

DATA is a folder with `images/`, `labels/` and `split.csv` (BBBC038). Every field is a second map
beside the foreground with a peak in each object; the same watershed divides them all. Network,
seed, crops, steps and loss are the same, too, and each field has its decoding calibrated.

- distance: how deep inside its object a pixel lies, as a share of the deepest (what is shipped)
- interior: 1 inside, 0 on a rim of two pixels (the three classes of many U-Nets)
- centre: a Gaussian around the object's deepest pixel, half as wide as the object
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
import torch
from scipy import ndimage

from napari_unet.core.instances.heads import InstanceHead, relative_distance
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import Model, pick_device
from napari_unet.nn.training.calibrate import calibrate, scores_by_group
from napari_unet.nn.training.checkpoint import TrainState
from napari_unet.nn.training.held_out import sample_maps
from napari_unet.nn.training.loop import train
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = ModelSpec(in_channels=3, depth=4, width=16, skip="add", up="transpose")
DIAMETER = 22.0
RIM = 2


def interior(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels more than `RIM` pixels away from everything that is not their object."""
    apart = np.zeros(labels.shape, bool)
    wide = np.pad(labels, 1, mode="edge")
    for axis, step in ((0, -1), (0, 1), (1, -1), (1, 1)):
        apart |= np.roll(wide, step, axis)[1:-1, 1:-1] != labels
    inside = ndimage.distance_transform_edt(~apart) >= RIM if apart.any() else ~apart
    return ((labels > 0) & inside).astype(np.float32)


def centre(labels: np.ndarray) -> np.ndarray:
    """Draw a Gaussian around each object's deepest pixel."""
    depth, found = relative_distance(labels), np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box is None:
            continue
        inside = labels[box] == index
        at = np.unravel_index(np.where(inside, depth[box], -1).argmax(), inside.shape)
        y, x = np.ogrid[tuple(slice(0, n) for n in inside.shape)]
        width = np.sqrt(inside.sum() / np.pi) / 2
        peak = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * width**2))
        found[box][inside] = peak[inside]
    return found


FIELDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "distance": relative_distance,
    "interior": interior,
    "centre": centre,
}


@dataclass(frozen=True)
class FieldHead(InstanceHead):
    """The instance head with another second map."""

    field: Callable[[np.ndarray], np.ndarray]

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Return foreground and field, float32 (2, Y, X)."""
        return np.stack([(labels > 0).astype(np.float32), self.field(labels)])


def read_split(data: Path, split: str, head: InstanceHead) -> Samples:
    """Read one split, with the head's targets."""
    with (data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    names = [f"{row['id']}.tif" for row in rows]
    pairs = [(data / "images" / n, tifffile.imread(data / "labels" / n)) for n in names]
    groups = [row["modality"] for row in rows]
    # The network's head stays the same, only what its second map is trained to be does not.
    return Samples(Samples.from_labels(pairs, groups=groups, head=head).items)


def measure(name: str, args: argparse.Namespace) -> list[str]:
    """Train with one field and return its row of the table."""
    head, device = FieldHead(FIELDS[name]), pick_device("auto")
    settings = TrainSettings(
        steps=args.steps, batch=4, learning_rate=1.5e-3, plain=0.5, diameter=DIAMETER, average=0.99
    )
    torch.manual_seed(settings.seed)
    net = UNet(SPEC).to(device, memory_format=torch.channels_last)
    state = TrainState.start(net, settings)
    for step in train(state, read_split(args.data, "train", head), settings):
        if step.done % 50 == 0:
            sys.stderr.write(f"{name}: step {step.done}, {step.seconds_left:.0f} s left\n")
    card = ModelCard(name, SPEC, training={"working_diameter_px": DIAMETER})
    model = Model(card, state.averaged_net().to(device), device)
    validation = read_split(args.data, "val", head)
    maps = [sample_maps(model, sample) for sample in validation.items]
    decode = calibrate(maps, validation, DIAMETER)
    groups = scores_by_group(maps, validation, decode, DIAMETER)
    began = time.perf_counter()
    for values in maps:
        decode_instances(values, decode)
    pixels = sum(values[0].size for values in maps) / 1e6
    cells = [f"{ap:.3f}" for scores in groups.values() for ap in scores.ap]
    return [name, *cells, f"{(time.perf_counter() - began) / pixels:.2f} s"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--fields", nargs="+", choices=FIELDS, default=list(FIELDS))
    args = parser.parse_args()
    names = [f"{group} AP{t}" for group in ("fluorescence", "histology") for t in (50, 75, 90)]
    print("|", " | ".join(["field", *names, "decoding a Mpx"]), "|")
    print("|", " | ".join(["---"] * 8), "|")
    for name in args.fields:
        print("|", " | ".join(measure(name, args)), "|", flush=True)


if __name__ == "__main__":
    main()
