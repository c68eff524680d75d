"""Train the shipped nuclei model, from scratch, on the BBBC038 images.

    python scripts/train_nuclei.py DATA --out RUN --minutes 60 --polish 60
    python scripts/train_nuclei.py DATA --out RUN --minutes 60 --polish 60 --resume
    python scripts/train_nuclei.py DATA --out RUN --start nuclei --polish 60  # the second part
    python scripts/train_nuclei.py DATA --replay MODEL_FOLDER                 # see below

DATA is a folder with `images/`, `labels/` and a `split.csv` (columns id, split, modality). RUN gets
the checkpoint, the log and, at the end, the model folder `RUN/nuclei`: the averaged weights that
scored best on the validation split, decoding calibrated there, and the card. Polishing trains those
weights a little further under the conditions of use: with frozen BatchNorm statistics (those of a
small batch of unlike images are far from the running ones), and mostly on pixels that are neither
warped nor varied. The run is seeded.

The model folder also gets a rehearsal set: training crops that fine-tuning mixes in against
forgetting. With --replay nothing is trained: an existing model gets one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from skimage.transform import resize
from train_general import read_split

from napari_unet.core.evaluation.overlay import draw_outlines
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import attach_rehearsal
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.rehearsal import choose_rehearsal_crops, pack_rehearsal
from napari_unet.core.training.run_state import CHECKPOINT
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.diameter_estimation import training_statistics
from napari_unet.nn.inference.model import Model, load_model, pick_device, save_model
from napari_unet.nn.inference.segment import segment
from napari_unet.nn.training.calibrate import calibrate, format_agreement, scores_by_group
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.held_out import Validator, sample_maps
from napari_unet.nn.training.loop import train
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from napari_unet.core.evaluation.metrics import Scores

SPEC = ModelSpec(in_channels=3, depth=4, width=16, skip="add", up="transpose")
LICENCE = "CC0-1.0 (weights and training data: BBBC038v1, 2018 Data Science Bowl)"
REPORT_EVERY = TrainSettings.log_every
DIAMETER = 22.0
"""Objects of this size, in pixels, are those that the network works on best."""
VALIDATE_EVERY = 1500
DECODE = {"threshold": 0.6, "merge": 0.15, "min_size": 30}
"""How maps become objects while the weights are being chosen; calibrated at the end."""


def modality_samples(data: Path, split: str) -> Samples:
    """Read one split of the data set; the modalities are the sampling's groups."""
    rows = read_split(data, split)
    names = [f"{row['id']}.tif" for row in rows]
    pairs = [(data / "images" / n, tifffile.imread(data / "labels" / n)) for n in names]
    return Samples.from_labels(pairs, groups=[row["modality"] for row in rows])


def run_training(state: TrainState, data: Path, settings: TrainSettings, out: Path) -> TrainState:
    """Train to the end of the budget, with a line on standard error every few steps."""
    training = {"working_diameter_px": DIAMETER}
    card = ModelCard(name="nuclei", spec=SPEC, decode=DECODE, training=training)
    steps = train(
        state,
        modality_samples(data, "train"),
        settings,
        validate=Validator(modality_samples(data, "val"), card),
        checkpoint=out / CHECKPOINT,
        log=TrainLog(out),
    )
    for step in steps:
        if step.validation:
            sys.stderr.write(f"step {step.done}  {step.validation}\n")
        if step.done % REPORT_EVERY == 0:
            minutes = step.seconds_left / 60
            sys.stderr.write(f"step {step.done}  loss {step.loss:.4f}  {minutes:.1f} min left\n")
    return state


def first_part(args: argparse.Namespace, device: torch.device) -> TrainState:
    """Train from scratch."""
    settings = TrainSettings(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        batch=8,
        learning_rate=2e-3,
        plain=0.3,
        diameter=DIAMETER,
        validate_every=VALIDATE_EVERY,
    )
    torch.manual_seed(args.seed)
    net = UNet(SPEC).to(device, memory_format=torch.channels_last)
    state = TrainState.start(net, settings)
    if args.resume:
        load_checkpoint(state, args.out / CHECKPOINT)
    return run_training(state, args.data, settings, args.out)


