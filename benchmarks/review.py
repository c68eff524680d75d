"""What a review of labels saves, and whether its estimate of the quality can be trusted.

    python benchmarks/review.py DATA                    # about five minutes
    python benchmarks/review.py DATA --only bacteria_phase --reviews 1000
    python benchmarks/review.py DATA --fit              # the weights of the order, and what they do

DATA holds a folder for each kind of image. The images of a kind (of bbbc038, validation images of
one size) are segmented once, by a model that was not trained on them, and compared with the truth:
which object is a hit, how many true objects are counted with each, and how many are missed in each
square of 6 diameters. A review is then simulated on these numbers, by the code that the window
uses. The weights of the order were fitted on the kinds in `CHOSEN`; those in `UNSEEN` had no part
in it, nor in any training.

Coverage: each review is stopped at a random number of looks, from a tenth to six tenths of the
objects, and not before the window shows an estimate; AP50 of the labels as they were found, and
as they are after the corrections so far, is held against the interval (goal: inside it in 90 %).

Effort: how many looks, and how many corrections, until the AP50 of the labels has come a half and
three quarters of the way to 1, in the order of the review, with its random draws, against a random
order of objects and squares (goal: 30 % fewer corrections). `possible` is how many fewer
corrections it would be with the corrections that gain most first: nobody can save more.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from alike import stacks_of_nuclei
from kinds import names_of, planes_of, some
from lab.report import write_results

import napari_unet as nu
from napari_unet.core.alike.descriptors import describe_objects, object_masks
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.instances.heads import get_head
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.review import gain
from napari_unet.core.review.gain import expected_gain, gain_signs
from napari_unet.core.review.order import OBJECT, PLACE, SQUARE, ReviewItem, ReviewOrder, worth
from napari_unet.core.review.outcome import Outcomes
from napari_unet.core.review.quality import LEAST_DRAWN
from napari_unet.core.review.squares import Squares
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.segment import segment_steps
from napari_unet.nn.inference.uncertainty import rank_uncertain_regions

if TYPE_CHECKING:
    from collections.abc import Iterator

CHOSEN = {
    "bbbc038": "nuclei",
    "axons_tem": "general",
    "axons_sem": "general",
    "phase_cells": "general",
}
UNSEEN = {"bacteria_phase": "general", "particles_em": "general", "isbi2012": "general"}
"""Kinds, and the model that segments them."""
SHARES = (0.5, 0.75)
MOST_GAIN, DEBRIS_GAIN, PENALTY = 4, 0.6, 300.0
"""Fitting: a clump counts for so many at most; debris gains as much as AP50 is; ridge."""


@dataclass(frozen=True)
class Case:
    """One stack in numbers.

    Attributes
    ----------
    objects
        (N, 2): hits and true objects of each.
    signs, looks, extents
        Of each object: (N, S), (N, D) and (N,).
    places
        (P,) the doubt at places where an object may be missing.
    missed
        For each square the places that lead to its missed objects, -1 for none.
    """

    name: str
    objects: np.ndarray
    signs: np.ndarray
    looks: np.ndarray
    extents: np.ndarray
    places: np.ndarray
    missed: list[list[int]]

    @property
    def ap(self) -> float:
        """AP50 of the labels as they were found."""
        return self.after(0, 0, 0, 0)

    def after(self, judged: int, hits: int, true: int, added: int) -> float:
        """Return AP50 after objects with some hits and true ones were corrected, others added."""
        right = int(self.objects[:, 0].sum()) - hits + true + added
        every = len(self.objects) - judged + true + added
        wanted = int(self.objects[:, 1].sum()) + sum(map(len, self.missed))
        return right / (every + wanted - right)

    def review(self, seed: int) -> ReviewOrder:
        """Return the review as the window plans it."""
        expected = expected_gain(self.signs, self.extents)
        value, missing = worth(expected, self.looks, self.places)
        return ReviewOrder(value, missing, len(self.missed), seed, self.extents)


def stacks_of(data: Path, kind: str, most: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the stacks of a kind: image and truth of each frame."""
    if kind == "bbbc038":
        yield from (
            (f"nuclei, {name}", frames) for name, frames in stacks_of_nuclei(data / kind, most)
        )
        return
    names = [name for group in names_of(data / kind).values() for name in some(group, most)]
    yield kind, [pair for name in names for pair in planes_of(data / kind, name)]


