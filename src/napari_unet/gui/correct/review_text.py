"""The keys of a review, and what it says."""

from __future__ import annotations

from napari_unet.core.review.order import OBJECT, PLACE

KEYS = {"accept": "Y", "split": "U", "delete": "H", "click": "J", "next": "N"}
"""All within reach of the right hand's first finger."""
TITLES = {
    "accept": "Right",
    "split": "Split",
    "delete": "Delete",
    "click": "Click it",
    "next": "Next",
}
TIPS = {
    "review": "Go through the objects, those first whose correction is worth most: likely wrong, "
    "and many alike.\nEvery fourth is drawn at random, to estimate how good all of them are.",
    "accept": "It is right as it is, or nothing is missing here; on to the next.",
    "split": "These are two objects: split it at its neck; on to the next.",
    "delete": "This is no object: delete it; on to the next.",
    "click": "Turn click mode on, and click the object as it should be, or a missed one; Enter, "
    "then N.\nThe brush and the eraser do as well.",
    "next": "On to the next; what was not changed is skipped, and says nothing.",
}
ASK = {
    OBJECT: "Is this object right?",
    PLACE: "Is an object missing here? Add it, then N; if none is, Y.",
}
ASK_SQUARE = "A square drawn at random: add every missed object in it, then N; if none is, Y."
GONE = "The review has ended: its labels were removed, or others took their place."
READ_ONLY = (
    "Another window works on these corrections; here they can only be looked at: press N to go on."
)
