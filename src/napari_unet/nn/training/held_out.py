"""Evaluation on held-out data: corrections, and what the model could do before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.core.evaluation.metrics import Scores, evaluate_known
from napari_unet.core.image.diameters import object_diameters, working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.instances.heads import InstanceHead, get_head
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.progress import run_to_end
from napari_unet.core.training.holdout import count_known
from napari_unet.core.training.model_comparison import (
    ModelComparison,
    TaughtScores,
    compare_models,
)
from napari_unet.core.training.rehearsal import rehearsal_samples
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import Model
from napari_unet.nn.training.cancellation import StopHook, run_cancellable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.tasks import DecodeSettings
    from napari_unet.core.training.holdout import Split
    from napari_unet.core.training.rehearsal import RehearsalCrop
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.training.loop import NamedScores
    from napari_unet.nn.unet.net import UNet


CORRECTIONS = "corrections"
"""The group of the user's corrections; the other one is "replay", the rehearsal set."""
LOOKED_AT = 6
"""Parts of the corrected images that are looked at again after a training, at most."""
SCORED_EVERY = 4
"""Every 4th crop of the rehearsal set is not trained on, to measure forgetting with."""


class HeldOutEvaluation:
    """Scores networks in training on held-out data, and compares the scores.

    Parameters
    ----------
    card
        How the network is run in training.
    split
        The corrections that are trained on, and those held out.
    crops
        The rehearsal set of the model that is tuned; every `SCORED_EVERY`'th crop is scored.
    scratch
        Whether the model knew nothing before.

    Attributes
    ----------
    split
        As given; once the training samples are prepared, those are looked at again.
    metric
        "AP50" of objects, "IoU" of classes.
    held
        All samples that networks are scored on, in the groups "corrections" and "replay"; may be
        empty.
    """

    def __init__(
        self, card: ModelCard, split: Split, crops: Sequence[RehearsalCrop], *, scratch: bool
    ) -> None:
        self.split, self._card, self._scratch = split, card, scratch
        self._scored = list(crops[::SCORED_EVERY])
        self.metric = "AP50" if card.spec.head == "instance" else "IoU"
        self.held = self._held_out()
        known = split.validation
        self._known = sum(count_known(item, known) for item in known.items) if known else 0
        self._rehearsed = sum(len(np.unique(crop.labels)) for crop in self._scored)

    def scores(self, net: UNet) -> Generator[None, None, NamedScores]:
        """Score a network; the first score, by which the best is chosen, is the groups' mean."""
        held, metric = self.held, self.metric
        scores: NamedScores = {}
        for group in sorted({item.group for item in held.items}):
            items = [item for item in held.items if item.group == group]
            found = yield from Validator(Samples(items, held.head), self._card).steps(net)
            scores[f"{metric} {group}"] = found[metric]
        if scores and f"{metric} {CORRECTIONS}" not in scores:
            # By the rehearsal set alone, weights that have learned nothing would be the best.
            return {metric: float("nan"), **scores}
        return {metric: float(np.mean(list(scores.values()))), **scores} if scores else {}

    def look_again(self, net: UNet) -> Generator[None, None, SeenAgain | None]:
        """Look at images that were trained on: what a network finds of what is labelled there.

        None if it is trained from scratch, or finds classes.
        """
        training = self.split.training
        if self._scratch or not isinstance(training.head, InstanceHead):
            return None
        step = -(-len(training.items) // LOOKED_AT)
        items = [replace(item, group="") for item in training.items[::step]]
        return (yield from Validator(Samples(items, training.head), self._card).look(net))

    def compare(
        self,
        history: Sequence[dict[str, Any]],
        chosen: NamedScores | None = None,
        again: tuple[SeenAgain | None, SeenAgain | None] = (None, None),
    ) -> ModelComparison:
        """Compare an entry of a history of scores, the best if none is given, with the first one.

        The first one is that of step 0. `again` is what `look_again` says of both networks.
        """
        metric = self.metric
        entries = [entry for entry in history if metric in entry]
        first = next((entry for entry in entries if entry["step"] == 0), None)
        later = [entry for entry in entries if entry["step"] > 0]
        best = chosen or max(later, key=_main_score, default=None)
        if chosen is None and best is not None and np.isnan(_main_score(best)):
            best = later[-1]
        held = self.split.validation

        def pair(name: str) -> tuple[float, float] | None:
            if first is None or best is None or name not in first or name not in best:
                return None
            return first[name], best[name]

        reason = self.split.reason or "There was nothing to compare with yet."
        found = compare_models(
            metric,
            pair(f"{metric} {CORRECTIONS}"),
            pair(f"{metric} replay"),
            self._known,
            reason,
            self._rehearsed,
            _taught(*again),
        )
        if self._scratch and best is not None and held:
            after = best.get(f"{metric} {CORRECTIONS}")
            reason = "It was trained from scratch: there is no model to compare it with."
            found = replace(found, after=after, reason=reason)
        return found

    def _held_out(self) -> Samples:
        held = self.split.validation
        items = [replace(item, group=CORRECTIONS) for item in held.items] if held else []
        if self._scored:
            head, channels = get_head(self._card.spec), self._card.spec.in_channels
            items += rehearsal_samples(self._scored, head, channels).items
        return Samples(items, self.split.training.head)


def _taught(before: SeenAgain | None, after: SeenAgain | None) -> TaughtScores | None:
    if before is None or after is None:
        return None
    counts = (
        after.objects, after.labelled, before.found, after.found, before.right, after.right
    )  # fmt: skip
    return TaughtScores(before.ap50, after.ap50, *counts)


@dataclass(frozen=True)
class SeenAgain:
    """What a network finds in images that it was trained on.

    Attributes
    ----------
    ap50
        AP at IoU 0.5 of the known objects.
    objects, labelled, found
        Number of those, of all objects that are labelled, and of those found.
    right
        Number of known objects that are found.
    """

    ap50: float
    objects: int
    labelled: int
    found: int
    right: int = 0


def _main_score(entry: dict[str, Any]) -> float:
    """Return the score that the best weights are chosen by: the first one of an entry."""
    return float(next(v for k, v in entry.items() if k not in ("step", "loss")))


@dataclass(frozen=True, eq=False)
class Validator:
    """Scores networks on labelled images; `train` calls it as ``validate``.

    An instance head is scored by AP at IoU 0.5, pooled over each group of samples and then
    averaged ("AP50", and "AP50 <group>" where there are several); a semantic head by the IoU of
    each class, pooled over the samples, and their mean ("IoU", "IoU <class>"). The first score
    decides which weights are best. Unknown pixels do not count; an object counts as a whole if half
    of it is known.

    Attributes
    ----------
    samples
        With the targets of the network's head.
    card
        How the network is run: its spec, decoding and working diameter.
    precision
        Number format of the network.
    """

    samples: Samples
    card: ModelCard
    precision: str = "float32"

    def __call__(self, net: UNet) -> dict[str, float]:
        """Score a network in evaluation mode; higher is better."""
        return run_to_end(self.steps(net))

    def steps(self, net: UNet) -> Generator[None, None, dict[str, float]]:
        """Score a network as a call does, yielding several times a second."""
        model = Model(self.card, net, next(net.parameters()).device)
        stop_hook = StopHook(model.runner(self.precision).net)
        score = self._ap50 if self.card.spec.head == "instance" else self._class_iou
        return (yield from score(model, stop_hook))

    def look(self, net: UNet) -> Generator[None, None, SeenAgain]:
        """Look at images of objects of which a part is known, yielding several times a second."""
        model = Model(self.card, net, next(net.parameters()).device)
        stop_hook = StopHook(model.runner(self.precision).net)
        scores, labelled, found = [], 0, 0
        for sample in self.samples.items:
            labels = yield from run_cancellable(partial(self._decoded, model, sample), stop_hook)
            scores.append(evaluate_known(labels, sample.labels, sample.known, (0.5,)))
            labelled += len(object_diameters(sample.labels))
            found += len(object_diameters(labels))
            yield
        pooled = Scores.pooled(scores)
        ap50, right = float(pooled.ap[0]), int(pooled.tp[0])
        return SeenAgain(ap50, pooled.true_objects, labelled, found, right)

    def _ap50(self, model: Model, stop_hook: StopHook) -> Generator[None, None, dict[str, float]]:
        groups: dict[str, list[Scores]] = {}
        for sample in self.samples.items:
            scores = yield from run_cancellable(partial(self._objects, model, sample), stop_hook)
            groups.setdefault(sample.group, []).append(scores)
            yield
        ap50 = {name: float(Scores.pooled(some).ap[0]) for name, some in sorted(groups.items())}
        mean = {"AP50": float(np.mean(list(ap50.values())))}
        return mean | ({f"AP50 {g}": v for g, v in ap50.items()} if len(ap50) > 1 else {})

    def _objects(self, model: Model, sample: Sample) -> Scores:
        """Score the objects of one sample."""
        labels = self._decoded(model, sample)
        return evaluate_known(labels, sample.labels, sample.known, (0.5,))

    def _decoded(self, model: Model, sample: Sample) -> np.ndarray:
        """Return the objects that are found in one sample."""
        return decode_sample(self._maps(model, sample), sample, model.decoding, model.diameter)

    def _class_iou(
        self, model: Model, stop_hook: StopHook
    ) -> Generator[None, None, dict[str, float]]:
        classes = model.spec.classes
        table = np.zeros((classes, classes), np.int64)  # rows: truth, columns: predicted
        for sample in self.samples.items:
            maps = yield from run_cancellable(partial(self._maps, model, sample), stop_hook)
            predicted = maps.argmax(0)[sample.known]
            pairs = sample.labels[sample.known].astype(np.int64) * classes + predicted
            table += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
            yield
        union = table.sum(0) + table.sum(1) - table.diagonal()
        names = get_head(model.spec).names
        iou = {name: table[k, k] / union[k] for k, name in enumerate(names) if union[k]}
        mean = {"IoU": float(np.mean(list(iou.values()))) if iou else float("nan")}
        return mean | {f"IoU {name}": float(value) for name, value in iou.items()}

    def _maps(self, model: Model, sample: Sample) -> np.ndarray:
        return sample_maps(model, sample, self.precision)


def sample_maps(model: Model, sample: Sample, precision: str = "float32") -> np.ndarray:
    """Return a model's maps of one whole sample: float32 (K, [Z,] Y, X).

    The sample is zoomed to the model's working diameter, as `segment` does when it is told the
    objects' diameter.
    """
    size = sample.labels.shape
    scale = working_scale(sample.diameter, model.diameter)
    image = resize(sample.image, tuple(max(1, round(n * scale)) for n in size))
    raw = model.runner(precision)(torch.from_numpy(image)[None])[0]
    return get_head(model.spec).activate(resize(raw.cpu().numpy(), size))


def decode_sample(
    maps: np.ndarray, sample: Sample, settings: DecodeSettings, diameter: float | None
) -> np.ndarray:
    """Make objects of a sample's maps.

    Parameters
    ----------
    maps
        As `sample_maps` gives them.
    settings
        As a model's card has them: `min_size` counts the network's pixels.
    diameter
        The model's working diameter.
    """
    scale = working_scale(sample.diameter, diameter)
    return decode_instances(maps, settings.in_image(scale, sample.labels.ndim))