def make_case(name: str, frames: list[tuple[np.ndarray, np.ndarray]], model: nu.Model) -> Case:
    """Segment a stack's frames, and compare them with the truth."""
    outcomes, doubts, seen, looks, sizes = [], [], [], [], []
    places: list[float] = []
    missed: list[list[int]] = []
    for image, truth in frames:
        stack = open_stack(image.astype(np.float32), "YXC" if image.ndim == 3 else "YX")
        settings = nu.PredictSettings(certify=False, survey=False)
        result = run_to_end(segment_steps(stack, model, settings))
        labels = result.labels
        settings = nu.PredictSettings(diameter=result.provenance.get("diameter_px"), survey=False)
        maps = nu.predict(stack, model, settings)
        found = rank_uncertain_regions(maps, labels, get_head(model.spec), signs=True)
        outcome = Outcomes.from_labels(labels, truth)
        outcomes.append(np.stack([outcome.hits, outcome.true], 1))
        known = {place.label: place for place in found if place.label}
        doubts += [known[label].score for label in outcome.labels.tolist()]
        seen += [known[label].signs for label in outcome.labels.tolist()]
        frame = open_frame(stack, model, settings, ())
        whole = tuple(slice(0, n) for n in truth.shape)
        shown = frame.normaliser(stack.read((), whole, tuple(sorted(set(frame.channels)))))
        masks = list(object_masks(labels).values())
        looks.append(describe_objects(masks, labels, shown))
        sizes += [mask.area for mask in masks]
        empty = [place for place in found if not place.label]
        squares = Squares.of_labels(truth.shape, labels)
        parts: list[list[int]] = [[] for _ in range(len(squares))]
        for label in outcome.missed:
            pixels = np.argwhere(truth == label)
            leads = [n for n, p in enumerate(empty) if any((truth[p.window] == label).ravel())]
            parts[squares.at(pixels.mean(0))].append(len(places) + leads[0] if leads else -1)
        missed += parts
        places += [place.score for place in empty]
    described = np.concatenate(looks)
    return Case(
        name,
        np.concatenate(outcomes),
        gain_signs(np.array(doubts), seen, described),
        described,
        np.array(sizes) / np.median(sizes),
        np.array(places),
        missed,
    )


def fitted(cases: list[Case]) -> np.ndarray:
    """Fit the weights of the signs by what corrections gained, many objects of a stack or few."""
    signs = np.concatenate([case.signs for case in cases])
    hits, true = np.concatenate([case.objects for case in cases]).T
    gained = np.minimum(true - hits, MOST_GAIN) + DEBRIS_GAIN * (1 - hits)
    weight = np.concatenate([np.full(len(c.signs), len(c.signs) ** -0.5) for c in cases])
    weight *= len(weight) / weight.sum()
    middle, rest = (np.average(part, 0, weight) for part in (signs, gained))
    apart = (signs - middle) * weight[:, None]
    square = apart.T @ (signs - middle) + PENALTY * np.eye(signs.shape[1])
    weights = np.linalg.solve(square, apart.T @ (gained - rest))
    return np.append(weights, rest - middle @ weights)


def looks(case: Case, order: Iterator[ReviewItem], review: ReviewOrder | None) -> Iterator[Any]:
    """Look at one thing after the other; yield AP50 and the corrections after each."""
    judged = sum_hits = sum_true = corrections = 0
    added: set[tuple[int, int]] = set()
    by_place: dict[int, list[tuple[int, int]]] = {}
    for square, places in enumerate(case.missed):
        for number, place in enumerate(places):
            by_place.setdefault(place, []).append((square, number))
    for item in order:
        if item.kind == OBJECT:
            hits, true = (int(n) for n in case.objects[item.number])
            judged, sum_hits, sum_true = judged + 1, sum_hits + hits, sum_true + true
            corrections += (hits, true) != (1, 1)
            if review is not None:
                review.judge(item, hits, true)
        elif item.kind == PLACE:
            new = [one for one in by_place.get(item.number, []) if one not in added]
            added.update(new)
            corrections += len(new)
            if review is not None:
                review.judge(item, 0, len(new))
        else:
            every = [(item.number, n) for n in range(len(case.missed[item.number]))]
            new = [one for one in every if one not in added]
            added.update(new)
            corrections += len(new)
            if review is not None:
                review.judge_square(item, [case.missed[item.number][n] for _, n in new])
        yield case.after(judged, sum_hits, sum_true, len(added)), corrections


def random_order(case: Case, rng: np.random.Generator) -> Iterator[ReviewItem]:
    """Yield objects and squares in a random order."""
    every = [ReviewItem(OBJECT, n) for n in range(len(case.objects))]
    every += [ReviewItem(SQUARE, n) for n in range(len(case.missed))]
    for at in rng.permutation(len(every)):
        yield every[at]


