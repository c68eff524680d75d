"""Train the shipped nuclei model, from scratch, on the BBBC038 images.

    python scripts/train_nuclei.py DATA --out RUN --minutes 85
    python scripts/train_nuclei.py DATA --out RUN --minutes 85 --resume

DATA is a folder with `images/`, `labels/` and a `split.csv` (columns id, split, modality). RUN gets
the checkpoint, the log and the finished model folder. The run is seeded; `--steps` in place of
`--minutes` gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import tifffile
import torch

from napari_unet.core.samples import Samples
from napari_unet.core.spec import ModelSpec, TrainSettings
from napari_unet.nn.net import UNet
from napari_unet.nn.train import TrainState, load_checkpoint, train

SPEC = ModelSpec(in_channels=3, depth=4, width=16, skip="add", up="transpose")


def read_split(data: Path, split: str) -> Samples:
    """Read one split of the data set; the modalities are the sampling's groups."""
    with (data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    names = [f"{row['id']}.tif" for row in rows]
    pairs = [(data / "images" / n, tifffile.imread(data / "labels" / n)) for n in names]
    return Samples.from_labels(pairs, groups=[row["modality"] for row in rows])


def main() -> None:
    """Run the training that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=TrainSettings.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(
        minutes=args.minutes, steps=args.steps, seed=args.seed, batch=4, learning_rate=1.5e-3
    )

    torch.manual_seed(args.seed)
    net = UNet(SPEC).to(args.device, memory_format=torch.channels_last)
    state = TrainState.start(net, settings)
    checkpoint = args.out / "checkpoint.safetensors"
    if args.resume:
        load_checkpoint(state, checkpoint)
    samples = read_split(args.data, "train")
    sys.stderr.write(f"{json.dumps(samples.card())}\n")

    losses: list[float] = []
    with (args.out / "log.csv").open("a") as log:
        for step in train(state, samples, settings, checkpoint=checkpoint):
            losses.append(step.loss)
            if step.done % 25 == 0:
                log.write(f"{step.done},{np.mean(losses):.5f},{step.learning_rate:.2e}\n")
                log.flush()
                sys.stderr.write(
                    f"step {step.done} loss {np.mean(losses):.4f} "
                    f"{step.seconds_left / 60:.1f} min left\n"
                )
                losses.clear()


if __name__ == "__main__":
    main()
