"""A section of a panel that works on layers: choices, a button, a line; folded away at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet.gui.widgets.collapsible import CollapsibleSection
from napari_unet.gui.widgets.settings_form import rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari

    from napari_unet.gui.jobs.run import ResultRun
    from napari_unet.gui.jobs.run_button import RunButton


class LayerSection(QWidget):
    """What its subclasses share: how they look, follow the layers, and run one thing at a time.

    A subclass makes its choices, calls `build`, and says in `_refresh` what can be chosen and in
    `_possible` whether the button may be pressed.

    Attributes
    ----------
    fold
        What opens and folds it; whether it is open is remembered between sessions.
    button, start
        The `RunButton`, and its widget.
    result
        The line that says how far it is, what was found, or why not.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer

    def build(
        self,
        title: str,
        name: str,
        rows: Sequence[tuple[str, Any]],
        label_width: int,
        hint: str,
        button: Callable[[QLabel], RunButton],
    ) -> None:
        """Put the section together, and begin to follow the layers.

        Parameters
        ----------
        title
            Of the fold.
        name
            What is remembered of it stands under this name.
        rows, label_width
            As for `rows_widget`.
        hint
            What the line says as long as there is nothing to work on, and nothing was found.
        button
            Makes the button; called with the line.
        """
        self._hint = hint
        self.result = QLabel(hint)
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.button = button(self.result)
        self.start: Any = self.button.widget
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setContentsMargins(0, 0, 0, 0)
        content.addWidget(rows_widget(rows, label_width))
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.addWidget(self.start.native)
        below.addWidget(self.result)
        content.addLayout(below)
        self.fold = CollapsibleSection(title, inside, name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)
        self.button.changed.connect(self._show_state)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self._layers_changed()

    @property
    def active(self) -> ResultRun | None:
        """The run that waits or goes on, None if there is none."""
        return self.button.active

    @property
    def _possible(self) -> bool:
        """Whether there is what the button works on."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop; what would be found of a part is not shown."""
        self.button.cancel()

    def _refresh(self) -> None:
        """Offer the layers that there are."""
        raise NotImplementedError

    def _layers_changed(self, *_: Any) -> None:
        self._refresh()
        self._show_state()

    def _show_state(self) -> None:
        """Show what can be pressed; what is missing is said while it is missing."""
        self.button.enable(self._possible)
        before, after = (self._hint, "") if self._possible else ("", self._hint)
        if self.result.text() == before:
            self.result.setText(after)