def polish(net: UNet, args: argparse.Namespace) -> TrainState:
    """Train weights further under the conditions of use."""
    settings = TrainSettings(
        minutes=args.polish,
        seed=args.seed + 1,
        batch=8,
        learning_rate=1e-3,
        warm_up=0.02,
        plain=0.6,
        diameter=DIAMETER,
        validate_every=VALIDATE_EVERY,
        freeze_norm=True,
    )
    state = TrainState.start(net, settings)
    out = args.out / "polish"
    if args.resume and (out / CHECKPOINT).exists():
        load_checkpoint(state, out / CHECKPOINT)
    return run_training(state, args.data, settings, out)


def finish(net: UNet, data: Path, out: Path, training: dict) -> None:
    """Calibrate a trained network, fill in its card, and write the model folder."""
    validation, device = modality_samples(data, "val"), pick_device("auto")
    training["working_diameter_px"] = DIAMETER
    card = ModelCard(name="nuclei", spec=SPEC, licence=LICENCE, training=training)
    # float16 rounds the weights: calibrate and measure those that will be shipped.
    folder = save_model(Model(card, net.to(device), device), out / "nuclei")
    model = load_model(folder, device.type)

    maps = [sample_maps(model, sample) for sample in validation.items]
    decode = calibrate(maps, validation, DIAMETER)
    chosen = {"threshold": decode.threshold, "merge": decode.merge, "min_size": decode.min_size}
    model = Model(model.card.replace(decode=chosen), model.net, device)
    training["statistics"] = training_statistics(model, modality_samples(data, "train"))
    metrics = scores_at(scores_by_group(maps, validation, decode, DIAMETER))
    metrics["bfloat16_dice"] = round(format_agreement(model, validation), 5)
    card = model.card.replace(metrics=metrics, training=training)
    model = Model(card, model.net, device)
    save_model(model, out / "nuclei", thumbnail=thumbnail(model, data))
    add_rehearsal(out / "nuclei", data)
    sys.stderr.write(f"{json.dumps({'decode': chosen, 'metrics': metrics}, indent=2)}\n")


def scores_at(groups: dict[str, Scores]) -> dict[str, Any]:
    """Return average precision as it is stored on the card."""
    return {
        group: {
            f"AP{100 * t:.0f}": round(float(v), 4) for t, v in zip(s.thresholds, s.ap, strict=True)
        }
        for group, s in groups.items()
    }


def add_rehearsal(folder: Path, data: Path) -> None:
    """Add crops that represent the training split to a model folder."""
    replay = pack_rehearsal(choose_rehearsal_crops(modality_samples(data, "train"), DIAMETER))
    attach_rehearsal(folder, replay)
    sys.stderr.write(f"{folder}: replay of {len(replay):,} bytes\n")


def thumbnail(model: Model, data: Path) -> np.ndarray:
    """Draw what the model finds in one validation image, 128 x 128 RGB."""
    rows = read_split(data, "val")
    row = next(r for r in rows if r["modality"] == "fluorescence" and int(r["n_objects"]) > 20)
    image = tifffile.imread(data / "images" / f"{row['id']}.tif")
    side = min(image.shape[:2])
    picture = draw_outlines(image, segment(image, model))[:side, :side]
    return (255 * resize(picture, (128, 128), anti_aliasing=True)).astype(np.uint8)


def main() -> None:
    """Train the model, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--replay", type=Path, metavar="MODEL_FOLDER", help="only write its replay")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=TrainSettings.steps)
    parser.add_argument("--polish", type=float, default=8.0, metavar="MINUTES", help="0: none")
    parser.add_argument("--start", metavar="MODEL", help="polish this model instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.replay:
        add_rehearsal(args.replay, args.data)
        return
    if not args.out:
        parser.error("give --out RUN, or --replay MODEL_FOLDER.")
    device = pick_device(args.device)
    if args.start:
        start = load_model(args.start, device.type)
        net, before = start.net, start.card.training
    else:
        state = first_part(args, device)
        net, before = state.best_net(), {"steps": state.step, "seconds": state.seconds}
    budget = {key: before[key] for key in ("steps", "seconds")} | {"seed": args.seed}
    if args.polish:
        net = net.to(device, memory_format=torch.channels_last)
        polished = polish(net, args)
        budget["steps"] += polished.step
        budget["seconds"] += round(polished.seconds)
        net = polished.best_net()
    finish(net, args.data, args.out, modality_samples(args.data, "train").card() | budget)


if __name__ == "__main__":
    main()
