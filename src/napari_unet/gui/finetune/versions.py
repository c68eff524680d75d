"""The versions of a model, and how its score grew with the corrections of each round."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.models.store import get_family, list_models
from napari_unet.core.text import pluralise
from napari_unet.core.training.model_comparison import UNITS, CorrectionRound, advise, get_rounds
from napari_unet.gui.shared_inputs import use_model
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.plots import BLUE, Line, Plot

if TYPE_CHECKING:
    from napari_unet.core.models.card import ModelCard


class VersionsBox(QWidget):
    """Lists the ancestors and descendants of the chosen model, each with a button that chooses it.

    Attributes
    ----------
    model
        The chosen model's name; "" without any.
    rows
        Name and button of each, parents first; the chosen one has no button.
    advice
        Line that tells whether more corrections are likely to help; hidden before the first round.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = ""
        self.rows: dict[str, QPushButton | None] = {}
        self.advice = WrappedLabel()
        self.plot = Plot("corrected objects")
        self._list = QVBoxLayout()
        self._list.setSpacing(2)
        inside = QWidget()
        vbox(self._list, margins=(6, 0, 6, 0), owner=inside)
        self.collapsible = CollapsibleSection("Versions", inside)
        vbox(self.plot, self.advice, self.collapsible, owner=self)
        self.show_model("")

    def show_model(self, name: str) -> None:
        """Show the versions and the rounds of a model of the store."""
        self.model = name
        try:
            cards = get_family(name) if name else []
        except UnetError:
            cards = []
        own = next(iter(cards), None)
        rounds = get_rounds(own.training) if own is not None else []
        metric = own.metrics.get("tuning", {}).get("metric", "score") if own is not None else ""
        self.show_rounds(rounds, metric)
        self._clear()
        names = {entry.card.hash: entry.name for entry in list_models() if entry.card is not None}
        for card in sort_by_descent(cards):
            self._add(card, names.get(card.hash, card.name), chosen=card is own)
        self.collapsible.setVisible(len(cards) > 1)

    def show_rounds(self, rounds: list[CorrectionRound], metric: str) -> None:
        """Plot the score over the corrected objects, and advise whether to correct more."""
        what = UNITS.get(metric, "objects")
        self.plot.what = f"corrected {what}"
        points = tuple((float(found.objects), found.score) for found in rounds)
        self.plot.show_lines([Line(f"{metric} by round", points, BLUE)] if points else [])
        self.plot.setVisible(len(points) > 1)
        self.advice.setText(advise(rounds, what) if rounds else "")
        self.advice.setVisible(bool(rounds))

    def _clear(self) -> None:
        self.rows = {}
        while self._list.count():
            item = self._list.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()

    def _add(self, card: ModelCard, name: str, *, chosen: bool) -> None:
        row = QWidget()
        label = QLabel(f"<b>{name}</b>" if chosen else name)
        label.setToolTip(describe(card))
        line = hbox(label, QLabel(format_score(card)), owner=row)
        line.setStretch(0, 1)
        button = None
        if not chosen:
            button = QPushButton("Go to")
            button.setToolTip(f"Go on with {name}: choose it to tune and to segment with.")
            button.clicked.connect(functools.partial(_use_model, name))
            line.addWidget(button)
        self.rows[name] = button
        self._list.addWidget(row)


def sort_by_descent(cards: list[ModelCard]) -> list[ModelCard]:
    """Sort a family so that parents come before their children."""
    known = {card.hash: card for card in cards}

    def depth(card: ModelCard) -> int:
        seen: set[str] = set()
        while card.parent in known and card.hash not in seen:
            seen.add(card.hash)
            card = known[card.parent]
        return len(seen)

    return sorted(cards, key=lambda card: (depth(card), card.name))


def format_score(card: ModelCard) -> str:
    """Return a model's score on what was held out when it was tuned; "" without any."""
    tuning: dict[str, Any] = card.metrics.get("tuning", {})
    after = tuning.get("after")
    return f"{tuning.get('metric', '')} {after:.3f}" if isinstance(after, float) else ""


def describe(card: ModelCard) -> str:
    """Return in a few lines what a model was tuned on, and how much better it became."""
    tuning, training = card.metrics.get("tuning", {}), card.training
    if not tuning:
        return "It was not tuned here."
    objects, images = training.get("objects", 0), training.get("images", 0)
    many = f"{pluralise(objects, 'object')} in " if objects else ""
    parts = "1 part of an image" if images == 1 else f"{images:,} parts of images"
    lines = [f"Tuned on {many}{parts}: {tuning.get('verdict')}."]
    before, after = tuning.get("before"), tuning.get("after")
    if before is not None and after is not None:
        lines.append(f"{tuning.get('metric')} {before:.3f} → {after:.3f} on what was held out.")
    lines.append(f"Data {training.get('data_hash', '')[:19]}, parent {(card.parent or '')[:12]}.")
    return "\n".join(lines)


def _use_model(name: str, *_: Any) -> None:
    """Call `use_model` without what the button's signal passes."""
    use_model(name)
