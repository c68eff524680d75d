"""Which settings of a tuning teach most, from the same corrections.

    python benchmarks/tuning_settings.py DATA --out RUN
    python benchmarks/tuning_settings.py DATA --out RUN --seeds 4 --cases general:bacteria_phase

Two whole loops (`loop.py`) differ by what the robot happens to correct, far more than by a setting.
So the robot of `loop.py` corrects images of a kind that the model has never seen once, up to 12
corrections, with the model as it is, and each of `SETTINGS` begins with that model and those
corrections. Scored are images that are not corrected: AP50 with the size estimated, and told. A
tuning takes half a minute of the processor, all of `CASES` and `SETTINGS` an hour a seed.

DATA holds a folder for each kind. Rows of RUN/settings.jsonl, one a tuning: model, kind, seed,
settings, AP50 before and after, seconds, verdict. What is there already is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from kinds import planes_of, some
from loop import KINDS, Image, Robot, read_kind, score

import napari_unet as nu
from napari_unet.core.image.domain_shift import ShiftWarning
from napari_unet.core.progress import run_to_end

CASES = (
    "nuclei:axons_tem",
    "general:bacteria_phase",
    "general:isbi2012",
    "general:ovule_nuclei_3d",
)
"""Models, and kinds of images that they have never seen."""
SETTINGS: dict[str, dict[str, Any]] = {
    "60 steps": {},
    "30 steps": {"steps": 30},
    "120 steps": {"steps": 120},
    "half the rate": {"learning_rate": 2.5e-4},
    "twice the rate": {"learning_rate": 1e-3},
    "replay .25": {"replay": 0.25},
    "replay .75": {"replay": 0.75},
    "encoder frozen": {"freeze": "encoder"},
    "nothing assumed": {"assumed": False},
}
"""What is compared with the first: settings of `TrainSettings`, and `assumed`, whether background
is assumed around what was corrected (and doubted)."""
STEPS = 60
CORRECTIONS = 12
LARGEST = 768
"""Larger images are cut to their middle, so that a robot opens and scores them in seconds."""


def read_case(data: Path, kind: str, most: int) -> tuple[list[Image], list[Image]]:
    """Return images to correct, in a fixed order, and up to `most` that are scored."""
    if kind in KINDS:
        return read_kind(data, kind, most)
    folder = data / kind
    with (folder / "split.csv").open() as table:
        rows = list(csv.DictReader(table))
    parts = []
    for part in ("train", "val"):
        names = [row["id"] for row in rows if row["split"] == part]
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))][:12]
        parts.append([(name, *map(middle, p)) for name in names for p in planes_of(folder, name)])
    return parts[0], some(parts[1], most)


def middle(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image or its labels (Y, X, ...), up to `LARGEST` pixels a side."""
    cut = []
    for size in image.shape[:2]:
        start = max(0, (size - LARGEST) // 2)
        cut.append(slice(start, start + LARGEST))
    return image[tuple(cut)]


def corrected(model: nu.Model, images: list[Image], seed: int) -> Robot:
    """Correct images in an order of the seed until there are `CORRECTIONS`, without any tuning."""
    rng = np.random.default_rng(seed)
    robot = Robot(model, rng, 0.5, CORRECTIONS, Path())
    for place in rng.permutation(len(images)):
        robot.correct(*images[place], CORRECTIONS)
        if robot.corrections >= CORRECTIONS:
            break
    return robot


def tune(robot: Robot, settings: dict[str, Any], seed: int) -> tuple[nu.Model, dict[str, Any]]:
    """Tune on what the robot corrected; return the model, and the time and verdict."""
    samples, values = robot.samples(), {"steps": STEPS, "seed": seed, **settings}
    if not values.pop("assumed", True):
        none = [np.zeros_like(item.known) for item in samples.items]
        samples.items = [
            replace(item, known=item.known & ~item.assumed, assumed=no)
            for item, no in zip(samples.items, none, strict=True)
        ]
    began = time.process_time()
    tuning = nu.Tuning(robot.model, samples, nu.TrainSettings(**values))
    run_to_end(tuning.steps())
    seconds = round(time.process_time() - began, 1)
    judgement = tuning.judgement
    return tuning.best(), {"seconds": seconds, "kept": judgement.keep, "verdict": str(judgement)}


def measure(args: argparse.Namespace, rows: list[dict[str, Any]], file: Path) -> None:
    """Add the rows that are not there yet, one line each, as soon as it is known."""
    for case in args.cases:
        name, kind = case.split(":")
        model = nu.load_model(name, args.device)
        images, scored = read_case(args.data, kind, args.scored)
        before = score(model, scored)
        for seed in range(args.seeds):
            own = {row["settings"] for row in rows if (row["case"], row["seed"]) == (case, seed)}
            open_ = {what: values for what, values in args.settings.items() if what not in own}
            robot = corrected(model, images, seed) if open_ else None
            for what, values in open_.items():
                tuned, told = tune(robot, values, seed)  # type: ignore[arg-type]
                row = {"case": case, "seed": seed, "settings": what, "before": before}
                row |= {"after": score(tuned, scored), **told}
                rows.append(row)
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def summarise(rows: list[dict[str, Any]], key: str) -> str:
    """Write the table of means over the seeds: AP50 before, and what each tuning adds to it."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = [
        f"| {key} | {' | '.join(cases)} | mean | kept | s |",
        "| --- " * (len(cases) + 4) + "|",
    ]
    known = [next(row for row in rows if row["case"] == case)["before"][key] for case in cases]
    lines.append(f"| before | {' | '.join(f'{v:.2f}' for v in known)} | {np.mean(known):.2f} | | |")
    for what in dict.fromkeys(row["settings"] for row in rows):
        own = [row for row in rows if row["settings"] == what]
        gains = [
            np.mean(
                [r["after"][key] - r["before"][key] for r in own if r["case"] == case] or [np.nan]
            )
            for case in cases
        ]
        kept, seconds = (np.mean([row[name] for row in own]) for name in ("kept", "seconds"))
        values = " | ".join(f"{value:+.3f}" for value in (*gains, np.mean(gains)))
        lines.append(f"| {what} | {values} | {kept:.0%} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what was requested and is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", metavar="MODEL:KIND", default=list(CASES))
    parser.add_argument("--settings", type=json.loads, default=SETTINGS, help="by name, as JSON")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--scored", type=int, default=4, help="images that are scored, at most")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ShiftWarning)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "settings.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    measure(args, rows, file)
    for key in ("AP50_told", "AP50"):
        print(f"\n{summarise(rows, key)}")


if __name__ == "__main__":
    main()
