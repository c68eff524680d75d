"""The Evaluate section of the Segment panel: labels against the true labels, scores, a layer.

What matches objects is imported by the functions that need it: its libraries take a quarter of a
second, which the window must not wait for when the panel opens.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.axes import FRAMES, object_ndim, shared_axes
from napari_unet.core.io.provenance import hash_labels
from napari_unet.core.models.own_record import OwnScores, add_scores, record_path
from napari_unet.gui.jobs.run_button import LayerSection, ResultRun
from napari_unet.gui.layers.combos import as_choices, object_layers, refresh_choices
from napari_unet.gui.layers.convert import full_resolution, layer_axes
from napari_unet.gui.layers.overlay_layer import (
    COMPARES,
    get_overlay,
    get_transform,
    legend,
    overlay_colormap,
    overlay_metadata,
    overlay_names,
    remove_layer,
)
from napari_unet.gui.layers.result_info import ResultInfo, get_provenance, labels_checksum
from napari_unet.gui.mask_labels import doubt_labels, offer_pieces

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari
    from napari.layers import Labels

    from napari_unet.core.evaluation.metrics import Scores
    from napari_unet.core.progress import Progress


SECTION = "evaluate"
_KEPT = {"AP50": "AP50", "AP75": "AP75", "f1": "F1", "pq": "PQ", "dice": "Dice"}
"""Scores that are kept with the model, by their names there."""
_HINT = "Open the true objects as a Labels layer to compare with."
_TIPS = {
    "labels": "The objects to evaluate.",
    "truth": "The objects as they should be.",
    "frames": "How a stack is divided before its objects are matched: into planes, or into the "
    "volumes\nof its time points. auto: planes for what a 2D model found, otherwise volumes.",
    "start": "Score the labels, and show hits, false and missed objects in a layer.",
}


@dataclass(frozen=True)
class Evaluation:
    """The scores of a Labels layer.

    Attributes
    ----------
    labels, truth
        The layers that were compared.
    scores
        The result.
    codes
        uint8, the labels' shape: the match status of each object, as `draw_match_status` of
        `core.evaluation.comparison` writes it.
    frames
        What the stack was divided into: "planes" or "volumes".
    doubts
        Layers that look as if they held no objects, and why; and in how many axes objects lie.
    kept
        Where the scores were kept, as a sentence; "" if no model made the labels, or not alone.
    """

    labels: Labels
    truth: Labels
    scores: Scores
    codes: np.ndarray
    frames: str
    doubts: tuple[tuple[Labels, str], ...] = ()
    ndim: int = 3
    kept: str = ""


class EvaluateSection(LayerSection):
    """Compares a Labels layer with the truth.

    Attributes
    ----------
    labels, truth, frames
        The choices.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.truth: Any = ComboBox(name="truth", choices=self._choices, tooltip=_TIPS["truth"])
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        self.build(
            "Evaluate",
            SECTION,
            [("labels", self.labels), ("truth", self.truth), ("match in", self.frames)],
            _HINT,
            text="Evaluate",
            tip=_TIPS["start"],
            doing="Comparing …",
            failing="the evaluation failed",
        )

    def run(self) -> None:
        """Compare the chosen layers in a job's thread, and show the scores at the end."""
        labels, truth = self.labels.value, self.truth.value
        if labels is not None and truth is not None and self.active is None:
            begin = functools.partial(begin_evaluation, labels, truth, self.frames.value)
            self.button.launch(ResultRun, begin)

    def _show(self, run: ResultRun) -> None:
        found: Evaluation = run.result
        self.result.setText(format_evaluation(found))
        for layer, doubt in found.doubts:
            offer_pieces(self._viewer, layer, doubt, found.ndim)
        if found.labels in self._viewer.layers:
            show_evaluation(self._viewer, found)
            for layer in (found.labels, found.truth):
                layer.visible = False  # their colours would lie under those of the evaluation

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(object_layers(self._viewer))

    def _refresh(self) -> None:
        """Offer the layers that there are; guess which is which until the user has chosen."""
        refresh_choices(self.labels, self.truth)
        layers = list(self.labels.choices)
        if len(layers) > 1 and self.labels.value == self.truth.value:
            results = [layer for layer in layers if ResultInfo.from_layer(layer).is_result]
            self.labels.value = results[-1] if results else self.labels.value
            self.truth.value = next(layer for layer in layers if layer != self.labels.value)

    @property
    def _possible(self) -> bool:
        return len(self.labels.choices) > 1


def begin_evaluation(
    labels: Labels, truth: Labels, frames: str
) -> Generator[Progress, None, Evaluation]:
    """Read two layers, in the window's thread; return the work that compares them.

    Parameters
    ----------
    frames
        One of `napari_unet.core.io.axes.FRAMES`; "auto" looks at the labels' provenance.

    Raises
    ------
    InputError
        It is one layer twice, the shapes differ, or the axes cannot be told apart.
    """
    if labels == truth:
        raise InputError(
            f"{labels.name!r} would be compared with itself; choose the true labels under truth."
        )
    found, wanted = full_resolution(labels), full_resolution(truth)
    if tuple(found.shape) != tuple(wanted.shape):
        raise InputError(
            f"{labels.name!r} has shape {tuple(found.shape)}, {truth.name!r} "
            f"{tuple(wanted.shape)}; choose two layers with labels of the same image."
        )
    axes = shared_axes(layer_axes(labels), layer_axes(truth))
    provenance = get_provenance(labels)
    ndim, info = object_ndim(frames, provenance), ResultInfo.from_layer(labels)
    names = (labels.name, truth.name)

    def steps() -> Generator[Progress, None, Evaluation]:
        from napari_unet.core.evaluation.comparison import Comparison, score_steps

        comparison = Comparison(found, wanted, axes, ndim)
        codes = np.zeros(comparison.labels.shape, np.uint8)
        scores = yield from score_steps(comparison, codes)
        pairs = ((labels, comparison.labels), (truth, comparison.truth))
        doubts = [(layer, doubt_labels(np.asarray(values), axes, ndim)) for layer, values in pairs]
        doubted = tuple((layer, doubt) for layer, doubt in doubts if doubt)
        kept = ""
        if provenance is not None and _made_by_model(provenance, info, found):
            kept = keep_scores(provenance, scores, names, wanted)
        return Evaluation(labels, truth, scores, codes, comparison.what, doubted, ndim, kept)

    return steps()


