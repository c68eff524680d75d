"""What a review of labels saves, and whether its estimate of the quality can be trusted.

    python benchmarks/review.py DATA                    # about two minutes
    python benchmarks/review.py DATA --reviews 1000 --most 40

DATA holds the folder `bbbc038`. Its validation images of one kind and size, of which the model has
seen none, are segmented once, and compared with the truth: which object is a hit, how many true
objects are counted with each, and how many are missed in each square of 6 diameters. A review is
then simulated on these numbers, by the code that the window uses.

Coverage: each review is stopped at a random number of looks, from a tenth to six tenths of the
objects; AP50 of the labels as they were found, and as they are after the corrections so far, is
held against the interval (goal: inside it in 90 % of 200 reviews).

Effort: how many looks, and how many corrections, until the AP50 of the labels has come a half and
three quarters of the way to 1, in the order of the review, with its random draws, against a random
order of objects and squares (goal: 30 % fewer).
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
from lab.report import write_results

import napari_unet as nu
from napari_unet.core.alike.descriptors import describe_objects, object_masks
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.instances.heads import get_head
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.review.order import OBJECT, PLACE, SQUARE, ReviewItem, ReviewOrder, worth
from napari_unet.core.review.outcome import Outcomes
from napari_unet.core.review.squares import Squares
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.segment import segment_steps
from napari_unet.nn.inference.uncertainty import rank_uncertain_regions

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARES = (0.5, 0.75)


@dataclass(frozen=True)
class Case:
    """One stack in numbers.

    Attributes
    ----------
    objects
        (N, 2): hits and true objects of each.
    worth, places
        What a look is worth: (N,) of objects, (P,) of places where one may be missing.
    missed
        For each square the places that lead to its missed objects, -1 for none.
    """

    name: str
    objects: np.ndarray
    worth: np.ndarray
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


def make_case(name: str, frames: list[tuple[np.ndarray, np.ndarray]], model: nu.Model) -> Case:
    """Segment a stack's frames, and compare them with the truth."""
    outcomes, doubts, looks, places, missed = [], [], [], [], []
    count = 0
    for image, truth in frames:
        stack = open_stack(image, "YXC" if image.ndim == 3 else "YX")
        settings = nu.PredictSettings(certify=False, survey=False)
        result = run_to_end(segment_steps(stack, model, settings))
        labels = result.labels
        settings = nu.PredictSettings(diameter=result.provenance.get("diameter_px"), survey=False)
        maps = nu.predict(stack, model, settings)
        found = rank_uncertain_regions(maps, labels, get_head(model.spec))
        outcome = Outcomes.from_labels(labels, truth)
        outcomes.append(np.stack([outcome.hits, outcome.true], 1))
        doubt = {place.label: place.score for place in found if place.label}
        doubts.append(np.array([doubt.get(int(label), 0.0) for label in outcome.labels]))
        frame = open_frame(stack, model, settings, ())
        whole = tuple(slice(0, n) for n in truth.shape)
        shown = frame.normaliser(stack.read((), whole, tuple(sorted(set(frame.channels)))))
        looks.append(describe_objects(list(object_masks(labels).values()), labels, shown))
        empty = [place for place in found if not place.label]
        squares = Squares.of_labels(truth.shape, labels)
        parts: list[list[int]] = [[] for _ in range(len(squares))]
        for label in outcome.missed:
            pixels = np.argwhere(truth == label)
            leads = [
                n for n, place in enumerate(empty) if any((truth[place.window] == label).ravel())
            ]
            parts[squares.at(pixels.mean(0))].append(count + leads[0] if leads else -1)
        missed += parts
        places += [place.score for place in empty]
        count += len(empty)
    value, missing = worth(np.concatenate(doubts), np.concatenate(looks), np.array(places))
    return Case(name, np.concatenate(outcomes), value, missing, missed)


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


def coverage(cases: list[Case], reviews: int) -> dict[str, float]:
    """Return how often the interval holds the truth, how wide it is, and the mean error."""
    rng, rows = np.random.default_rng(0), []
    for number in range(reviews):
        case = cases[number % len(cases)]
        review = ReviewOrder(case.worth, case.places, len(case.missed), seed=number)
        stop = max(5, int(len(case.objects) * rng.uniform(0.1, 0.6)))
        now = case.ap
        for count, (ap, _) in enumerate(looks(case, iter(review), review), 1):
            now = ap
            if count == stop:
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


def effort(cases: list[Case], tries: int) -> list[dict[str, Any]]:
    """Return looks and corrections until AP50 has come a share of the way to 1."""
    rows = []
    for case in cases:
        for share in SHARES:
            goal = case.ap + share * (1 - case.ap)
            found: dict[str, list[tuple[int, int]]] = {"review": [], "random": []}
            for seed in range(tries):
                review = ReviewOrder(case.worth, case.places, len(case.missed), seed=seed)
                orders = {
                    "review": iter(review),
                    "random": random_order(case, np.random.default_rng(seed)),
                }
                for name, order in orders.items():
                    for count, (ap, corrections) in enumerate(looks(case, order, None), 1):
                        if ap >= goal:
                            found[name].append((count, corrections))
                            break
            means = {name: np.mean(values, 0) for name, values in found.items()}
            rows.append(
                {
                    "stack": case.name, "objects": len(case.objects), "AP50": round(case.ap, 3),
                    "to": round(goal, 3),
                    **{f"{name}_looks": round(float(m[0]), 1) for name, m in means.items()},
                    **{f"{name}_corrections": round(float(m[1]), 1) for name, m in means.items()},
                    "fewer_looks": round(1 - float(means["review"][0] / means["random"][0]), 2),
                }
            )  # fmt: skip
    return rows


def main() -> int:
    """Measure, print and judge; status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--most", type=int, default=12, help="images of a stack")
    parser.add_argument("--reviews", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    began = time.perf_counter()
    model = nu.load_model(args.model, "cpu")
    stacks = stacks_of_nuclei(args.data / "bbbc038", args.most)
    cases = [make_case(name, frames, model) for name, frames in stacks]
    print(f"segmented in {time.perf_counter() - began:.0f} s", flush=True)
    found = {"coverage": coverage(cases, args.reviews), "effort": effort(cases, 10)}
    write_results(found, args.json)
    held = min(found["coverage"]["held_found"], found["coverage"]["held_now"])
    return int(held < 0.9 or np.mean([row["fewer_looks"] for row in found["effort"]]) < 0.3)


if __name__ == "__main__":
    raise SystemExit(main())
