"""The sentences, tooltips and list of keys of click mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT

if TYPE_CHECKING:
    from napari_unet.nn.interactive.active_object import ActiveObject
    from napari_unet.nn.interactive.interaction import Answer

HINT = "Click on an object. Shift-drag draws a box around one."
FLAT = "This needs the 2D view; press the cube below the layer list (Ctrl+Y)."
NO_OBJECT = "There is nothing at that place; click on the image, or on an object."
PAUSED = "Another layer is chosen; press C to go on clicking."
EDIT_STEPS = {
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

_SAME = "Object {} stays as it was."
_EMPTY = "Nothing is left of the object; Ctrl+Z takes the last click back."
_EMPTIED = "Nothing is left of object {}; Ctrl+Z takes the last click back, D deletes the object."
_BOX_EMPTY = "Nothing that is free was found in the box; draw another one, or click on the object."

KEY_LIST = """
<table cellspacing="0" cellpadding="1">
<tr><td><b>click</b>&nbsp;</td><td>begin an object, or add to it</td></tr>
<tr><td><b>Ctrl-click</b>&nbsp;</td><td>take away (or the right button)</td></tr>
<tr><td><b>Shift-click</b>&nbsp;</td><td>add, even what lies apart</td></tr>
<tr><td><b>Shift-drag</b>&nbsp;</td><td>begin with a box</td></tr>
<tr><td><b>Ctrl-Shift-drag</b>&nbsp;</td><td>begin with a stroke along a large object</td></tr>
<tr><td><b>Enter</b>, <b>Esc</b>&nbsp;</td><td>keep the object, drop it</td></tr>
<tr><td><b>Ctrl+Z</b>&nbsp;</td><td>take back a click, then objects</td></tr>
<tr><td><b>S</b>, <b>M</b>, <b>D</b>&nbsp;</td><td>split, merge, delete</td></tr>
<tr><td><b>G</b>&nbsp;</td><td>grow through slices now</td></tr>
<tr><td><b>in 3D</b>&nbsp;</td><td>a click picks the object in front, or what is brightest</td></tr>
<tr><td><b>C</b>&nbsp;</td><td>click mode on, off</td></tr>
</table>"""
TIPS = {
    "image": "The image that you click on.",
    "model": "The model whose features answer the clicks; it needs a click head.",
    "labels": "Where the objects go. One that is there already is corrected by clicking on it.",
    "mode": "Click on objects (key C). Dragging still moves the view.",
    "add": "A click adds to the object.",
    "take away": "A click takes away from the object; so does a click with Ctrl, or the right "
    "button.",
    "keep": "Put the object into the labels (Enter, or a click on another object).",
    "drop": "Forget the object (Esc).",
    "undo": "Take back the last click, or else the last correction of the labels (Ctrl+Z).",
    "redo": "Do it again (Ctrl+Shift+Z).",
    SPLIT: "Click on two parts of one object to divide it (S).",
    MERGE: "Click on two objects to make them one (M).",
    DELETE: "Click on an object to delete it (D deletes the one under the cursor).",
}


def describe_object(shown: ActiveObject) -> str:
    """Return how large an object is, and from how many clicks, in a sentence."""
    clicks, planes = len(shown.clicks), sum(mask.area > 0 for mask in shown.masks.values())
    what = "New object" if shown.label is None else f"Object {shown.label}"
    parts = [f"{shown.area:,} px"]
    parts += [f"{planes} slices"] if planes > 1 else []
    parts += [f"{clicks} click{'s' * (clicks != 1)}"] if clicks else []
    return f"{what}: {', '.join(parts)}."


def describe_empty(shown: ActiveObject) -> str:
    """Return why nothing is drawn of the active object; "" if there is none."""
    if not shown.masks:
        return ""
    if shown.label is not None:
        return _EMPTIED.format(shown.label)
    return _EMPTY if shown.clicks else _BOX_EMPTY


def describe_change(answer: Answer) -> str:
    """Return what a change did to the labels."""
    label = 0 if answer.change is None else answer.change.label
    if answer.change is not None and not answer.change.changed.any():
        return _SAME.format(label)
    return _DONE[answer.source].format(label)
