"""Train the shipped general model: nuclei, cells, fibres, organelles, and shapes that were drawn.

    python scripts/train_general.py DATA --out RUN --minutes 80
    python scripts/train_general.py DATA --out RUN --minutes 160 --resume   # another 80 minutes
    python scripts/train_general.py DATA --out RUN --minutes 80 --start general
    python scripts/train_general.py DATA --sizes                            # see below

DATA holds a folder for each of `KINDS`, with `images/`, `labels/` and a `split.csv` (columns id and
split, and modality where it has several). Training begins with the weights of `nuclei`. Each image
is zoomed until its typical object has the working diameter, and the kinds are drawn by the shares
in `KINDS`, not by how many images they have. Beside the images stand generated scenes and grey
copies of the coloured images, against a model that goes by the stain.

RUN gets the checkpoint, `log.csv`, `curve.png` and, at the end, the model folder `RUN/general`: the
averaged weights that scored best on a part of the validation splits (with --last those of the last
step: some groups have few images; with --mean half-way to those of --start), decoding calibrated on
all of them, the card, the thumbnail and the replay. With --resume and a budget that is spent it
only finishes. The run is seeded; with --minutes it ends after so many steps as the machine takes in
that time.

With --sizes nothing is trained: it prints how large the objects of each kind are.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tifffile
import torch
from skimage.transform import resize as resized

from napari_unet.core.evaluation.overlay import draw_outlines
from napari_unet.core.image.diameters import median_diameter, object_diameters
from napari_unet.core.image.frames import resize
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import attach_rehearsal
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.rehearsal import choose_rehearsal_crops, pack_rehearsal
from napari_unet.core.training.samples import Samples
from napari_unet.core.training.training_sample import Sample
from napari_unet.nn.inference.diameter_estimation import training_statistics
from napari_unet.nn.inference.model import Model, load_model, pick_device, save_model
from napari_unet.nn.inference.segment import segment
from napari_unet.nn.training.calibrate import (
    calibrate,
    fit_size_regressor,
    format_agreement,
    scores_by_group,
)
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.held_out import Validator, sample_maps
from napari_unet.nn.training.loop import share_done, train

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from lab.synthetic_images import normalise
from lab.synthetic_kinds import make_object_scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_unet.core.progress import TrainStep

Net = TypeVar("Net", bound=torch.nn.Module)

NAME = "general"
CHECKPOINT = "checkpoint.safetensors"
DIAMETER = 22.0
"""Objects of this size, in pixels, are those that the network works on best: as `nuclei`."""
LARGEST = 2 * DIAMETER
"""Training crops are zoomed to twice the working size at most, so that images with larger objects
are shrunk to this size once, instead of in every crop."""
DECODE = {"threshold": 0.5, "merge": 0.3, "min_size": 30}
"""How maps become objects while the weights are being chosen; calibrated at the end."""
SCENES, SCENE_SHARE, SCENE_SEED = 1500, 0.18, 7
"""How many scenes are generated, their share of the crops, and what their seeds begin with: other
numbers than the scenes that clicks are trained and measured on."""
THUMBNAIL_SEED = 8
REPLAY_SCENES = 40
"""From how many scenes the replay's are taken."""
GREY, GREY_SHARE = "grey copies", 0.03
VALIDATION = 8
"""Images of a group that the weights are chosen by; calibration takes all."""
LOOKED_AT, LOOKED_AT_SCENES = 50, 300
"""Images of a group whose statistics are taken down for the card; with so many scenes they teach
how large objects are by the look of an image."""
CONTRAST = 0.1
"""Scenes whose objects differ less from the rest than this, in spreads of the image, are left
out: nobody could outline those."""


@dataclass(frozen=True)
class Kind:
    """A folder of images, what is said of it in the card, and its share of the crops."""

    folder: str
    shares: dict[str, float]
    source: str
    licence: str


KINDS = (
    Kind(
        "bbbc038",
        {"fluorescence": 0.2, "histology": 0.14},
        "BBBC038v1, 2018 Data Science Bowl",
        "CC0",
    ),
    Kind("phase_cells", {"": 0.16}, "Usiigaci, Tsai et al. 2019", "MIT"),
    Kind("axons_tem", {"": 0.1}, "AxonDeepSeg TEM, 2025", "MIT"),
    Kind("axons_sem", {"": 0.1}, "AxonDeepSeg SEM, ivadomed 2020", "MIT"),
    Kind("chloroplasts_em", {"": 0.04}, "WSU_PlantBio_ML, Brookhouse 2021", "MIT"),
    Kind("neurons_brightfield", {"": 0.05}, "pfc-pn-microscopy-dataset", "CC0"),
)
"""What is trained on; the groups of a kind are named by its folder, and its modality if it has
several."""
LICENCE = "MIT (weights; trained on CC0 and MIT data, see training.sources)"


