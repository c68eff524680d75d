"""What changed: the old and the tuned model on what is in view, and a layer of the differences.

The layer lies over the image and is replaced by that of the next comparison.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.progress import Progress, map_steps
from napari_unet.gui.jobs.job import do_nothing
from napari_unet.gui.jobs.run_button import ResultRun
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.navigation import SEEN, get_visible_region, plan_region
from napari_unet.gui.layers.overlay_layer import (
    SHOWS,
    get_overlay,
    legend,
    overlay_colormap,
    overlay_metadata,
    overlay_names,
    remove_layer,
)
from napari_unet.gui.shared_inputs import quick_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image

    from napari_unet.core.evaluation.label_diff import LabelDiff
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.finetune.run import TuneWork
    from napari_unet.nn.inference.model import Model

COLOURS = {"found": (0, 200, 120), "removed": (230, 140, 40), "changed": (70, 150, 255)}
"""They can be told apart with a red-green colour deficiency, too. Removed is not red: objects that
were false are better gone."""
FIELDS = {"found": "gained", "removed": "lost", "changed": "changed"}
"""The fields of a `LabelDiff` by what they are called here."""


class ChangesRun(ResultRun):
    """One comparison of two models on what is in view.

    Parameters
    ----------
    viewer, image
        The window, and the image to run them on.
    work
        The fine-tuning whose best model is compared with the one it was tuned from.
    progress, ended
        Called in the window's thread while it goes on, and when it is over.

    Attributes
    ----------
    result
        The `LabelDiff`; None until it is there.
    """

    def __init__(
        self,
        viewer: Any,
        image: Image,
        work: TuneWork,
        progress: Callable[[str], None],
        ended: Callable[[ChangesRun, str], None],
    ) -> None:
        super().__init__(self._begin, self._take, ended)
        self.viewer, self.image, self.request = viewer, image, work.request
        self._work, self._progress = work, progress
        self._placement: Placement | None = None
        self._place: tuple[Any, ...] = ()

    @property
    def changes(self) -> LabelDiff | None:
        """The result."""
        found: LabelDiff | None = self.result
        return found

    def abandon(self) -> None:
        """Cancel, and report to nobody: the panel is gone."""
        super().abandon()
        self._progress = do_nothing

    def _begin(self) -> Generator[Any, None, LabelDiff]:
        """Read what is in view, in the window's thread; return the work itself."""
        image, tuning = self.image, self._work.tuning
        if tuning is None:
            raise InputError("There is no tuned model to compare with.")
        stack, axes = layer_stack(image), layer_axes(image)
        ndim = tuning.model.spec.ndim
        if ndim == 3 and "Z" not in axes:
            raise InputError(
                f"The model works on volumes, but {image.name!r} has no z axis ({axes})."
            )
        frames, window = plan_region(
            SEEN, get_visible_region(self.viewer, image, axes), stack, ndim, image.name
        )
        window = window or tuple(slice(0, size) for size in stack.frame_shape(ndim))
        shape = full_resolution(image).shape
        self._placement = Placement(axes, stack.labels_axes, tuple(shape))
        self._place = (frames[0], window)
        return _steps(self._work, stack, frames[0], window, quick_settings(image))

    def show(self) -> None:
        """Show the changes in a new layer, in place of an earlier one."""
        if self.changes is None or self._placement is None or self.image not in self.viewer.layers:
            return
        hide_changes(self.viewer)
        index, window = self._place
        sizes = dict(zip(self._placement.axes, self._placement.sizes, strict=False))
        shape = [sizes[letter] for letter in self._placement.labels_axes]
        codes = np.zeros(shape, np.uint8)  # the system provides pages only where it is written
        codes[(*index, *window)] = self.changes.codes
        active = self.viewer.layers.selection.active
        layer = self.viewer.add_labels(
            self._placement.to_layer(codes),
            name=f"{self.image.name} changes",
            metadata=overlay_metadata(SHOWS, [self.request.base, self.request.name]),
            colormap=overlay_colormap(COLOURS),
            opacity=1,
            **self._placement.geometry(self.image),
        )
        layer.editable = False
        if active is not None:
            self.viewer.layers.selection.active = active
        layer.features = overlay_names(COLOURS)

    def text(self) -> str:
        """Return the differences as rich text."""
        changes = self.changes
        if changes is None:
            return ""
        what = changes.what.removesuffix("s") if changes.same == 1 else changes.what
        if changes.none:
            return f"In view, both models find the same: {changes.same:,} {what}."
        counts = {kind: getattr(changes, field) for kind, field in FIELDS.items()}
        same = f"Of what is in view, {changes.same:,} {what} stayed the same:"
        return f"{same}<br>{legend(COLOURS, counts)}"

    def _take(self, item: Progress) -> None:
        self._progress(f"Comparing: {item.what} …")

    def _end(self, state: str) -> None:
        self._progress = do_nothing
        super()._end(state)


def _steps(
    work: TuneWork,
    stack: Any,
    index: tuple[int, ...],
    window: tuple[slice, ...],
    settings: PredictSettings,
) -> Generator[Progress, None, LabelDiff]:
    """Run both models over the window and compare, in the job's thread."""
    yield Progress(0, 0, "loading the model")
    from napari_unet.core.evaluation.label_diff import diff_classes, diff_objects
    from napari_unet.nn.inference.segment_window import segment_window

    tuning = work.tuning
    if tuning is None:  # kept or discarded while it waited for its turn
        raise InputError("There is no tuned model to compare with any more.")
    old, spec = old_model(work), tuning.model.spec
    found = []
    for model, what in ((old, "the old model"), (tuning.best(), "the tuned model")):
        steps = segment_window(stack, model, settings, index, window)
        found.append((yield from map_steps(steps, functools.partial(_rename, what=what))))
    compare = diff_objects if spec.head == "instance" else diff_classes
    return compare(*found)


def _rename(step: Progress, what: str) -> Progress:
    return replace(step, what=what)


def old_model(work: TuneWork) -> Model:
    """Return the model as it was before the training.

    A new network or head knew nothing then: the base model is loaded instead.

    Raises
    ------
    InputError
        The base model has another head, or other dimensions.
    """
    assert work.tuning is not None  # `_steps` has looked
    model, network = work.tuning.model, work.request.network
    if not network.scratch and network.classes is None:
        return model
    from napari_unet.nn.inference.model import load_model

    base = load_model(work.request.base, work.request.device)
    specs = [(spec.ndim, spec.head) for spec in (base.spec, model.spec)]
    if specs[0] != specs[1]:
        raise InputError(
            f"It finds something else than {work.request.base!r}, so they cannot be compared. "
            "Keep it and run Segment to see what it finds."
        )
    return base


def hide_changes(viewer: Any) -> None:
    """Remove the layer of an earlier comparison."""
    for layer in [x for x in viewer.layers if get_overlay(x, SHOWS) is not None]:
        remove_layer(viewer, layer)
