"""What a training is judged by: held-out corrections, and what the model could do before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.evaluation.metrics import Scores, evaluate_known
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.progress import run_to_end
from napari_unet.core.training.holdout import count_known
from napari_unet.core.training.model_comparison import ModelComparison, compare_models
from napari_unet.core.training.rehearsal import replay_samples
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import Model
from napari_unet.nn.training.calibrate import sample_maps
from napari_unet.nn.training.cancellation import StopHook, run_with_heartbeat

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.training.holdout import Split
    from napari_unet.core.training.rehearsal import Crop
    from napari_unet.core.training.samples import Sample
    from napari_unet.nn.training.loop import NamedScores
    from napari_unet.nn.unet.net import UNet


CORRECTIONS = "corrections"
"""The group of what the user corrected; the other one is "replay"."""
SCORED = 4
"""Every so many'th crop of the replay is not trained on, to measure forgetting with."""


class HeldOutEvaluation:
    """Scores networks in training on what they are not trained on, and compares the scores.

    Parameters
    ----------
    card
        How the network is run in training.
    split
        What is trained on, and what is held out of the corrections.
    crops
        The replay of the model that is tuned; every `SCORED`'th of them is scored.
    scratch
        Whether the model knew nothing before.

    Attributes
    ----------
    metric
        "AP50" of objects, "IoU" of classes.
    held
        All that networks are scored on, in the groups "corrections" and "replay"; may be empty.
    """

    def __init__(
        self, card: ModelCard, split: Split, crops: Sequence[Crop], *, scratch: bool
    ) -> None:
        self._card, self._split, self._scratch = card, split, scratch
        self._scored = list(crops[::SCORED])
        self.metric = "AP50" if card.spec.head == "instance" else "IoU"
        self.held = self._held_out()

    def scores(self, net: UNet) -> Generator[None, None, NamedScores]:
        """Score a network; the first score, by which the best is chosen, is the groups' mean."""
        held, metric = self.held, self.metric
        scores: NamedScores = {}
        for group in sorted({item.group for item in held.items}):
            items = [item for item in held.items if item.group == group]
            found = yield from Validator(Samples(items, held.head), self._card).steps(net)
            scores[f"{metric} {group}"] = found[metric]
        if scores and f"{metric} {CORRECTIONS}" not in scores:
            # Chosen by what it knew before, the best would be what has learned nothing.
            return {metric: float("nan"), **scores}
        return {metric: float(np.mean(list(scores.values()))), **scores} if scores else {}

    def compare_models(self, history: Sequence[dict[str, Any]]) -> ModelComparison:
        """Say whether the best of a history of scores is better than its first entry, step 0."""
        metric = self.metric
        entries = [entry for entry in history if metric in entry]
        first = next((entry for entry in entries if entry["step"] == 0), None)
        later = [entry for entry in entries if entry["step"] > 0]
        best = max(later, key=_main_score, default=None)
        if best is not None and np.isnan(_main_score(best)):
            best = later[-1]
        held = self._split.validation
        objects = sum(count_known(item, held) for item in held.items) if held else 0
        scored = sum(len(np.unique(crop.labels)) for crop in self._scored)

        def pair(name: str) -> tuple[float, float] | None:
            if first is None or best is None or name not in first or name not in best:
                return None
            return first[name], best[name]

        reason = self._split.reason or "There was nothing to compare with yet."
        found = compare_models(
            metric,
            pair(f"{metric} {CORRECTIONS}"),
            pair(f"{metric} replay"),
            objects,
            reason,
            scored,
        )
        if self._scratch and best is not None and held:
            after = best.get(f"{metric} {CORRECTIONS}")
            reason = "It was trained from scratch: there is no model to compare it with."
            found = replace(found, after=after, reason=reason)
        return found

    def _held_out(self) -> Samples:
        held = self._split.validation
        items = [replace(item, group=CORRECTIONS) for item in held.items] if held else []
        if self._scored:
            head, channels = get_head(self._card.spec), self._card.spec.in_channels
            items += replay_samples(self._scored, head, channels).items
        return Samples(items, self._split.training.head)


def _main_score(entry: dict[str, Any]) -> float:
    """Return what the best was chosen by: the first of an entry's scores."""
    return float(next(v for k, v in entry.items() if k not in ("step", "loss")))


@dataclass(frozen=True, eq=False)
class Validator:
    """What `train` calls as ``validate``: the first of the scores decides which weights are best.

    An instance head is scored by AP at IoU 0.5, pooled over each group of samples and then
    averaged ("AP50", and "AP50 <group>" where there are several); a semantic head by the IoU of
    each class, pooled over the samples, and their mean ("IoU", "IoU <class>"). What is not known
    does not count; an object counts as a whole if half of it is known.

    Attributes
    ----------
    samples
        With the targets of the network's head.
    card
        How the network is run: its spec, its decoding and the size of object it works on best.
    precision
        Number format that it is run in.
    """

    samples: Samples
    card: ModelCard
    precision: str = "float32"

    def __call__(self, net: UNet) -> dict[str, float]:
        """Score a network in evaluation mode; higher is better."""
        return run_to_end(self.steps(net))

    def steps(self, net: UNet) -> Generator[None, None, dict[str, float]]:
        """Score a network as a call does, yielding after every sample and all along a long one."""
        model = Model(self.card, net, next(net.parameters()).device)
        brake = StopHook(model.runner(self.precision).net)
        score = self._ap50 if self.card.spec.head == "instance" else self._class_iou
        return (yield from score(model, brake))

    def _ap50(self, model: Model, brake: StopHook) -> Generator[None, None, dict[str, float]]:
        groups: dict[str, list[Scores]] = {}
        for sample in self.samples.items:
            scores = yield from run_with_heartbeat(partial(self._objects, model, sample), brake)
            groups.setdefault(sample.group, []).append(scores)
            yield
        ap50 = {name: float(Scores.pooled(some).ap[0]) for name, some in sorted(groups.items())}
        mean = {"AP50": float(np.mean(list(ap50.values())))}
        return mean | ({f"AP50 {g}": v for g, v in ap50.items()} if len(ap50) > 1 else {})

    def _objects(self, model: Model, sample: Sample) -> Scores:
        """Score the objects of one sample."""
        scale = working_scale(sample.diameter, model.diameter)
        decoding = model.decoding.in_image(scale, sample.labels.ndim)
        labels = decode_instances(self._maps(model, sample), decoding)
        return evaluate_known(labels, sample.labels, sample.known, (0.5,))

    def _class_iou(self, model: Model, brake: StopHook) -> Generator[None, None, dict[str, float]]:
        classes = model.spec.classes
        table = np.zeros((classes, classes), np.int64)  # rows: truth, columns: predicted
        for sample in self.samples.items:
            maps = yield from run_with_heartbeat(partial(self._maps, model, sample), brake)
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
