"""The keys that undo and redo on a Labels layer, taken from napari and given back.

napari keeps a history of its own, which knows nothing of other slices and of yesterday, and which
our undo would leave wrong. So Ctrl+Z and Ctrl+Shift+Z of a layer that is recorded are the
journal's, and when the layer is let go of napari's history of it is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels

if TYPE_CHECKING:
    from collections.abc import Callable


def _key_of(action: str, usual: str) -> Any:
    """Return the key by which napari does this to a Labels layer: on a Mac it is another one."""
    actions = {function.__name__: key for key, function in Labels.class_keymap.items()}
    return actions.get(action, usual)


UNDO_KEY, REDO_KEY = _key_of("undo", "Control-Z"), _key_of("redo", "Control-Shift-Z")


def take_keys(layer: Labels, undo: Callable[..., None], redo: Callable[..., None]) -> None:
    """Let the keys do this on a layer."""
    layer.bind_key(UNDO_KEY, undo, overwrite=True)
    layer.bind_key(REDO_KEY, redo, overwrite=True)


def give_keys_back(layer: Labels) -> None:
    """Give the keys back to napari, whose own history of the layer is forgotten."""
    layer.bind_key(UNDO_KEY, None)
    layer.bind_key(REDO_KEY, None)
    if layer.editable:
        mode, layer.editable = layer.mode, False
        layer.editable = True
        layer.mode = mode
