"""What refiners learn from: answers of a click head to a robot's clicks, with the truth.

`train_outlines.py` gathers them once and keeps them: a click costs as much as a step of training.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tifffile
from scipy import ndimage

from napari_unet.core.image.frames import Resampling
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.simulation import first_click, next_click
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.interactive.mask_predictor import MaskPredictor
from napari_unet.nn.interactive.session import ClickSession

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from lab.synthetic_images import normalise
from lab.synthetic_kinds import make_object_scene
from train_clicks import TRAIN_SCENES
from train_general import KINDS, bare_sample, group_of, read_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_unet.core.prompts.clicks import Click
    from napari_unet.core.tiles import Index
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.interactive.refined_window import Outline
    from napari_unet.nn.unet.click_head import ClickHead
    from napari_unet.nn.unet.refiner import Refiner

SHARES = {
    "bbbc038 fluorescence": 0.13,
    "bbbc038 histology": 0.09,
    "phase_cells": 0.26,
    "axons_tem": 0.11,
    "axons_sem": 0.08,
    "chloroplasts_em": 0.03,
    "neurons_brightfield": 0.18,
    "scenes": 0.12,
}
"""How often the pictures of each group are drawn: large and thin objects gain most."""
SCENE_EDGE = 384
"""Edge length of generated scenes, in pixels."""
EDGE = 256
"""Edge length of a picture, in network pixels, at most."""
OBJECTS, CLICKS = 8, (1, 1, 2, 2, 3, 4, 6)
"""Objects that are clicked on in a picture, and how often each of them, drawn at random."""
SIZE_SPREAD = 0.25
"""Spread of the logarithm of the size that a session is told: users do not know it, either."""
SMALLEST = 40
"""Objects of fewer pixels are not clicked on."""


@dataclass(frozen=True)
class Pictures:
    """Draws labelled images, read when they are drawn, and generated scenes."""

    data: Path
    rows: dict[str, list[tuple[str, str]]]
    channels: int

    @classmethod
    def of(cls, data: Path, channels: int) -> Pictures:
        """List the training images of all kinds by group: folder and name."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for kind in KINDS:
            for row in read_split(data / kind.folder, "train"):
                group = group_of(kind, row.get("modality", ""))
                rows.setdefault(group, []).append((kind.folder, f"{row['id']}.tif"))
        return cls(data, rows, channels)

    def draw(self, group: str, rng: np.random.Generator) -> Sample:
        """Draw one of a group."""
        if group == "scenes":
            scene = make_object_scene([TRAIN_SCENES, int(rng.integers(2**31))], SCENE_EDGE)
            return bare_sample(normalise(scene.image, self.channels), scene.layers[0], group)
        folder, name = self.rows[group][int(rng.integers(len(self.rows[group])))]
        image, labels = (
            tifffile.imread(self.data / folder / part / name) for part in ("images", "labels")
        )
        return bare_sample(normalise(image, self.channels), labels, group)


