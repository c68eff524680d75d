"""Whether correcting where the model is uncertain pays: tuned on uncertain or random crops.

    python benchmarks/doubtful.py DATA --out RUN          # 5 seeds; goes on where it stopped
    python benchmarks/doubtful.py DATA --out RUN --quick  # a minute, to see that it works
    python benchmarks/doubtful.py DATA --out RUN --base OTHER/base

DATA holds the folder `bbbc038`. The base is that of `finetune.py`, trained on fluorescence alone:
it is taken from `--base`, or from RUN/base, where it is trained if it is not there. For each seed
some histology images of the training split are the user's: of them, K crops are corrected. Either
those around the most doubtful objects and places, as the button "Next doubtful object" shows them,
or crops at random. Both tunings have the same number of steps; AP50 is measured on other histology
images of the training split, none of which the base or either tuning has seen, with the true sizes
told: what the size estimate makes of it is not the question here.

Results are lines of JSON in RUN/results.jsonl; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from finetune import Bench, base_model, show

import napari_unet as nu
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.progress import run_to_end
from napari_unet.nn.inference.uncertainty import find_uncertain_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Window = tuple[slice, slice]
    Crop = tuple[str, Window]
    """An image's name, and the place of a crop in it."""


def window_around(centre: tuple[float, ...], shape: tuple[int, ...], edge: int) -> Window:
    """Return a square around a place, moved into the image where it would stick out."""
    starts = [
        int(np.clip(round(at) - edge // 2, 0, max(0, size - edge)))
        for at, size in zip(centre, shape, strict=True)
    ]
    y, x = (
        slice(start, min(start + edge, size)) for start, size in zip(starts, shape, strict=True)
    )
    return y, x


def overlaps(one: Crop, other: Crop) -> bool:
    """Tell whether two crops have pixels in common."""
    return one[0] == other[0] and all(
        a.start < b.stop and b.start < a.stop for a, b in zip(one[1], other[1], strict=True)
    )


def first_apart(crops: Iterator[Crop], count: int) -> list[Crop]:
    """Take the first crops that do not overlap."""
    taken: list[Crop] = []
    for crop in crops:
        if not any(overlaps(crop, other) for other in taken):
            taken.append(crop)
        if len(taken) == count:
            break
    return taken


def doubtful_crops(bench: Bench, base: nu.Model, pool: list[str], edge: int) -> Iterator[Crop]:
    """Yield crops around the most uncertain places of some images, the most uncertain first."""
    found = []
    for name in pool:
        path, labels = bench.pair(name)
        steps = find_uncertain_regions(path, base, nu.PredictSettings(certify=False, survey=False))
        found += [
            (place.score, name, window_around(place.centre, labels.shape, edge))
            for place in run_to_end(steps)
        ]
    for _, name, window in sorted(found, key=lambda crop: -crop[0]):
        yield name, window


def random_crops(
    bench: Bench, pool: list[str], edge: int, rng: np.random.Generator
) -> Iterator[Crop]:
    """Yield crops at random places of some images, large images more often."""
    shapes = [bench.pair(name)[1].shape for name in pool]
    areas = np.array([np.prod(shape) for shape in shapes], float)
    while True:
        at = int(rng.choice(len(pool), p=areas / areas.sum()))
        centre = tuple(rng.uniform(0, size) for size in shapes[at])
        yield pool[at], window_around(centre, shapes[at], edge)


def make_samples(bench: Bench, crops: list[Crop]) -> nu.Samples:
    """Return images of which the crops alone are known."""
    pairs, known = [], []
    for name in sorted({name for name, _ in crops}):
        path, labels = bench.pair(name)
        mask = np.zeros(labels.shape, bool)
        for _, window in (crop for crop in crops if crop[0] == name):
            mask[window] = True
        pairs.append((path, labels))
        known.append(mask)
    return nu.Samples.from_labels(pairs, known)


def measure(
    bench: Bench,
    base: nu.Model,
    what: str,
    seed: int,
    choose: Callable[[], list[Crop]],
    others: list[str],
) -> None:
    """Tune on crops, score on other images and write the figure."""
    began = time.monotonic()
    samples = make_samples(bench, choose())
    tuning = nu.Tuning(base, samples, bench.settings(seed))
    run_to_end(tuning.steps())
    bench.add(
        what,
        AP50=bench.ap50_on(others, tuning.best(), told=True),
        objects=samples.card()["objects"],
        images=len(samples.items),
        steps=tuning.state.step,
        seconds=round(time.monotonic() - began),
    )


def summary(bench: Bench, count: int, seeds: int) -> None:
    """Print means, and how often the doubtful crops won."""
    pairs = [
        tuple(
            bench.done[f"{kind}, {count} crops, seed {seed}"]["AP50"]
            for kind in ("doubtful", "random")
        )
        for seed in range(seeds)
    ]
    doubtful, random = np.array(pairs).T
    show(
        {
            "what": f"{count} crops, {seeds} seeds",
            "doubtful": round(float(doubtful.mean()), 4),
            "random": round(float(random.mean()), 4),
            "gain": round(float((doubtful - random).mean()), 4),
            "won": f"{int((doubtful > random).sum())} of {seeds}",
        }
    )


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="folder of a model that knows no histology")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=150, help="of each tuning")
    parser.add_argument("--crops", type=int, nargs="+", default=[8], help="how many are corrected")
    parser.add_argument("--edge", type=int, default=128, help="of a crop, in pixels")
    parser.add_argument("--pool", type=int, default=24, help="images that the user has")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scored", type=int, default=30, help="on so many other images")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the tuning, as JSON")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.base_steps, args.steps, args.crops, args.pool = 60, 6, [2], 3
        args.seeds, args.scored = 1, 2
    changes = {"minutes": None, "steps": args.steps, **args.settings}
    warnings.simplefilter("ignore", ShiftWarning)  # that histology is new to it is the point
    bench = Bench(
        args.data, args.out, args.device, args.base_steps, 0, [], [], args.seeds, args.scored,
        changes,
    )  # fmt: skip
    base = nu.load_model(str(args.base), args.device) if args.base else base_model(bench)
    for count in args.crops:
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            names = rng.permutation(bench.names("train", "histology")).tolist()
            pool, others = names[: args.pool], names[args.pool :][: args.scored]
            if not bench.measured(f"base, seed {seed}"):
                bench.add(f"base, seed {seed}", AP50=bench.ap50_on(others, base, told=True))
            ways = {
                "doubtful": lambda: doubtful_crops(bench, base, pool, args.edge),  # noqa: B023
                "random": lambda: random_crops(bench, pool, args.edge, rng),  # noqa: B023
            }
            for kind, crops in ways.items():
                what = f"{kind}, {count} crops, seed {seed}"
                if not bench.measured(what):
                    measure(
                        bench, base, what, seed,
                        lambda crops=crops, count=count: first_apart(crops(), count), others,
                    )  # fmt: skip
        summary(bench, count, args.seeds)


if __name__ == "__main__":
    main()
