"""How fast a model adapts to a new kind of image, and what it forgets.

    python benchmarks/finetune.py DATA --out RUN           # hours; resumes where it stopped
    python benchmarks/finetune.py DATA --out RUN --quick   # two minutes, to see that it works
    python benchmarks/finetune.py DATA --out RUN --parts images scratch touched volume
    python benchmarks/finetune.py DATA --out RUN --settings '{"replay": 0.5}'

DATA holds the folders `bbbc038` and, for the part `volume`, `ovule_nuclei_3d`. A base is trained on
the fluorescence images of the training split alone, then tuned on histology images of the same
split; AP50 is measured on the validation split, which is used for nothing else.

images   tuned on 1, 2, 4 and 8 images
scratch  the same network trained on the same images from scratch
touched  tuned on 20, 50, 100 and 200 objects with a margin of background, nothing else being known
volume   a 3D network, from scratch, on 3 labelled planes of one volume, scored on the other

Results are lines of JSON in RUN/results.jsonl; existing ones are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from scipy.ndimage import binary_dilation

import napari_unet as nu
from napari_unet.core.evaluation.metrics import Scores
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import attach_rehearsal
from napari_unet.core.progress import run_to_end
from napari_unet.core.training.rehearsal import choose_rehearsal_crops, pack_rehearsal
from napari_unet.core.training.run_state import CHECKPOINT
from napari_unet.nn.inference.diameter_estimation import training_statistics
from napari_unet.nn.inference.model import Model
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.head_transfer import fresh_model, fresh_spec
from napari_unet.nn.training.loop import train
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from collections.abc import Iterator

DIAMETER, MARGIN = 22.0, 8
PARTS = ("images", "scratch", "touched", "volume")


@dataclass
class Bench:
    """The options of a benchmark, and the results so far."""

    data: Path
    out: Path
    device: str
    base_steps: int
    minutes: float
    images: list[int]
    objects: list[int]
    seeds: int
    scored: int
    changes: dict[str, Any]
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            lines = self._file.read_text().splitlines()
            self.done = {row["what"]: row for row in map(json.loads, lines)}

    @property
    def _file(self) -> Path:
        return self.out / "results.jsonl"

    def measured(self, what: str) -> bool:
        """Tell whether a result exists; if so, print it."""
        if what in self.done:
            show(self.done[what])
        return what in self.done

    def add(self, what: str, **figures: Any) -> None:
        """Write and print a result."""
        row = {"what": what, **figures}
        self.done[what] = row
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        show(row)

    def names(self, split: str, modality: str) -> list[str]:
        """List the images of a split and modality."""
        with (self.data / "bbbc038" / "split.csv").open() as file:
            rows = list(csv.DictReader(file))
        return [
            f"{row['id']}.tif"
            for row in rows
            if (row["split"], row["modality"]) == (split, modality)
        ]

    def pair(self, name: str) -> tuple[Path, np.ndarray]:
        """Return the path of an image, and its labels."""
        folder = self.data / "bbbc038"
        return folder / "images" / name, tifffile.imread(folder / "labels" / name)

    def settings(self, seed: int) -> nu.TrainSettings:
        """Return the settings of a tuning."""
        return nu.TrainSettings(**{"minutes": self.minutes, "seed": seed, **self.changes})

    def ap50(self, model: nu.Model, modality: str, *, told: bool = False) -> float:
        """Score a model on validation images: see `ap50_on`."""
        return self.ap50_on(self.names("val", modality)[: self.scored], model, told=told)

    def ap50_on(self, names: list[str], model: nu.Model, *, told: bool = False) -> float:
        """Score a model on images, pooled over their objects.

        The model estimates the objects' size, or is told the true one: that shows what the estimate
        costs.
        """
        scores = []
        for name in names:
            image, truth = self.pair(name)
            settings = nu.PredictSettings(diameter=median_diameter(truth) if told else None)
            scores.append(nu.evaluate(nu.segment(image, model, settings), truth))
        return round(float(Scores.pooled(scores).ap[0]), 4)


def show(row: dict[str, Any]) -> None:
    """Print a result in one line."""
    print("  ".join(f"{k} {v}" if k != "what" else f"{v}:" for k, v in row.items()), flush=True)


def base_model(bench: Bench) -> nu.Model:
    """Train the base model on fluorescence images alone, or load it."""
    folder = bench.out / "base"
    if (folder / "model.json").exists():
        return nu.load_model(str(folder), bench.device)
    names = bench.names("train", "fluorescence")
    names = names if bench.base_steps > 500 else names[:40]
    samples = nu.Samples.from_labels([bench.pair(name) for name in names])
    spec = fresh_spec()
    model = fresh_model(spec, "base", bench.device)
    settings = nu.TrainSettings(
        steps=bench.base_steps, batch=4, learning_rate=1.5e-3, plain=0.3, diameter=DIAMETER
    )
    state = TrainState.start(
        UNet(spec).to(model.device, memory_format=torch.channels_last), settings
    )
    if (bench.out / CHECKPOINT).exists():
        load_checkpoint(state, bench.out / CHECKPOINT)
    began = time.monotonic()
    for step in train(state, samples, settings, checkpoint=bench.out / CHECKPOINT):
        if step.done % 100 == 0:
            sys.stderr.write(f"base: step {step.done}, {step.seconds_left / 60:.1f} min left\n")
    training = {**samples.card(), "steps": state.step, "working_diameter_px": DIAMETER}
    model = Model(ModelCard("base", spec, training=training), state.averaged_net(), model.device)
    training["statistics"] = training_statistics(model, nu.Samples(samples.items[:64]))
    card = model.card.replace(training=training, decode={"threshold": 0.6, "min_size": 30})
    nu.save_model(Model(card, model.net, model.device), folder)
    attach_rehearsal(folder, pack_rehearsal(choose_rehearsal_crops(samples, DIAMETER)))
    sys.stderr.write(f"base: {time.monotonic() - began:.0f} s\n")
    return nu.load_model(str(folder), bench.device)


def measure_base(bench: Bench, base: nu.Model) -> None:
    """Score the models that tuned ones are compared with."""
    for what, model in (("base", base), ("full data (nuclei)", None)):
        if not bench.measured(what):
            model = model or nu.load_model("nuclei", bench.device)
            bench.add(
                what,
                histology=bench.ap50(model, "histology"),
                histology_told_sizes=bench.ap50(model, "histology", told=True),
                fluorescence=bench.ap50(model, "fluorescence"),
            )


def tune(
    bench: Bench, model: nu.Model, samples: nu.Samples, seed: int, what: str, *, forgets: bool
) -> None:
    """Tune a model, score it and write the result."""
    began = time.monotonic()
    tuning = nu.Tuning(model, samples, bench.settings(seed))
    first = None
    for step in tuning.steps():
        scores = step.validation or {}
        base = next((e for e in tuning.state.history if e["step"] == 0), {})
        value, before = scores.get("AP50 corrections"), base.get("AP50 corrections")
        if first is None and value is not None and before is not None and value > before:
            first = round(tuning.state.seconds, 1)
    tuned = tuning.best()
    figures: dict[str, Any] = {
        "histology": bench.ap50(tuned, "histology"),
        "histology_told_sizes": bench.ap50(tuned, "histology", told=True),
        "objects": tuning.samples.card()["objects"],
        "steps": tuning.state.step,
        "seconds": round(time.monotonic() - began),
        "first_gain_s": first,
        "verdict": str(tuning.judgement),
    }
    if forgets:
        figures["fluorescence"] = bench.ap50(tuned, "fluorescence")
    bench.add(what, **figures)


def image_sets(bench: Bench) -> Iterator[tuple[str, int, nu.Samples]]:
    """Yield the sets of images to train on: name, seed of the choice, samples."""
    names = bench.names("train", "histology")
    for count in bench.images:
        for seed in range(bench.seeds):
            order = np.random.default_rng(seed).permutation(names)
            samples = nu.Samples.from_labels([bench.pair(name) for name in order[:count]])
            yield f"{count} images, seed {seed}", seed, samples


def measure_images(bench: Bench, base: nu.Model) -> None:
    """Tune on few images."""
    for where, seed, samples in image_sets(bench):
        if not bench.measured(f"tuned on {where}"):
            tune(bench, base, samples, seed, f"tuned on {where}", forgets=True)


def measure_scratch(bench: Bench) -> None:
    """Train on few images from scratch."""
    for where, seed, samples in image_sets(bench):
        if not bench.measured(f"from scratch on {where}"):
            new = fresh_model(fresh_spec(), "scratch", bench.device, seed)
            tune(bench, new, samples, seed, f"from scratch on {where}", forgets=False)


def touched_samples(bench: Bench, count: int, seed: int) -> nu.Samples:
    """Draw objects, a few of each image; they and a margin of background are known."""
    rng = np.random.default_rng(seed)
    pairs, known, left = [], [], count
    for name in rng.permutation(bench.names("train", "histology")):
        image, labels = bench.pair(str(name))
        names = np.unique(labels[labels > 0])
        chosen = rng.permutation(names)[: min(left, 12)]
        if len(chosen):
            mask = np.isin(labels, chosen)
            near = binary_dilation(mask, iterations=MARGIN) & ((labels == 0) | mask)
            pairs.append((image, np.where(mask, labels, 0)))
            known.append(near)
        left -= len(chosen)
        if left <= 0:
            break
    return nu.Samples.from_labels(pairs, known)


def measure_touched(bench: Bench, base: nu.Model) -> None:
    """Tune on single objects."""
    for count in bench.objects:
        for seed in range(bench.seeds):
            what = f"tuned on {count} touched objects, seed {seed}"
            if not bench.measured(what):
                tune(bench, base, touched_samples(bench, count, seed), seed, what, forgets=True)


def volumes(data: Path) -> Iterator[tuple[np.ndarray, np.ndarray, Path]]:
    """Yield the 3D images with their labels."""
    for path in sorted((data / "ovule_nuclei_3d" / "images").glob("*.tif")):
        labels = tifffile.imread(data / "ovule_nuclei_3d" / "labels" / path.name)
        yield tifffile.imread(path), labels.astype(np.uint16), path


def measure_volume(bench: Bench) -> None:
    """Train in 3D on three planes of the first volume, score on the second."""
    (_, labels, path), (_, truth, other) = volumes(bench.data)
    known = np.zeros(labels.shape, bool)
    known[[25, 50, 75]] = True
    for what, mask in (("3 planes", known), ("the whole volume", None)):
        if bench.measured(f"volume: from scratch on {what}"):
            continue
        stack = nu.open_stack(path)
        spec = fresh_spec(3, 1, voxel_size_um=stack.voxel_size_um)
        model = fresh_model(spec, "volume", bench.device)
        samples = nu.Samples.from_labels([(stack, labels)], [mask], channels=1)
        tuning = nu.Tuning(model, samples, bench.settings(0))
        run_to_end(tuning.steps())
        scores = nu.evaluate(nu.segment(other, tuning.best()), truth)
        bench.add(
            f"volume: from scratch on {what}",
            AP50=round(float(scores.ap[0]), 4),
            dice=round(scores.dice, 4),
            found=f"{scores.objects} of {scores.true_objects}",
            steps=tuning.state.step,
        )


def main() -> None:
    """Measure what was requested and does not exist yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:3]))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--objects", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scored", type=int, default=1000, help="validation images of each kind")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the tuning, as JSON")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.base_steps, args.minutes, args.images, args.objects = 60, 0.15, [2], [20]
        args.seeds, args.scored = 1, 2
    bench = Bench(
        args.data,
        args.out,
        args.device,
        args.base_steps,
        args.minutes,
        args.images,
        args.objects,
        args.seeds,
        args.scored,
        args.settings,
    )
    if {"images", "touched"} & set(args.parts):
        base = base_model(bench)
        measure_base(bench, base)
    if "images" in args.parts:
        measure_images(bench, base)
    if "scratch" in args.parts:
        measure_scratch(bench)
    if "touched" in args.parts:
        measure_touched(bench, base)
    if "volume" in args.parts:
        measure_volume(bench)


if __name__ == "__main__":
    main()