def group_of(kind: Kind, modality: str) -> str:
    """Return the name of a group of images."""
    return f"{kind.folder} {modality}" if modality else kind.folder


def shares() -> dict[str, float]:
    """Return each group's share of the crops, by its name."""
    real = {group_of(kind, m): share for kind in KINDS for m, share in kind.shares.items()}
    return {**real, "scenes": SCENE_SHARE, GREY: GREY_SHARE}


def read_split(folder: Path, split: str) -> list[dict[str, str]]:
    """Return the lines of one split in a folder's `split.csv`; nothing where there is no file."""
    file = folder / "split.csv"
    if not file.is_file():
        return []
    with file.open() as lines:
        return [row for row in csv.DictReader(lines) if row["split"] == split]


def read_images(data: Path, split: str) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield group, name, image and labels of every image of one split of all kinds."""
    for kind in KINDS:
        for row in read_split(data / kind.folder, split):
            name = f"{row['id']}.tif"
            image, labels = (
                tifffile.imread(data / kind.folder / part / name) for part in ("images", "labels")
            )
            yield group_of(kind, row.get("modality", "")), row["id"], image, labels


def bare_sample(image: np.ndarray, labels: np.ndarray, group: str, source: str = "") -> Sample:
    """Return a normalised image with its labels, all known, without targets."""
    return Sample(
        image=image,
        labels=labels,
        targets=np.zeros((0, *labels.shape), np.float32),
        known=np.ones(labels.shape, bool),
        group=group,
        diameter=median_diameter(labels),
        source=source,
    )


def read_samples(data: Path, split: str, *, most: int | None = None) -> Samples:
    """Read one split of all kinds, whole and without targets, which only training needs.

    `most` is how many images of a group are read, evenly spread over it.
    """
    samples = Samples()
    for group, name, image, labels in read_images(data, split):
        sample = bare_sample(normalise(image, 3), labels, group, f"{group} {name}")
        samples.items.append(sample)
    return spread(samples, most) if most else samples


def spread(samples: Samples, most: int) -> Samples:
    """Take up to so many samples of a group, evenly spread over it."""
    groups: dict[str, list[Sample]] = {}
    for item in samples.items:
        groups.setdefault(item.group, []).append(item)
    chosen = []
    for items in groups.values():
        count = min(len(items), most)
        chosen += [items[int((i + 0.5) * len(items) / count)] for i in range(count)]
    return Samples(chosen)


def training_sample(image: np.ndarray, labels: np.ndarray, group: str, source: str = "") -> Sample:
    """Return a normalise image (C, Y, X) with its targets, shrunk if its objects are large."""
    zoom = min(1.0, LARGEST / max(median_diameter(labels), 1.0))
    if zoom < 1:
        size = tuple(max(1, round(n * zoom)) for n in labels.shape)
        image = resize(image, size)
        places = [
            ((np.arange(n) + 0.5) * old / n).astype(int)
            for n, old in zip(size, labels.shape, strict=True)
        ]
        labels = labels[np.ix_(*places)]
    return Sample.from_image(image, labels, InstanceHead(), group=group, source=source)


def training_samples(data: Path, scenes: int = SCENES) -> Samples:
    """Read the training splits of all kinds, and generate the scenes."""
    items = []
    for group, name, image, labels in read_images(data, "train"):
        values = normalise(image, 3)
        items.append(training_sample(values, labels, group, f"{group} {name}"))
        if (values != values[:1]).any():
            grey = np.repeat(values.mean(0, keepdims=True), 3, 0)
            items.append(replace(items[-1], image=resize_like(grey, items[-1]), group=GREY))
    return Samples([*items, *scene_samples(scenes)])


def resize_like(image: np.ndarray, sample: Sample) -> np.ndarray:
    """Resample an image (C, Y, X) to the size that a sample of it has."""
    return resize(image, sample.labels.shape)


def scene_samples(count: int) -> Iterator[Sample]:
    """Generate scenes in which there is something to see."""
    for number in range(count):
        scene = make_object_scene([SCENE_SEED, number])
        image, labels = normalise(scene.image, 3), scene.layers[0]
        if labels.any() and contrast(image, labels) > CONTRAST:
            yield training_sample(image, labels, "scenes", f"scene {number}")


def contrast(image: np.ndarray, labels: np.ndarray) -> float:
    """Tell how far objects and the rest are apart, in mean or in spread, as a share of the spread.

    Where nearly all is object, the seams between them are what there is to see.
    """
    grey, inside = image.mean(0), labels > 0
    if inside.mean() > 0.7:
        return 1.0
    parts = grey[inside], grey[~inside]
    gap = max(abs(f(parts[0]) - f(parts[1])) for f in (np.median, np.std))
    return float(gap / max(grey.std(), 1e-6))


def crop_weights(samples: Samples) -> np.ndarray:
    """Return each sample's share of the crops: groups by `shares`, crowded images more often."""
    weights, wanted = samples.weights(), shares()
    groups = np.array([item.group for item in samples.items])
    for group in np.unique(groups):
        members = groups == group
        weights[members] *= wanted[str(group)] / weights[members].sum()
    return np.asarray(weights / weights.sum())


