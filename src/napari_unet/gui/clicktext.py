"""What click mode says, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.core.objectedits import DELETE, MERGE, SPLIT

if TYPE_CHECKING:
    from napari_unet.gui.clickmode import ClickMode
    from napari_unet.nn.clickflow import Answer
    from napari_unet.nn.session import Shown

HINT = "Click on an object. Shift-drag draws a box around one."
FLAT = "Clicks need the 2D view; press the cube below the layer list (Ctrl+Y)."
_PAUSED = "Another layer is chosen; press C to go on clicking."
_EDITING = {
    SPLIT: ("Click on one part of the object to split (Esc: don't).", "Click on its other part."),
    MERGE: (
        "Click on the object whose id stays (Esc: don't).",
        "Click on the object that becomes part of it.",
    ),
    DELETE: ("Click on the object to delete (Esc: don't).",),
}
_DONE = {
    "click": "Object {} added.",
    "refine": "Object {} corrected.",
    SPLIT: "Split; the new part is object {}.",
    MERGE: "Merged into object {}.",
    DELETE: "Object deleted.",
}


def describe(mode: ClickMode) -> str:
    """Return what goes on in click mode, in a sentence or two; "" while it is off."""
    progress, shown = mode.work.progress, mode.shown
    if not mode.on:
        return mode.said
    if mode.work.session is None:
        return f"{(progress.what or 'getting ready').capitalize()} …"
    if not mode.active:
        return _PAUSED
    if progress.total and mode.work.busy:
        return f"Following the object: {progress.done} {progress.what} …"
    if mode.edit is not None:
        return " ".join(filter(None, (mode.said, _EDITING[mode.edit][len(mode.marked)])))
    if shown is not None:
        return f"{_about(shown)} {mode.said or 'Enter keeps it, Esc drops it.'}"
    return mode.said or HINT


def done(answer: Answer) -> str:
    """Return what a change did."""
    label = 0 if answer.change is None else answer.change.label
    return _DONE[answer.source].format(label)


def _about(shown: Shown) -> str:
    """Return what there is of an object, in a sentence."""
    pixels = sum(mask.area for mask in shown.masks.values())
    clicks, planes = len(shown.clicks), sum(mask.area > 0 for mask in shown.masks.values())
    what = "New object" if shown.label is None else f"Object {shown.label}"
    parts = [f"{pixels:,} px"]
    parts += [f"{planes} slices"] if planes > 1 else []
    parts += [f"{clicks} click{'s' * (clicks != 1)}"] if clicks else []
    return f"{what}: {', '.join(parts)}."
