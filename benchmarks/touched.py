"""Whether 33 corrections of one image, and nothing else, teach a model anything.

    python benchmarks/touched.py DATA [--kinds histology bacteria particles]
    python benchmarks/touched.py DATA --minutes 1       # by the clock, as in the window

A robot has an image segmented and corrects what is wrong in a random order, up to 33 objects: it
deletes what is no object, clicks on what was missed (up to 6 times, then it draws), and draws anew
what is outlined badly (IoU below 0.8). Everything is recorded in a journal as the window does it,
and the model learns from *what I touched* alone. Then the same image and another one of the kind
are segmented by the model before and after.

made again  of the errors that were corrected: how many the tuned model makes again; in all, and of
            false, missed and badly outlined objects
errors      false and missed objects (IoU 0.5) of the whole image, before and after
next image  the same on another one, which nobody corrected
verdict     what the window says, and whether it offers to keep the model

The size of the objects is estimated, and told where that is wrong by more than 1.6, as a user would
who sees it. Nothing is written but into a temporary folder.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from kinds import opened

import napari_unet as nu
from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.training_set import to_samples
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.progress import run_to_end
from napari_unet.core.prompts.simulation import iou, simulate_clicks
from napari_unet.nn.inference.diameter_estimation import resolve_diameter

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {
    "histology": ("bbbc038", ("a7f6194ddbeaefb1", "e414b54f2036bcab")),
    "bacteria": ("bacteria_phase", ("e1t1_crop", "Sample000252")),
    "particles": ("particles_em", ("406975041a", "31121ca5cf")),
}
"""Of each kind the folder, the image that is corrected, and the next one."""
WANTED_IOU, MOST_CLICKS = 0.8, 6
"""An object is outlined well with this IoU; the robot clicks on one so often."""
WRONG = 1.6
"""A size that is wrong by this ratio is seen to be."""
COVERING = 0.25
"""A false object covers a missed one if they share so much of the smaller one."""


@dataclass
class Errors:
    """What is wrong with the labels of an image.

    Attributes
    ----------
    false
        Ids of objects that are none.
    missed
        Ids of true objects that were not found, with the false objects that cover each.
    rough
        Ids of true objects that were outlined badly, with the object that was found of each.
    """

    false: list[int]
    missed: dict[int, list[int]]
    rough: dict[int, int]

    @classmethod
    def of(cls, labels: np.ndarray, truth: np.ndarray) -> Errors:
        """Hold labels against the truth."""
        overlap = Overlap.from_labels(labels, truth)
        pairs = match(overlap)
        false = np.delete(overlap.predicted_ids, pairs.predicted).tolist()
        missed = np.delete(overlap.true_ids, pairs.true).tolist()
        sizes = overlap.predicted_sizes[overlap.predicted], overlap.true_sizes[overlap.true]
        much = overlap.shared > COVERING * np.minimum(*sizes)
        over = [
            (int(overlap.predicted_ids[p]), int(overlap.true_ids[t]))
            for p, t in zip(overlap.predicted[much], overlap.true[much], strict=True)
        ]
        covering = {t: [p for p, other in over if other == t and p in false] for t in missed}
        bad = pairs.iou < WANTED_IOU
        rough = {
            int(overlap.true_ids[t]): int(overlap.predicted_ids[p])
            for p, t in zip(pairs.predicted[bad], pairs.true[bad], strict=True)
        }
        return cls(false, covering, rough)

    @property
    def count(self) -> int:
        """The number of false and missed objects."""
        return len(self.false) + len(self.missed)


@dataclass
class Corrector:
    """A user who corrects one image, everything recorded in its journal.

    Attributes
    ----------
    deleted
        Masks of the objects that were deleted, bool (Y, X).
    missed, rough
        Ids of true objects that were added, or drawn anew.
    actions
        How often the robot has deleted, clicked and drawn.
    """

    labels: np.ndarray
    truth: np.ndarray
    session: nu.ClickSession
    journal: Journal
    deleted: list[np.ndarray] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    rough: list[int] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """The number of corrections so far."""
        return len(self.deleted) + len(self.missed) + len(self.rough)

    def correct(self, most: int, rng: np.random.Generator) -> None:
        """Correct what is wrong, up to so many objects."""
        errors = Errors.of(self.labels, self.truth)
        covering = {p for these in errors.missed.values() for p in these}
        work = [("missed", t) for t in errors.missed] + [("rough", t) for t in errors.rough]
        work += [("false", p) for p in errors.false if p not in covering]
        for place in rng.permutation(len(work)):
            what, number = work[place]
            if self.count >= most:
                return
            if what == "false":
                self.delete(number)
            elif what == "rough":
                self.redraw(number, errors.rough[number])
            else:
                for other in errors.missed[number]:
                    self.delete(other)
                self.add(number, rng)

    def delete(self, number: int) -> None:
        """Delete an object that is none."""
        inside = self.labels == number
        if inside.any():
            self.deleted.append(inside)
            self.actions["deleted"] += 1
            self.write(inside, 0)

    def add(self, number: int, rng: np.random.Generator) -> None:
        """Click on a missed object; draw it where clicks do not lead to it."""
        wanted = self.truth == number
        self.missed.append(number)
        self.session.reset()
        found = wanted & False
        for _, found in simulate_clicks(
            wanted, lambda clicks: self.session.add(clicks.clicks[-1]), MOST_CLICKS, rng
        ):
            if iou(found, wanted) >= WANTED_IOU:
                break
        good = iou(found, wanted) >= WANTED_IOU
        self.actions["clicked on" if good else "drawn"] += 1
        self.write(found if good else wanted, int(self.labels.max()) + 1)

    def redraw(self, number: int, found: int) -> None:
        """Give an object its true outline."""
        wanted, before = self.truth == number, self.labels == found
        self.rough.append(number)
        self.actions["drawn"] += 1
        self.write(before & ~wanted & (self.truth == 0), 0)
        self.write(wanted, found)

    def write(self, where: np.ndarray, number: int) -> None:
        """Change pixels, and record it."""
        places = np.nonzero(where)
        old = self.labels[places]
        self.labels[places] = number
        new = np.full(len(old), number)
        self.journal.record(self.journal.edit(places, old, new, labels=self.labels))

    def made_again(self, labels: np.ndarray) -> dict[str, int]:
        """Count the corrected errors that are made again, by kind."""
        errors = Errors.of(labels, self.truth)
        false = [labels == number for number in errors.false]
        same = sum(any(iou(gone, other) >= 0.5 for other in false) for gone in self.deleted)
        bad = set(errors.missed) | set(errors.rough)
        return {
            "false": same,
            "missed": len(set(self.missed) & set(errors.missed)),
            "rough": len(set(self.rough) & bad),
        }


def read(data: Path, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the images of a kind with their true labels."""
    folder, names = KINDS[kind]
    for name in names:
        image, truth = (
            tifffile.imread(data / folder / part / f"{name}.tif") for part in ("images", "labels")
        )
        yield image, truth.astype(np.int32)