def run_training(start: Model, args: argparse.Namespace) -> TrainState:
    """Train to the end of the budget, with a line on standard error every few steps."""
    recipe = TrainConfig(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        batch=args.batch,
        learning_rate=args.rate,
        warm_up=0.03,
        plain=0.4,
        diameter=DIAMETER,
        validate_every=args.validate_every,
        freeze_after=args.freeze_after,
    )
    torch.manual_seed(args.seed)
    net = start.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainState.start(net, recipe)
    if args.resume:
        load_checkpoint(state, args.out / CHECKPOINT)
    if share_done(state, recipe) >= 1:  # nothing left to do but to finish
        return state
    samples = training_samples(args.data, args.scenes)
    weights = crop_weights(samples)
    for group in sorted({item.group for item in samples.items}):
        diameters = [item.diameter for item in samples.items if item.group == group]
        line = f"{group}: {len(diameters)} images, objects of {np.median(diameters):.0f} px\n"
        sys.stderr.write(line)
    card = start.card.replace(name=NAME, decode=DECODE, training={"working_diameter_px": DIAMETER})
    steps = train(
        state,
        samples,
        recipe,
        validate=Validator(read_samples(args.data, "val", most=VALIDATION), card),
        checkpoint=args.out / CHECKPOINT,
        log=TrainLog(args.out),
        weights=weights,
    )
    report(steps, recipe)
    return state