def coverage(case: Case, reviews: int) -> dict[str, float]:
    """Return how often the interval holds the truth, how wide it is, and the mean error."""
    rng, rows = np.random.default_rng(0), []
    for number in range(reviews):
        review = case.review(number)
        stop = max(5, int(len(case.objects) * rng.uniform(0.1, 0.6)))
        now = case.ap
        for count, (ap, _) in enumerate(looks(case, iter(review), review), 1):
            now = ap
            if count >= stop and review.drawn >= LEAST_DRAWN:
                break
        found = review.quality()
        pairs = ((found.found, case.ap), (found.now, now))
        rows.append(
            [
                x
                for e, true in pairs
                for x in (e.low <= true <= e.high, e.high - e.low, e.value - true)
            ]
        )
    names = [f"{what}_{part}" for part in ("found", "now") for what in ("held", "width", "error")]
    return dict(zip(names, np.mean(rows, 0).round(3).tolist(), strict=True))


def effort(case: Case, tries: int) -> dict[str, Any]:
    """Return which share of looks and of corrections is saved on the way to each goal."""
    goals = [case.ap + share * (1 - case.ap) for share in SHARES]
    found = np.zeros((2, tries, len(goals), 2))
    for seed in range(tries):
        orders = (iter(case.review(seed)), random_order(case, np.random.default_rng(seed)))
        for number, order in enumerate(orders):
            reached = 0
            for count, (ap, corrections) in enumerate(looks(case, order, None), 1):
                while reached < len(goals) and ap >= goals[reached] - 1e-9:
                    found[number, seed, reached] = count, corrections
                    reached += 1
                if reached == len(goals):
                    break
    review, random = found.mean(1)
    fewer = 1 - review / random
    least = 1 - np.array([fewest_corrections(case, goal) for goal in goals]) / random[:, 1]
    return {
        "fewer_looks": fewer[:, 0].round(2).tolist(),
        "fewer_corrections": fewer[:, 1].round(2).tolist(),
        "possible": least.round(2).tolist(),
    }


def fewest_corrections(case: Case, goal: float) -> int:
    """Return how many corrections it takes to a goal with those that gain most first."""
    wrong = [(int(h), int(t)) for h, t in case.objects if (h, t) != (1, 1)]
    wrong += [(-1, 1)] * sum(map(len, case.missed))  # to be added
    judged = sum_hits = sum_true = added = 0
    order = sorted(wrong, key=lambda row: (max(row[0], 0) - row[1], row[0] != 0))
    for count, (hits, true) in enumerate(order, 1):
        if hits < 0:
            added += 1
        else:
            judged, sum_hits, sum_true = judged + 1, sum_hits + hits, sum_true + true
        if case.after(judged, sum_hits, sum_true, added) >= goal - 1e-9:
            return count
    return len(wrong)


def main() -> int:
    """Measure, print and judge; status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*CHOSEN, *UNSEEN])
    parser.add_argument("--most", type=int, default=12, help="images of a stack")
    parser.add_argument("--reviews", type=int, default=200)
    parser.add_argument("--fit", action="store_true", help="each kind by the weights of the others")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    began = time.perf_counter()
    cases: dict[str, list[Case]] = {}
    for kind, model in (CHOSEN | UNSEEN).items():
        if not args.only or kind in args.only:
            network = nu.load_model(model, "cpu")
            stacks = stacks_of(args.data, kind, args.most)
            cases[kind] = [make_case(name, frames, network) for name, frames in stacks]
            print(f"{kind}: segmented after {time.perf_counter() - began:.0f} s", flush=True)
    rows = []
    for kind, some_cases in cases.items():
        if args.fit:
            gain.WEIGHTS = fitted(
                [case for other in CHOSEN if other != kind for case in cases.get(other, [])]
            )
        for case in some_cases:
            row = {"stack": case.name, "objects": len(case.objects), "AP50": round(case.ap, 3)}
            rows.append(row | effort(case, 6) | coverage(case, args.reviews))
            print(rows[-1], flush=True)
    found: dict[str, Any] = {"stacks": rows}
    if args.fit:
        weights = fitted([case for kind in CHOSEN for case in cases.get(kind, [])])
        found["weights"] = weights.round(4).tolist()
    write_results(found, args.json)
    held = min(min(row["held_found"], row["held_now"]) for row in rows)
    return int(held < 0.9 or np.mean([row["fewer_corrections"] for row in rows]) < 0.3)


if __name__ == "__main__":
    raise SystemExit(main())
