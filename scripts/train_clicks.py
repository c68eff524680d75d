"""Train the click head of a model, on its frozen trunk, by simulated clicks.

    python scripts/train_clicks.py DATA --model nuclei --out RUN --minutes 60
    python scripts/train_clicks.py DATA --model nuclei --out RUN --minutes 60 --resume
    python scripts/train_clicks.py DATA --model nuclei --out RUN --minutes 60 --start nuclei
    python scripts/train_clicks.py KINDS --model general --out RUN --minutes 60 --start nuclei

DATA is a folder with `images/`, `labels/` and a `split.csv` (BBBC038). Half of the pictures come
from its training split, half are generated, so that clicks work on objects that are no nuclei.
KINDS holds a folder for each kind that `train_general.py` trains on: then half of the pictures are
theirs, by the shares in which the trunk sees them, and a quarter each is of the two sorts of
generated scenes. RUN gets the checkpoint, `log.csv`, `curve.png` and, at the end, the model folder
`RUN/MODEL`: the unchanged model with the averaged head that scored best on objects of the
validation split and of held-out generated images. With --start the training begins with the click
head of a model, which may be MODEL itself; with --mean the weights are half-way back to that one's.
The run is seeded.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tifffile
import torch
from skimage.io import imread

import napari_unet as nu
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.folder import THUMBNAIL
from napari_unet.core.models.store import find_model
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.run_state import CHECKPOINT
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import Model, load_model, save_model
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.click_samples import EDGE, LabelledImages, PictureSource
from napari_unet.nn.training.click_scores import (
    ClickTrial,
    ClickValidator,
    make_trials,
    pick_objects,
)
from napari_unet.nn.training.click_training import (
    train_clicks,
)
from napari_unet.nn.unet.click_head import ClickHead

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from lab.synthetic_images import Picture, SyntheticImageSource, make_synthetic_image, normalise
from lab.synthetic_kinds import make_object_scene
from train_general import bare_sample, crop_weights, mean_of, read_samples, read_split, report

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAIN_SCENES, VALIDATION_SCENES = 0, 1
"""The seeds of generated images begin with one of these."""
PER_IMAGE = 2
"""Number of objects that are clicked on in each image of a validation."""


def bare_samples(data: Path, split: str, channels: int) -> Samples:
    """Read one split of the data set, without targets: only a trunk's training needs them."""
    items = []
    for row in read_split(data, split):
        labels = tifffile.imread(data / "labels" / f"{row['id']}.tif")
        image = normalise(tifffile.imread(data / "images" / f"{row['id']}.tif"), channels)
        sample = bare_sample(image, labels, row["modality"])
        items.append(sample)
    return Samples(items)


def is_split(data: Path) -> bool:
    """Tell whether a folder is one data set; otherwise it holds a folder for each kind."""
    return (data / "split.csv").is_file()


@dataclass(frozen=True)
class ObjectScenes:
    """Scenes of the shapes that the general model is trained on, at its working diameter."""

    seed: int

    def draw(self, rng: np.random.Generator, channels: int, diameter: float | None) -> Picture:
        """Generate a scene, zoomed as `LabelledImages` are."""
        scene = make_object_scene([self.seed, int(rng.integers(2**31))], EDGE)
        image, labels = normalise(scene.image, channels), scene.layers[0]
        sample = bare_sample(image, labels, "scenes")
        return LabelledImages.from_samples(Samples([sample])).draw(rng, channels, diameter)


def picture_sources(data: Path, channels: int) -> list[PictureSource]:
    """Return what the head is trained on: images and generated scenes, half and half."""
    if is_split(data):
        images = LabelledImages.from_samples(bare_samples(data, "train", channels))
        return [images, SyntheticImageSource(TRAIN_SCENES)]
    samples = read_samples(data, "train")
    images = LabelledImages(samples, crop_weights(samples))
    return [images, images, SyntheticImageSource(TRAIN_SCENES), ObjectScenes(TRAIN_SCENES)]


def with_head(model: Model, head: ClickHead) -> Model:
    """Return a model with a click head."""
    return replace(model, click=head.eval())


def first_head(model: Model, start: str | None) -> ClickHead:
    """Return the head to begin with: a new one, or that of another model."""
    if start is None:
        return ClickHead(model.spec).to(model.device)
    other = load_model(start, "cpu").click
    if other is None:
        raise SystemExit(f"--start: the model {start} has no click head; leave --start away.")
    head = ClickHead(model.spec, other.spec, other.refiner)
    head.load_state_dict(other.state_dict())
    return head.to(model.device)