def cut_picture(sample: Sample, diameter: float, rng: np.random.Generator) -> Sample:
    """Cut a part of a sample around one of its objects, turn it, and vary its intensities."""
    labels = sample.labels
    edge = max(32, round(EDGE * (sample.diameter or diameter) / diameter))
    places = np.argwhere(labels[::4, ::4] > 0) * 4
    middle = places[rng.integers(len(places))] if len(places) else np.array(labels.shape) // 2
    window = tuple(
        slice(max(0, min(int(m) - edge // 2, n - edge)), min(n, max(int(m) + edge // 2, edge)))
        for m, n in zip(middle, labels.shape, strict=True)
    )
    turns, flip = int(rng.integers(4)), 1 if rng.random() < 0.5 else -1
    image = np.rot90(sample.image[(slice(None), *window)], turns, (1, 2))[..., ::flip]
    turned = np.rot90(labels[window], turns)[..., ::flip]
    if rng.random() < 0.5:
        image = image * rng.uniform(0.6, 1.4)
        if rng.random() < 0.15:
            image = -image
        if rng.random() < 0.3:
            image = ndimage.gaussian_filter(image, (0, *(rng.uniform(0.3, 1.0),) * 2))
        if rng.random() < 0.5:
            image = image + rng.normal(0, rng.uniform(0, 0.08), image.shape)
    return replace(
        sample, image=np.ascontiguousarray(image, np.float32), labels=np.ascontiguousarray(turned)
    )


@dataclass(frozen=True)
class Answer:
    """What a refiner saw, and what is true.

    Attributes
    ----------
    maps
        float16 (3, Y, X): logit and image, see `Outline`; and the share of each pixel that belongs
        to the object.
    positive, negative
        Clicks, float32 (n, 2).
    """

    maps: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


@dataclass(frozen=True)
class _Recorder(MaskPredictor):
    """Keeps what the refiner is shown."""

    seen: list[Outline] = field(default_factory=list)
    _refines = True  # in coarse images, too: there is something to learn from them

    def _refine(self, refiner: Refiner, outline: Outline, *rest: Any) -> None:
        self.seen.append(outline)
        if refiner.net.head.weight.any():  # an untrained one changes nothing
            super()._refine(refiner, outline, *rest)


class _RecordingSession(ClickSession):
    """A session whose newest answer can be looked at."""

    def predictor(self, index: Index) -> MaskPredictor:
        made = super().predictor(index)
        self.recorder = _Recorder(made.features, made.head, made.initial)
        return self.recorder


def draw_answers(
    model: Model, pictures: Pictures, rng: np.random.Generator
) -> Iterator[tuple[str, Answer]]:
    """Click on objects of random pictures, without an end: yield the group and the answers."""
    diameter = model.diameter or 22.0
    count = dict.fromkeys((name for name in SHARES if name in (*pictures.rows, "scenes")), 0)
    head = cast("ClickHead", model.click).ready()
    while True:
        # The group that is furthest behind its share: pictures have different numbers of objects.
        group = min(count, key=lambda name: count[name] / SHARES[name])
        picture = cut_picture(pictures.draw(group, rng), diameter, rng)
        areas = np.bincount(picture.labels.ravel())
        large = np.flatnonzero(areas[1:] >= SMALLEST) + 1
        if not len(large):
            continue
        stack = replace(open_stack(picture.image, axes="CYX"), rgb=True)
        size = (picture.diameter or 1.0) * float(np.exp(rng.normal(0, SIZE_SPREAD)))
        session = _RecordingSession(model, stack, settings=PredictSettings(diameter=size))
        session.use(head)
        for label in rng.choice(large, min(OBJECTS, len(large)), replace=False):
            for answer in answers_to(session, picture.labels == label, rng):
                count[group] += 1
                yield group, answer


def answers_to(
    session: _RecordingSession, truth: np.ndarray, rng: np.random.Generator
) -> Iterator[Answer]:
    """Click on an object and correct it, and yield what the refiner saw after each click."""
    session.reset()
    click: Click | None = first_click(truth, rng)
    for _ in range(int(rng.choice(CLICKS))):
        if click is None:
            return
        mask = session.add(click)
        for seen in session.recorder.seen:  # nothing, if the object is too large for a refiner
            maps = np.stack([seen.logit, seen.image, truth_in(seen, truth)]).astype(np.float16)
            yield Answer(maps, *seen.clicks)
        session.recorder.seen.clear()
        click = next_click(truth, mask, rng)


def truth_in(outline: Outline, truth: np.ndarray) -> np.ndarray:
    """Return the share of each of a refiner's pixels that belongs to an object, float32."""
    values: np.ndarray = truth.astype(np.float32)
    frame = outline.frame
    for axis, w in enumerate(outline.window.window):
        zoom = Resampling(frame.size[axis], frame.shape[axis])
        values = values.take(range(*zoom.needs(w.start, w.stop).indices(frame.size[axis])), axis)
        values = zoom.apply(values, axis, w.start, w.stop)
    return values


def gather_answers(
    folder: Path, count: int, draw: Callable[[int], Iterator[tuple[str, Answer]]]
) -> list[Answer]:
    """Return the answers in a folder, after adding some until there are so many.

    `draw` is told how many are there: thereby others are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = len(list(folder.glob("*.npz")))
    began = time.monotonic()
    for number, (group, answer) in zip(range(there, count), draw(there), strict=False):
        with (folder / f"{number:06d} {group}.npz").open("wb") as file:
            np.savez(file, maps=answer.maps, positive=answer.positive, negative=answer.negative)
        if number % 200 == 0:
            sys.stderr.write(f"{number} answers, {time.monotonic() - began:.0f} s\n")
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            found.append(Answer(file["maps"], file["positive"], file["negative"]))
    return found
