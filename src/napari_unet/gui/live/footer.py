"""What live learning says, and its buttons; it lies below all steps, and never scrolls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton, QWidget

from napari_unet.core.text import pluralise
from napari_unet.gui.finetune.changes import COLOURS, FIELDS
from napari_unet.gui.layers.overlay_layer import legend
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from napari_unet.core.evaluation.label_diff import LabelDiff
    from napari_unet.gui.live.work import Round

_TIPS = {
    "take": "Put what the model finds now into the labels, where you did not correct: one step of "
    "undo. Nothing is\nlearned from it. Objects that the edge of the view cuts stay as they are.",
    "pause": "Stop learning for now; what was learned is kept in the memory.",
    "keep": "Compare it with the model before, as Fine-tune does, and store it unless it is worse.",
    "discard": "Forget what was learned, and learn no longer; nothing of it is left, on the disk\n"
    "or in a layer.",
}


class LiveFooter(QWidget):
    """A line and the buttons, shown as long as the model learns or has learned.

    Attributes
    ----------
    status
        The line.
    take, pause, keep, discard
        The buttons.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = WrappedLabel()
        self.take, self.pause = QPushButton("Take over"), QPushButton("Pause")
        self.pause.setCheckable(True)
        self.keep, self.discard = QPushButton("Keep"), QPushButton("Discard")
        for name, tip in _TIPS.items():
            getattr(self, name).setToolTip(tip)
        buttons = hbox(self.pause, self.keep, self.discard, stretch=1)
        vbox(self.status, self.take, buttons, owner=self)

    def say(self, text: str) -> None:
        """Show a line."""
        if self.status.text() != text:
            self.status.setText(text)

    def show_state(
        self, changes: LabelDiff | None, *, learning: bool, learned: bool, saving: bool
    ) -> None:
        """Show what can be done.

        Parameters
        ----------
        changes
            What would change in view, if that is shown.
        learning, learned, saving
            Whether it is switched on, has come to something, and is being kept.
        """
        self.take.setVisible(changes is not None and not changes.none)
        self.take.setEnabled(True)
        self.pause.setEnabled(learning)
        self.pause.setText("Go on" if self.pause.isChecked() else "Pause")
        for button in (self.keep, self.discard):
            button.setEnabled(learned and not saving)
        self.setVisible(learning or learned)


def describe_round(found: Round) -> str:
    """Return what was learned, and what would change in view, as rich text."""
    text = f"{pluralise(found.objects, 'corrected object')} learned"
    changes = found.changes
    if changes is None:
        return f"{text}; nothing of the labels is in view."
    if found.corrected:
        text += f"; it finds {found.right:,} of the {found.corrected:,} in view by itself"
    counts = {kind: count for kind, field in FIELDS.items() if (count := getattr(changes, field))}
    total = sum(counts.values())
    if not total:
        return f"{text}. Nothing else would change here."
    other = pluralise(total, f"other {changes.what[:-1]}")
    return f"{text}. {other} would change here: {legend(COLOURS, counts)}"
