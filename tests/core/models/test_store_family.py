"""A model's family is what it comes from and what comes from it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import ModelError
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.store import get_family, is_descendant, put_model, remove_model
from napari_unet.core.settings.model_spec import ModelSpec


def put(number, parent=None, name=None):
    card = ModelCard(name or f"model {number}", ModelSpec(), parent=parent)
    return put_model(card.name, card, {"w": np.full(3, number, np.float32)}).card


def names(model):
    return {card.name for card in get_family(model)}


def test_ancestors_and_descendants_are_family_and_siblings_are_not():
    root = put(0)
    child = put(1, root.hash)
    put(2, root.hash)
    put(3, child.hash)
    assert [card.name for card in get_family("model 1")][:2] == ["model 1", "model 0"]
    assert names("model 1") == {"model 0", "model 1", "model 3"}
    assert names("model 0") == {"model 0", "model 1", "model 2", "model 3"}
    assert names("model 3") == {"model 0", "model 1", "model 3"}


def test_a_child_and_its_children_descend_from_a_model():
    root = put(0)
    put(3, put(1, root.hash).hash)
    put(2, root.hash)
    assert is_descendant("model 1", "model 0") and is_descendant("model 3", "model 0")
    assert not is_descendant("model 0", "model 1") and not is_descendant("model 2", "model 1")
    assert not is_descendant("model 0", "model 0") and not is_descendant("gone", "model 0")


def test_a_family_ends_where_an_ancestor_was_removed():
    child = put(1, put(0).hash)
    put(2, child.hash)
    remove_model("model 1")
    assert names("model 2") == {"model 2"}
    assert names("model 0") == {"model 0"}


def test_a_copy_under_another_name_is_its_own_parent_without_end():
    same = put(0)
    put(0, same.hash, "copy")
    assert names("copy") == {"copy"}


def test_an_unknown_model_is_refused():
    with pytest.raises(ModelError, match="There is no model"):
        get_family("nobody")
