"""Train a network that draws the membranes of nerve cells, on the ISBI 2012 sections.

    python scripts/train_membranes.py DATA --out RUN --minutes 40
    python scripts/train_membranes.py DATA --out RUN --minutes 40 --resume

DATA is a folder with `images/`, `labels/` (1 inside cells, 0 on membranes) and a `split.csv`
(columns id, split). RUN gets the checkpoint, `log.csv`, `curve.png` and, at the end, the model
folder `RUN/membranes`. The run is seeded.

The sections of the split `val` are scored during the training for the curve alone: the averaged
weights of the last step are stored and, at the end, scored as the challenge does. The challenge
chooses the best threshold on the scored sections; nothing else is chosen on them.
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

from napari_unet.core.errors import UnetError
from napari_unet.core.instances.heads import get_head
from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import PredictSettings, TrainSettings
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.run_state import CHECKPOINT
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import Model, load_model, pick_device, save_model
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.held_out import Validator
from napari_unet.nn.training.loop import train
from napari_unet.nn.unet.net import UNet

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from lab.membranes import score_membranes

SPEC = ModelSpec(in_channels=1, head="semantic", classes=2, depth=4, width=16)
LICENCE = "For research; trained on the ISBI 2012 EM segmentation challenge's images."
REPORT_EVERY = TrainSettings.log_every


def read_names(data: Path, split: str) -> list[str]:
    """Return the file names of one split."""
    with (data / "split.csv").open() as file:
        return [f"{row['id']}.tif" for row in csv.DictReader(file) if row["split"] == split]


def read_samples(data: Path, split: str) -> Samples:
    """Read the sections of one split."""
    names = read_names(data, split)
    pairs = [(data / "images" / n, tifffile.imread(data / "labels" / n)) for n in names]
    head = get_head(SPEC)
    return Samples.from_labels(pairs, head=head, channels=SPEC.in_channels)


def run_training(args: argparse.Namespace, samples: Samples, device: torch.device) -> TrainState:
    """Train to the end of the budget, with a line on standard error every few steps."""
    settings = TrainSettings(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        batch=4,
        crop=192,
        learning_rate=1.5e-3,
        plain=0.4,
        validate_every=args.validate_every,
    )
    torch.manual_seed(args.seed)
    net = UNet(SPEC).to(device, memory_format=torch.channels_last)
    state = TrainState.start(net, settings)
    checkpoint = args.out / CHECKPOINT
    if args.resume and checkpoint.exists():
        load_checkpoint(state, checkpoint)
    validate = Validator(read_samples(args.data, "val"), ModelCard("membranes", SPEC))
    log = TrainLog(args.out)
    run = train(state, samples, settings, validate=validate, checkpoint=checkpoint, log=log)
    for step in run:
        if step.validation or step.done % REPORT_EVERY == 0:
            scores = "".join(
                f"  {name} {value:.4f}" for name, value in (step.validation or {}).items()
            )
            loss, minutes = log.rows[-1]["loss"], step.seconds_left / 60
            sys.stderr.write(f"step {step.done}  loss {loss:.4f}  {minutes:.1f} min left{scores}\n")
    return state


def score(model: Model, data: Path) -> dict[str, float]:
    """Score the validation sections, each seen in eight ways, as the challenge does."""
    names = read_names(data, "val")
    settings = PredictSettings(augment="flips and turns", precision="float32")
    inside = np.stack([predict(data / "images" / name, model, settings)[1] for name in names])
    truth = np.stack([tifffile.imread(data / "labels" / name) for name in names])
    scores = score_membranes(inside, truth)
    return {
        "v_rand": round(scores.v_rand, 4),
        "v_rand_threshold": scores.v_rand_threshold,
        "pixel_error": round(scores.pixel_error, 4),
        "pixel_error_threshold": scores.pixel_error_threshold,
    }


def main() -> None:
    """Train and score the network, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=TrainSettings.steps)
    parser.add_argument("--validate-every", type=int, default=TrainSettings.validate_every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if (args.out / CHECKPOINT).exists() and not args.resume:
        parser.error(f"{args.out} holds a training; go on with --resume, or give another folder.")
    try:
        device = pick_device(args.device)
        samples = read_samples(args.data, "train")
        state = run_training(args, samples, device)
        budget = {"steps": state.step, "seconds": round(state.seconds), "seed": args.seed}
        card = ModelCard("membranes", SPEC, licence=LICENCE, training=samples.card() | budget)
        model = Model(card, state.averaged_net(), device)
        # float16 rounds the weights: score those that were written.
        model = load_model(save_model(model, args.out / "membranes"), device.type)
        metrics = score(model, args.data)
        save_model(
            Model(model.card.replace(metrics=metrics), model.net, device), args.out / "membranes"
        )
    except (OSError, UnetError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{json.dumps(metrics, indent=2)}\n")


if __name__ == "__main__":
    main()