def segment(image: np.ndarray, truth: np.ndarray, model: nu.Model) -> np.ndarray:
    """Segment an image, with the size told if it is estimated wrongly."""
    stack, wanted = opened(image), median_diameter(truth)
    found, _ = resolve_diameter(stack, model, nu.PredictSettings())
    if found.diameter and wanted and abs(math.log(found.diameter / wanted)) > math.log(WRONG):
        found = nu.PredictSettings(diameter=wanted)
    return nu.segment(stack, model, found).astype(np.int32)


def tune(model: nu.Model, name: str, settings: nu.TrainSettings) -> nu.Tuning:
    """Learn from all that was touched."""
    corrections = list(list_corrections(name))
    spec = model.spec
    samples, _ = run_to_end(
        to_samples(corrections, get_head(spec), ndim=spec.ndim, channels=spec.in_channels)
    )
    tuning = nu.Tuning(model, samples, settings)
    run_to_end(tuning.steps())
    return tuning


def measure(data: Path, kind: str, args: argparse.Namespace) -> str:
    """Correct, tune and segment again; return the row of a kind."""
    (image, truth), (other, other_truth) = read(data, kind)
    model = nu.load_model(args.model, args.device)
    labels = segment(image, truth, model)
    before = Errors.of(labels, truth).count
    stack = opened(image)
    session = nu.ClickSession(model, stack, labels, overwrite=True)
    with Journal.begin(
        stack, labels.copy(), model=args.model, model_hash=model.card.hash
    ) as journal:
        user = Corrector(labels, truth, session, journal)
        user.correct(args.corrections, np.random.default_rng(args.seed))
    began = time.perf_counter()
    budget = {"minutes": args.minutes} if args.minutes else {"steps": args.steps}
    tuning = tune(model, args.model, nu.TrainSettings(seed=args.seed, **budget))
    seconds = time.perf_counter() - began
    tuned, judgement = tuning.best(), tuning.judgement
    found = segment(image, truth, tuned)
    again = user.made_again(found)
    of = {"false": len(user.deleted), "missed": len(user.missed), "rough": len(user.rough)}
    counts = [
        Errors.of(segment(other, other_truth, each), other_truth).count for each in (model, tuned)
    ]
    cells = [
        kind,
        ", ".join(f"{count} {what}" for what, count in user.actions.items()),
        f"{sum(again.values())} of {user.count}",
        ", ".join(f"{again[what]} of {of[what]}" for what in of),
        f"{before} → {Errors.of(found, truth).count}",
        f"{counts[0]} → {counts[1]}",
        f"{judgement.verdict}, {'kept' if judgement.keep else 'not kept'}: {judgement.reason}",
        f"{tuning.state.step} in {seconds:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--model", default="general")
    parser.add_argument("--corrections", type=int, default=33)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--minutes", type=float, help="instead of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    heads = ("kind", "corrections", "made again", "false, missed, rough", "errors", "next image")
    print(f"| {' | '.join((*heads, 'verdict', 'steps'))} |\n{'| --- ' * (len(heads) + 2)}|")
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as home:
            os.environ["NAPARI_UNET_HOME"] = home
            print(measure(args.data, kind, args), flush=True)


if __name__ == "__main__":
    main()
