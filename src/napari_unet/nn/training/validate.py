"""Scores of a network in training, on samples that it does not see in training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.heads import head_of
from napari_unet.core.metrics import Scores
from napari_unet.core.objects import separate
from napari_unet.core.scoring.partial import evaluate_known
from napari_unet.core.sizes import working_scale
from napari_unet.core.steps import drained
from napari_unet.nn.heartbeat import Brake, beating
from napari_unet.nn.model import Model
from napari_unet.nn.training.calibrate import sample_maps

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.samples import Sample, Samples
    from napari_unet.nn.net import UNet


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
        return drained(self.steps(net))

    def steps(self, net: UNet) -> Generator[None, None, dict[str, float]]:
        """Score a network as a call does, yielding after every sample and all along a long one."""
        model = Model(self.card, net, next(net.parameters()).device)
        brake = Brake(model.runner(self.precision).net)
        score = self._ap50 if self.card.spec.head == "instance" else self._class_iou
        return (yield from score(model, brake))

    def _ap50(self, model: Model, brake: Brake) -> Generator[None, None, dict[str, float]]:
        groups: dict[str, list[Scores]] = {}
        for sample in self.samples.items:
            scores = yield from beating(partial(self._objects, model, sample), brake)
            groups.setdefault(sample.group, []).append(scores)
            yield
        ap50 = {name: float(Scores.pooled(some).ap[0]) for name, some in sorted(groups.items())}
        mean = {"AP50": float(np.mean(list(ap50.values())))}
        return mean | ({f"AP50 {g}": v for g, v in ap50.items()} if len(ap50) > 1 else {})

    def _objects(self, model: Model, sample: Sample) -> Scores:
        """Score the objects of one sample."""
        scale = working_scale(sample.diameter, model.diameter)
        decoding = model.decoding.in_image(scale, sample.labels.ndim)
        labels = separate(self._maps(model, sample), decoding)
        return evaluate_known(labels, sample.labels, sample.known, (0.5,))

    def _class_iou(self, model: Model, brake: Brake) -> Generator[None, None, dict[str, float]]:
        classes = model.spec.classes
        table = np.zeros((classes, classes), np.int64)  # rows: truth, columns: predicted
        for sample in self.samples.items:
            maps = yield from beating(partial(self._maps, model, sample), brake)
            predicted = maps.argmax(0)[sample.known]
            pairs = sample.labels[sample.known].astype(np.int64) * classes + predicted
            table += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
            yield
        union = table.sum(0) + table.sum(1) - table.diagonal()
        names = head_of(model.spec).names
        iou = {name: table[k, k] / union[k] for k, name in enumerate(names) if union[k]}
        mean = {"IoU": float(np.mean(list(iou.values()))) if iou else float("nan")}
        return mean | {f"IoU {name}": float(value) for name, value in iou.items()}

    def _maps(self, model: Model, sample: Sample) -> np.ndarray:
        return sample_maps(model, sample, self.precision)
