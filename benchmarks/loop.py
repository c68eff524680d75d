"""What it costs a user to teach a model a kind of image that it has never seen.

    python benchmarks/loop.py DATA --out RUN                        # every kind; hours
    python benchmarks/loop.py DATA --out RUN --kinds bacteria_phase --clicks 60
    python benchmarks/loop.py DATA --out RUN --live                 # it learns meanwhile
    python benchmarks/loop.py DATA --out RUN --draw                 # only the picture

A robot does the user's job through the public functions. It opens one image after another, has it
segmented, with the size of the objects estimated (where that is wrong by more than a factor of 1.6
it measures an object, two clicks, and has it segmented anew), and corrects what is wrong in a
random order: it deletes what is no object (a click), merges a fragment with the object that it
belongs to (two clicks), and clicks on a missed object until the IoU is 0.8 or it has clicked 6
times; fragments and clumps below are deleted for that. After 10 corrections
it fine-tunes for 30 seconds, keeps the model unless that is judged worse, and goes on with the next
image; where an image has no mistakes left it is marked as checked (a click), and all of it is
learned from. Known are, as in the window, the objects that were touched and the background around
them. After each tuning the model is scored on images that the robot never opens.

With --live the robot never waits for a tuning. While its hand is busy the model learns (see
`nn/training/live.py`): so many steps a click, which stand for the seconds that a click takes a
person. After every fifth correction what was not corrected is predicted again and taken over, which
counts as a click. The click head stays that of the first model. Scored is the model as it is then,
and at the end whether it may be kept.

DATA holds a folder for each kind, with `images/` and `labels/`. Rows of RUN/loop.jsonl, one a
model: kind, clicks so far, seconds waited (segmenting, clicking, tuning), corrections, AP50 at IoU
0.5 on the untouched images with the size estimated, and told. Kinds that are there already are not
measured again. RUN/loop.png shows the curves.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import math
import tempfile
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kinds import opened, planes_of, some

import napari_unet as nu
from napari_unet.core.annotations.known_around import known_around, rest_of_clumps
from napari_unet.core.evaluation.metrics import Scores
from napari_unet.core.image.diameters import median_diameter, object_diameters
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.progress import run_to_end
from napari_unet.core.prompts.simulation import iou, simulate_clicks
from napari_unet.nn.inference.diameter_estimation import resolve_diameter
from napari_unet.nn.training.live import LiveTuning

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("bacteria_phase", "particles_em", "isbi2012", "ovule_nuclei_3d", "bbbc038")
"""Of `bbbc038` the histology images: for a model that was trained without them, see `--model`."""
GOAL = 0.75
WANTED_IOU, MOST_CLICKS = 0.8, 6
"""The robot clicks on an object until it has this IoU, or so often."""
GIVE_UP = 0.5
"""An object that is still worse than this is left alone: nothing is learned from it."""
WRONG = 1.6
"""A size that is wrong by this ratio is seen to be."""
RENEWED = 5
"""With --live what was not corrected is predicted again after so many corrections."""
FRAGMENT = 0.5
"""An object that lies in another by more than this share is a fragment of it."""
COVERING = 0.25
"""An object covers another if they share so much of the smaller one."""
SMALLEST = {"particles_em": 20.0}
"""Diameter in pixels of the smallest objects that count; images of smaller ones are left out."""
UNTOUCHED = {"bacteria_phase": 4, "particles_em": 15, "isbi2012": 6, "bbbc038": 11}
"""How many images are never opened, but scored; of the volumes it is the planes of the second."""

Image = tuple[str, np.ndarray, np.ndarray]


def read_kind(data: Path, kind: str, most: int) -> tuple[list[Image], list[Image]]:
    """Return the images to work on, in a random order, and up to `most` that stay untouched."""
    folder = data / kind
    names = sorted(path.stem for path in (folder / "images").glob("*.tif"))
    if kind == "bbbc038":
        with (folder / "split.csv").open() as table:
            rows = csv.DictReader(table)
            names = [row["id"] for row in rows if row["modality"] == "histology"]
    found: dict[str, list[Image]] = {}
    for name in names:
        planes = [(f"{name} {z}", *plane) for z, plane in enumerate(planes_of(folder, name))]
        if all(median_diameter(plane[2]) >= SMALLEST.get(kind, 1.0) for plane in planes):
            found[name] = planes
    groups = [found[name] for name in np.random.default_rng(0).permutation(sorted(found))]
    apart = UNTOUCHED.get(kind, 1)
    scored = [image for planes in groups[:apart] for image in planes]
    return [image for planes in groups[apart:] for image in planes], some(scored, most)


@dataclass(frozen=True)
class Mistake:
    """What is to be corrected in a segmentation.

    Attributes
    ----------
    false
        Numbers of objects that are none, or of those that cover a missed one.
    missed
        The missed object's number, in the truth.
    whole
        The object found that the false one is a fragment of.
    """

    false: list[int]
    missed: int | None = None
    whole: int | None = None


@dataclass
class Corrected:
    """What the robot has said of an image."""

    image: np.ndarray
    labels: np.ndarray
    ids: list[int] = field(default_factory=list)
    checked: bool = False
    erased: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.erased = np.zeros(self.labels.shape, np.int32)

    @property
    def touched(self) -> np.ndarray:
        """Where the objects are that the robot has drawn."""
        return np.isin(self.labels, self.ids)

    @property
    def known(self) -> np.ndarray:
        """Where the labels are right, or assumed to be."""
        return self.known_and_assumed()[0]

    def known_and_assumed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what `core.annotations` says for the window's edits, bool (Y, X) both."""
        if self.checked:
            return np.ones(self.labels.shape, bool), np.zeros(self.labels.shape, bool)
        drawn = self.touched
        clumps = rest_of_clumps(self.labels, self.erased)
        core = drawn | ((self.erased > 0) & (self.labels == 0) & ~clumps)
        if not core.any():
            return core, core
        sizes = object_diameters(np.where(drawn, self.labels, 0))
        diameter = float(np.median(sizes)) if len(sizes) else 0.0
        return known_around(self.labels, core, clumps, diameter)


