"""Which models of the store descend from which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import find_model, list_models

if TYPE_CHECKING:
    import os

    from napari_unet.core.models.card import ModelCard


def descends(model: str, ancestor: str) -> bool:
    """Tell whether a model of the store was tuned from another one of it, by whatever many rounds.

    A model that is not there, or cannot be read, descends from none.
    """
    cards = {entry.name: entry.card for entry in list_models() if entry.card is not None}
    if model not in cards or ancestor not in cards:
        return False
    by_hash = {card.hash: card for card in cards.values()}
    wanted, parent, seen = cards[ancestor].hash, cards[model].parent, set[str]()
    while parent in by_hash and parent not in seen and parent != wanted:
        seen.add(parent)
        parent = by_hash[parent].parent
    return parent == wanted


def family(model: str | os.PathLike[str]) -> list[ModelCard]:
    """Return a model's card, those of its ancestors and those of its descendants.

    Raises
    ------
    ModelError
        There is no such model, or it cannot be read.
    """
    own = read_card(find_model(model))
    cards = {entry.card.hash: entry.card for entry in list_models() if entry.card is not None}
    cards[own.hash] = own
    found = {own.hash: own}
    parent = own.parent
    while parent in cards and parent not in found:
        found[parent] = cards[parent]
        parent = cards[parent].parent
    descendants = {own.hash}
    while more := {h for h, card in cards.items() if card.parent in descendants} - descendants:
        descendants |= more
    return [*found.values(), *(cards[h] for h in sorted(descendants - set(found)))]