def synthetic_trials(model: Model, count: int, rng: np.random.Generator) -> Iterator[ClickTrial]:
    """Yield objects of generated images, at their own scale."""
    settings = nu.PredictSettings(diameter=model.diameter)
    for number in range(count):
        scene = make_synthetic_image([VALIDATION_SCENES, number])
        axes = "YXS" if scene.image.ndim == 3 else "YX"
        session = ClickSession(model, open_stack(scene.image, axes=axes), settings=settings)
        layer = scene.layers[int(rng.integers(len(scene.layers)))]
        for truth in pick_objects(layer, PER_IMAGE, rng):
            yield ClickTrial(session, truth, "scenes")


def validation(model: Model, data: Path, images: int) -> ClickValidator:
    """Choose the objects to score the head on: from images, and as many generated ones."""
    rng = np.random.default_rng(VALIDATION_SCENES)
    if is_split(data):
        samples = bare_samples(data, "val", model.spec.in_channels)
        some = rng.permutation(len(samples.items))[:images]
        chosen = Samples(
            [replace(samples.items[i], group="images") for i in sorted(some.tolist())], samples.head
        )
    else:
        chosen = read_samples(data, "val", most=max(1, images // 6))
    trials = [
        *make_trials(model, chosen, PER_IMAGE, rng),
        *synthetic_trials(model, len(chosen.items), rng),
    ]
    return ClickValidator(trials)


def finish(
    model: Model, state: TrainState, validate: ClickValidator, args: argparse.Namespace
) -> None:
    """Write the model with its new head, and training and scores of the head on its card."""
    head = cast("ClickHead", cast("Any", state.best_net()))
    training = {"steps": state.step, "seconds": round(state.seconds), "seed": args.seed}
    if args.start:
        training["started_from"] = args.start
    if args.mean:
        head = mean_of(first_head(model, args.start).eval(), head)
        training["weights"] = "mean of those that it was started from and the trained ones"
        best = validate(head)
    else:
        best = best_scores(state)
    scores = card_scores(best)
    card = model.card.replace(click={**model.card.click, "training": training, "metrics": scores})
    trained = replace(with_head(model, head), card=card)
    save_model(trained, args.out / model.name, thumbnail=read_thumbnail(args.model))
    sys.stderr.write(f"{json.dumps(card.click, indent=2)}\n")


def best_scores(state: TrainState) -> dict[str, float]:
    """Return the scores of the best validation of a training."""
    return max((h for h in state.history if "IoU" in h), key=lambda h: h["IoU"])


def card_scores(scores: dict[str, float]) -> dict[str, float]:
    """Return scores as a card keeps them."""
    return {name: round(v, 4) for name, v in scores.items() if name not in {"step", "loss"}}


def read_thumbnail(model: str) -> np.ndarray | None:
    """Return the picture of a model, by its name or folder; None if it has none."""
    picture = find_model(model) / THUMBNAIL
    return imread(picture) if picture.is_file() else None


def main() -> None:
    """Train the click head of a model, as the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", metavar="MODEL", help="begin with this model's click head")
    parser.add_argument("--mean", action="store_true", help="take the mean with --start's head")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    parser.add_argument("--validate-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--validate-on", type=int, default=30, metavar="IMAGES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.mean and not args.start:
        parser.error("--mean takes the mean with --start's head; give --start MODEL.")
    settings = TrainConfig(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        batch=8,
        crop=96,
        learning_rate=4e-3,
        average=0.995,
        validate_every=args.validate_every,
    )
    torch.manual_seed(args.seed)
    model = load_model(args.model, args.device)
    head = first_head(model, args.start)
    state = TrainState.start(cast("Any", head), settings)
    if args.resume:
        load_checkpoint(state, args.out / CHECKPOINT)
    validate = validation(with_head(model, head), args.data, args.validate_on)
    steps = train_clicks(
        state,
        model,
        picture_sources(args.data, model.spec.in_channels),
        settings,
        validate=validate,
        checkpoint=args.out / CHECKPOINT,
        log=TrainLog(args.out),
    )
    report(steps, settings)
    finish(model, state, validate, args)


if __name__ == "__main__":
    main()