@dataclass
class Robot:
    """A user of the program, and what the work has cost so far."""

    model: nu.Model
    rng: np.random.Generator
    minutes: float
    tuned_every: int
    models: Path
    settings: dict[str, Any] = field(default_factory=dict)
    clicks: int = 0
    corrections: int = 0
    waited: float = 0.0
    images: dict[str, Corrected] = field(default_factory=dict)

    def work(self, images: list[Image], clicks: int) -> Iterator[str]:
        """Go through images until so many clicks are spent; yield a verdict after each tuning.

        After the last image it begins again with the first: what was corrected there stays.
        """
        for name, image, truth in itertools.cycle(images):
            before = self.corrections
            if name not in self.images or not self.images[name].checked:
                self.correct(name, image, truth, before + self.tuned_every)
                yield self.tune()
            if self.clicks >= clicks or all(each.checked for each in self.images.values()):
                return

    def correct(self, name: str, image: np.ndarray, truth: np.ndarray, until: int) -> None:
        """Segment an image and correct it, up to a number of corrections in all."""
        if self.fix(self.open(name, image, truth), truth, until):
            self.check(self.images[name])

    def open(self, name: str, image: np.ndarray, truth: np.ndarray) -> Corrected:
        """Segment an image; what was corrected there before stays."""
        state = Corrected(image, self.segment(image, truth))
        if name in self.images:
            state = put_in(self.images[name], state.labels)
        self.images[name] = state
        return state

    def check(self, state: Corrected) -> None:
        """Mark an image without mistakes as checked."""
        self.clicks += 1
        state.checked = True

    def fix(self, state: Corrected, truth: np.ndarray, until: int) -> bool:
        """Correct mistakes, up to a number of corrections in all; return whether none is left."""
        labels = state.labels
        session = nu.ClickSession(self.clicker, opened(state.image), labels, overwrite=True)
        for mistake in self.mistakes(labels, truth):
            if self.corrections >= until:
                return False
            if mistake.missed:
                self.replace(state, mistake.false, truth == mistake.missed, session)
            elif mistake.whole:
                self.merge(state, mistake.false[0], mistake.whole)
            else:
                self.delete(state, mistake.false)
        return True

    @property
    def clicker(self) -> nu.Model:
        """The model that answers clicks."""
        return self.model

    def segment(self, image: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Segment an image; with the size told if the robot sees that it was estimated wrongly."""
        began = time.monotonic()
        stack, wanted = opened(image), median_diameter(truth)
        found, _ = resolve_diameter(stack, self.model, nu.PredictSettings())
        if found.diameter and wanted and abs(math.log(found.diameter / wanted)) > math.log(WRONG):
            self.clicks += 2
            found = nu.PredictSettings(diameter=wanted)
        labels = nu.segment(stack, self.model, found).astype(np.int32)
        self.waited += time.monotonic() - began
        return labels

    def mistakes(self, labels: np.ndarray, truth: np.ndarray) -> Iterator[Mistake]:
        """Yield what is wrong, in a random order.

        A fragment of an object that is missed is corrected with that one.
        """
        overlap = Overlap.from_labels(labels, truth)
        pairs = match(overlap)
        predicted, true = overlap.predicted_ids, overlap.true_ids
        false = np.delete(predicted, pairs.predicted)
        found_as = dict(zip(true[pairs.true], predicted[pairs.predicted], strict=True))
        sizes = overlap.predicted_sizes[overlap.predicted], overlap.true_sizes[overlap.true]
        much = overlap.shared > COVERING * np.minimum(*sizes)
        inside = overlap.shared > FRAGMENT * sizes[0]
        ids = predicted[overlap.predicted], true[overlap.true]
        over = list(zip(*(each[much] for each in ids), strict=True))
        part_of = dict(zip(*(each[inside] for each in ids), strict=True))
        missing = np.delete(true, pairs.true).tolist()
        work = [Mistake([int(p) for p, t in over if t == n and p in false], n) for n in missing]
        covering = {p for each in work for p in each.false}
        for p in set(false.tolist()) - covering:
            if part_of.get(p) not in missing:
                whole = found_as.get(part_of.get(p))
                work.append(Mistake([p], whole=None if whole is None else int(whole)))
        for place in self.rng.permutation(len(work)):
            yield work[place]

    def merge(self, state: Corrected, fragment: int, whole: int) -> None:
        """Merge a fragment with the object that it belongs to, if both are still there."""
        if (state.labels == fragment).any() and (state.labels == whole).any():
            state.labels[state.labels == fragment] = whole
            state.ids.append(whole)
            self.clicks += 2
            self.corrections += 1

    def delete(self, state: Corrected, numbers: list[int]) -> None:
        """Delete objects that are none; those that are gone already cost nothing."""
        for number in numbers:
            inside = state.labels == number
            if inside.any():
                state.erased[inside] = number
                state.labels[inside] = 0
                self.clicks += 1
                self.corrections += 1

    def replace(
        self, state: Corrected, false: list[int], truth: np.ndarray, session: nu.ClickSession
    ) -> None:
        """Click on a missed object until it is well outlined, and keep it instead of false ones.

        Where clicks do not lead to it, all stays as it was.
        """
        before = state.labels.copy(), state.erased.copy()
        self.delete(state, false)
        session.reset()
        found = np.zeros(truth.shape, bool)
        began = time.monotonic()
        for _, found in simulate_clicks(
            truth, lambda clicks: session.add(clicks.clicks[-1]), MOST_CLICKS, self.rng
        ):
            self.clicks += 1
            if iou(found, truth) >= WANTED_IOU:
                break
        self.waited += time.monotonic() - began
        self.corrections += 1
        if iou(found, truth) < GIVE_UP:
            state.labels[:], state.erased[:] = before
            return
        number = int(state.labels.max()) + 1
        state.labels[found & ~state.touched] = number
        state.ids.append(number)

    def tune(self) -> str:
        """Learn from all corrections so far; return the verdict."""
        began = time.monotonic()
        samples = self.samples()
        settings = nu.TrainSettings(**{"minutes": self.minutes, **self.settings})
        tuning = nu.Tuning(self.model, samples, settings)
        run_to_end(tuning.steps())
        verdict = tuning.judgement
        if verdict.keep:
            folder = self.models / f"after {self.clicks} clicks"
            self.model = nu.load_model(tuning.save(str(folder)), self.model.device.type)
        self.waited += time.monotonic() - began
        return str(verdict)

    def samples(self) -> nu.Samples:
        """Return all that was corrected so far."""
        seen = {name: image for name, image in self.images.items() if image.known.any()}
        samples = nu.Samples.from_labels(
            [(opened(each.image), each.labels) for each in seen.values()],
            [each.known for each in seen.values()],
            sources=list(seen),
            channels=self.model.spec.in_channels,
        )
        samples.items = [
            replace(item, assumed=each.known_and_assumed()[1])
            for item, each in zip(samples.items, seen.values(), strict=True)
        ]
        return samples


@dataclass
class LiveRobot(Robot):
    """A user whose model learns while the hand is busy."""

    steps_a_click: int = 5
    learned: int = 0
    live: LiveTuning = field(init=False)

    def __post_init__(self) -> None:
        self.live = LiveTuning(self.model)

    @property
    def clicker(self) -> nu.Model:
        """The model of the beginning: its click head fits its trunk."""
        return self.live.model

    def correct(self, name: str, image: np.ndarray, truth: np.ndarray, until: int) -> None:
        """Segment an image and correct it; what was not corrected is renewed on the way."""
        state = self.open(name, image, truth)
        while not self.fix(state, truth, min(until, self.corrections + RENEWED)):
            self.learn()
            if self.corrections >= until:
                return
            waited, clicks = self.waited, self.clicks
            state = self.open(name, image, truth)
            # It was segmented meanwhile, with the size that was told already, and is taken over.
            self.waited, self.clicks = waited, clicks + 1
        self.check(state)
        self.learn()

    def learn(self) -> None:
        """Learn for as long as the clicks since the last time took."""
        steps = self.steps_a_click * (self.clicks - self.learned)
        self.learned = self.clicks
        with contextlib.suppress(nu.InputError):  # nothing is known yet
            run_to_end(self.live.take(self.samples()))
        for _ in self.live.learn(steps):
            pass
        self.model = self.live.current()

    def tune(self) -> str:
        """Return how far it has learned: there is nothing to wait for."""
        return f"{self.live.steps} steps"

    def keep(self) -> str:
        """Judge and complete the model; return the verdict."""
        began = time.monotonic()
        tuning = run_to_end(self.live.conclude())
        self.waited += time.monotonic() - began
        if tuning is None:
            return "nothing was learned"
        if tuning.judgement.keep:
            self.model = tuning.best()
        return str(tuning.judgement)


def put_in(before: Corrected, labels: np.ndarray) -> Corrected:
    """Put what was corrected before into a new result, in place."""
    known = before.known
    covered = np.bincount(labels.ravel(), known.ravel()) / np.bincount(labels.ravel())
    labels[known | (covered > 0.3)[labels]] = 0
    highest = int(labels.max())
    own = before.touched
    labels[own] = before.labels[own] + highest
    after = Corrected(before.image, labels, [number + highest for number in before.ids])
    after.erased[before.erased > 0] = before.erased[before.erased > 0] + 10**6
    return after


def score(model: nu.Model, images: list[Image]) -> dict[str, float]:
    """Return the AP50 on images, pooled over objects, with the size estimated, and told."""
    estimated, told = [], []
    for _, image, truth in images:
        size = nu.PredictSettings(diameter=median_diameter(truth) or None)
        estimated.append(nu.evaluate(nu.segment(image, model), truth, (0.5,)))
        told.append(nu.evaluate(nu.segment(image, model, size), truth, (0.5,)))
    pooled = (Scores.pooled(these) for these in (estimated, told))
    return dict(zip(("AP50", "AP50_told"), (round(float(s.ap[0]), 4) for s in pooled), strict=True))


def run_kind(kind: str, args: argparse.Namespace, models: Path) -> list[dict[str, Any]]:
    """Teach a model one kind; return a row for each model on the way."""
    images, untouched = read_kind(args.data, kind, args.scored)
    model = nu.load_model(args.model, args.device)
    kind_of_user = LiveRobot if args.live else Robot
    robot = kind_of_user(
        model, np.random.default_rng(args.seed), args.minutes, args.every, models, args.settings
    )
    rows = []

    def note(verdict: str) -> None:
        row = {
            "kind": kind,
            "model": name_of(args),
            "clicks": robot.clicks,
            "corrections": robot.corrections,
            "waited_s": round(robot.waited),
            **score(robot.model, untouched),
            "verdict": verdict,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)

    note("before")
    for verdict in robot.work(images, args.clicks):
        note(verdict)
    if isinstance(robot, LiveRobot):
        note(robot.keep())
    return rows


def name_of(args: argparse.Namespace) -> str:
    """Return what rows are found by: the model, and whether it learns live."""
    return f"{Path(args.model).name}{', live' * args.live}"


def summarise(rows: list[dict[str, Any]]) -> str:
    """Write the table: what each kind cost until the goal, and what it began and ended with."""
    lines = [
        f"| kind | model | AP50 before | clicks to {GOAL} | waited (s) | best | clicks | last |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, model in dict.fromkeys((row["kind"], row["model"]) for row in rows):
        own = [row for row in rows if (row["kind"], row["model"]) == (kind, model)]
        first = next((row for row in own if row["AP50"] >= GOAL), None)
        reached = f"{first['clicks']} | {first['waited_s']}" if first else "not reached | "
        best = max(own, key=lambda row: float(row["AP50"]))
        lines.append(
            f"| {kind} | {model} | {own[0]['AP50']:.2f} | {reached} | {best['AP50']:.2f} | "
            f"{best['clicks']} | {own[-1]['AP50']:.2f} after {own[-1]['clicks']} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw AP50 on untouched images against the clicks spent, and the seconds waited."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for kind, model in dict.fromkeys((row["kind"], row["model"]) for row in rows):
        own = [row for row in rows if (row["kind"], row["model"]) == (kind, model)]
        for panel, name in zip(axes, ("clicks", "waited_s"), strict=True):
            values = [row[name] for row in own], [row["AP50"] for row in own]
            panel.plot(*values, ".-", label=f"{kind}, {model}")
    for panel, name in zip(axes, ("clicks", "seconds waited"), strict=True):
        panel.axhline(GOAL, color="0.7", linewidth=1)
        panel.set(xlabel=name, ylim=(0, 1))
    axes[0].set_ylabel("AP50 on untouched images")
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure the kinds that were requested and are not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:4]))
    parser.add_argument("--model", default="general")
    parser.add_argument("--clicks", type=int, default=120, help="at which the robot stops")
    parser.add_argument("--every", type=int, default=10, help="corrections between two tunings")
    parser.add_argument("--minutes", type=float, default=0.5, help="of a tuning")
    parser.add_argument("--settings", type=json.loads, default={}, help="of a tuning, as JSON")
    parser.add_argument("--live", action="store_true", help="the model learns meanwhile")
    parser.add_argument("--scored", type=int, default=0, help="untouched images at most; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "loop.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for kind in args.kinds if not args.draw else ():
        if any((row["kind"], row["model"]) == (kind, name_of(args)) for row in rows):
            continue
        with tempfile.TemporaryDirectory() as models:
            rows += run_kind(kind, args, Path(models))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(summarise(rows))
    draw(rows, args.out / "loop.png")


if __name__ == "__main__":
    main()