def _made_by_model(provenance: dict[str, Any], info: ResultInfo, labels: Any) -> bool:
    """Return whether labels are what a model made of a whole stack, uncorrected."""
    if "region" in provenance or len(info.runs or ()) > 1:
        return False
    if info.checksum is not None:
        return info.checksum == labels_checksum(np.asarray(labels))
    return bool(provenance.get("labels_hash") == hash_labels(labels))


def keep_scores(
    provenance: dict[str, Any], scores: Scores, names: tuple[str, str], truth: Any
) -> str:
    """Keep scores with the model of a result; return a sentence, "" if the model has no hash.

    Parameters
    ----------
    names
        Of the labels and of the truth.
    """
    model_hash = str(provenance.get("model_hash", ""))
    if record_path(model_hash) is None:
        return ""
    image = (provenance.get("image") or {}).get("name") or names[0]
    row = scores.row()
    own = OwnScores(
        date=datetime.date.today().isoformat(),
        image=str(image),
        truth=names[1],
        data=f"{provenance.get('data_hash') or image} {hash_labels(truth)}",
        objects=scores.objects,
        true_objects=scores.true_objects,
        scores={shown: round(float(row[name]), 4) for name, shown in _KEPT.items()},
    )
    try:
        add_scores(model_hash, own)
    except UnetError as error:
        return f"The scores were not kept with the model. {error}"
    return f"Kept with the model {provenance.get('model', '')}."


# Two columns: three would make the panel wider.
_COLUMNS = ("AP50", "AP75", "AP90", "pq", ""), ("precision", "recall", "f1", "dice", "iou")
_NAMES = {"f1": "F1", "pq": "PQ", "dice": "Dice", "iou": "IoU"}


def format_evaluation(found: Evaluation) -> str:
    """Return an evaluation as rich text: a short table, and what the colours mean."""
    from napari_unet.core.evaluation.overlay import COLOURS

    scores = found.scores
    row = scores.row()
    table = zip(*_COLUMNS, strict=True)
    count = f"{scores.objects:,} objects found, {scores.true_objects:,} are there"
    if scores.images > 1:
        count += f", in {scores.images:,} {found.frames}"
    cells = "".join(f"<tr>{_cells(row, left)}{_cells(row, right)}</tr>" for left, right in table)
    counts = {"hit": scores.tp[0], "false": scores.fp[0], "missed": scores.fn[0]}
    kept = f"<br>{escape(found.kept)}" if found.kept else ""
    return (
        f"{escape(found.labels.name)} against {escape(found.truth.name)}<br>"
        f"{count}<table>{cells}</table>{legend(COLOURS, counts)}{kept}"
    )


def _cells(row: dict[str, float], name: str) -> str:
    """Return a score's name and value as two cells of a table."""
    if not name:
        return "<td></td><td></td>"
    shown = _NAMES.get(name, name)
    return f"<td>{shown}&nbsp;</td><td><b>{row[name]:.3f}</b>&nbsp;&nbsp;&nbsp;</td>"


def show_evaluation(viewer: Any, found: Evaluation) -> Labels:
    """Show an evaluation where its labels lie, in the layer of an earlier one if there is one.

    The layer that was active stays it, so that the user can go on to correct it.
    """
    labels, truth, codes = found.labels, found.truth, found.codes
    pair = [str(labels.unique_id), str(truth.unique_id)]
    place = get_transform(labels)
    layer = _find_layer(viewer, pair, codes.shape)
    if layer is not None:
        layer.editable = False  # also clears napari's history, whose edits no longer fit
        layer.data = codes
        for name, value in place.items():
            setattr(layer, name, value)
        return layer
    from napari_unet.core.evaluation.overlay import COLOURS

    active = viewer.layers.selection.active
    layer = viewer.add_labels(
        codes, name=f"{labels.name} vs {truth.name}", metadata=overlay_metadata(COMPARES, pair),
        colormap=overlay_colormap(COLOURS), opacity=1, **place
    )  # fmt: skip
    layer.editable = False
    if active is not None:
        viewer.layers.selection.active = active
    layer.features = overlay_names(COLOURS)
    return layer


def _find_layer(viewer: Any, pair: list[str], shape: tuple[int, ...]) -> Labels | None:
    """Find the layer of an earlier evaluation; one that has another shape is removed."""
    for layer in list(viewer.layers):
        if get_overlay(layer, COMPARES) != pair:
            continue
        if layer.data.shape == shape:
            found: Labels = layer
            return found
        remove_layer(viewer, layer)
    return None