def report(steps: Iterable[TrainStep], recipe: TrainConfig) -> None:
    """Take all steps of a training; write scores, and how far it is, on standard error."""
    for step in steps:
        if step.validation:
            sys.stderr.write(f"step {step.done}  {rounded(step.validation)}\n")
        if step.done % recipe.log_every == 0:
            minutes = step.seconds_left / 60
            sys.stderr.write(f"step {step.done}  loss {step.loss:.4f}  {minutes:.1f} min left\n")


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Return scores to three digits."""
    return {name: round(value, 3) for name, value in scores.items()}


def mean_of(before: Net, after: Net) -> Net:
    """Return a copy of a trained network whose weights are half-way to those before."""
    net, first = copy.deepcopy(after), before.state_dict()
    values = {
        name: first[name].to(value).lerp(value, 0.5) if value.is_floating_point() else value
        for name, value in after.state_dict().items()
    }
    net.load_state_dict(values)
    return net


def finish(start: Model, state: TrainState, args: argparse.Namespace) -> None:
    """Calibrate the trained network, fill in its card, and write the model folder."""
    data, folder, device = args.data, args.out / NAME, start.device
    training = read_samples(data, "train")
    notes = training.card() | {
        "started_from": f"{start.name} {start.card.hash[:12]}",
        "generated_scenes": args.scenes,
        "sources": {kind.folder: f"{kind.source}, {kind.licence}" for kind in KINDS},
        "crop_shares": shares(),
        "steps": state.step,
        "seconds": round(state.seconds),
        "seed": args.seed,
        "working_diameter_px": DIAMETER,
    }
    click = start.card.click if args.clicks else {}
    card = ModelCard(NAME, start.spec, training=notes, licence=LICENCE, click=click)
    head = start.click if args.clicks else None
    # float16 rounds the weights: what is calibrated and measured is what will be shipped.
    net = state.averaged_net() if args.last else state.best_net()
    if args.mean:
        net = mean_of(load_model(args.start, "cpu").net, net)
        notes["weights"] = "mean of those that it was started from and the trained ones"
    save_model(Model(card, net, device, click=head), folder)
    model = load_model(folder, device.type)

    validation = read_samples(data, "val")
    maps = [sample_maps(model, sample) for sample in validation.items]
    decode = calibrate(maps, validation, DIAMETER)
    chosen = {"threshold": decode.threshold, "merge": decode.merge, "min_size": decode.min_size}
    model = replace(model, card=model.card.replace(decode=chosen), folder=None)
    looked_at = spread(training, LOOKED_AT)
    notes["statistics"] = training_statistics(model, looked_at)
    seen = Samples([*looked_at.items, *scene_samples(min(args.scenes, LOOKED_AT_SCENES))])
    model = replace(model, size=fit_size_regressor(model, seen))
    metrics: dict[str, Any] = {
        group: {
            f"AP{100 * t:.0f}": round(float(v), 4) for t, v in zip(s.thresholds, s.ap, strict=True)
        }
        for group, s in scores_by_group(maps, validation, decode, DIAMETER).items()
    }
    metrics["bfloat16_dice"] = round(format_agreement(model, validation), 5)
    model = replace(model, card=model.card.replace(metrics=metrics, training=notes))
    save_model(model, folder, thumbnail=thumbnail(model))
    attach_rehearsal(folder, make_general_replay(training, min(args.scenes, REPLAY_SCENES)))
    sys.stderr.write(f"{json.dumps({'decode': chosen, 'metrics': metrics}, indent=2)}\n")


def make_general_replay(training: Samples, scenes: int) -> bytes:
    """Choose crops of images in the public domain, and of scenes.

    Pieces of other images would need their authors' notices wherever the model goes.
    """
    free = tuple(kind.folder for kind in KINDS if kind.licence == "CC0")
    items = [item for item in training.items if item.group.startswith(free)]
    return pack_rehearsal(
        choose_rehearsal_crops(Samples([*items, *scene_samples(scenes)]), DIAMETER)
    )


def thumbnail(model: Model) -> np.ndarray:
    """Draw what the model finds in four generated scenes, 128 x 128 RGB."""
    tiles = []
    for kind in ("blobs", "rods", "rings", "packed"):
        scene = make_object_scene([THUMBNAIL_SEED, 1], 128, kind)
        told = PredictSettings(diameter=median_diameter(scene.layers[0]))
        picture = draw_outlines(scene.image, segment(scene.image, model, told))
        tiles.append(resized(picture, (64, 64), anti_aliasing=True))
    rows = [np.concatenate(tiles[start : start + 2], 1) for start in (0, 2)]
    return (255 * np.concatenate(rows)).astype(np.uint8)


def print_sizes(data: Path) -> None:
    """Print, for each group, the objects' diameters and by how much images are zoomed for them."""
    found: dict[str, list[np.ndarray]] = {}
    for group, _, _, labels in read_images(data, "train"):
        found.setdefault(group, []).append(object_diameters(labels))
    print("| group | images | objects | 5 % | median | 95 % | spread within an image | zoom |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for group, images in found.items():
        low, middle, high = np.quantile(np.concatenate(images), (0.05, 0.5, 0.95))
        within = np.median([np.quantile(d, 0.9) / np.quantile(d, 0.1) for d in images if len(d)])
        counts = f"{len(images)} | {sum(map(len, images))}"
        sizes = f"{low:.0f} | {middle:.0f} | {high:.0f} | {within:.1f}"
        print(f"| {group} | {counts} | {sizes} | {DIAMETER / middle:.2f} |")


def main() -> None:
    """Run the training that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    parser.add_argument("--start", default="nuclei", metavar="MODEL", help="begin with its weights")
    parser.add_argument("--clicks", action="store_true", help="keep the click head of --start")
    parser.add_argument("--last", action="store_true", help="take the last weights, not the best")
    parser.add_argument("--mean", action="store_true", help="take the mean with --start's weights")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=8, help="crops a step")
    parser.add_argument("--freeze-after", type=float, default=0.3, metavar="SHARE")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--validate-every", type=int, default=400, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--sizes", action="store_true", help="only print the objects' sizes")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.sizes:
        print_sizes(args.data)
        return
    if not args.out:
        parser.error("give --out RUN, or --sizes.")
    start = load_model(args.start, pick_device(args.device).type)
    finish(start, run_training(start, args), args)


if __name__ == "__main__":
    main()
