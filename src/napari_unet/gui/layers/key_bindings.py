"""How keys are bound in a window or on a layer, and given back; each key is named where it is used.

The window keeps what is bound to a key alive. So the callbacks here hold their owner weakly: a
panel that is gone leaves no window or model behind.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QLineEdit, QPlainTextEdit, QTextEdit

from napari_unet.gui.layers.convert import unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

_TEXT_FIELDS = (QLineEdit, QAbstractSpinBox, QTextEdit, QPlainTextEdit)


def is_typing() -> bool:
    """Return whether keys are for a text field: napari gets those that the field does not take."""
    return isinstance(QApplication.focusWidget(), _TEXT_FIELDS)


def weak_callback(
    method: Callable[[], object], *, while_typing: bool = True
) -> Callable[[Any], None]:
    """Return a key's callback that calls a method as long as its owner is alive.

    Parameters
    ----------
    while_typing
        Also if the key was meant for a text field.
    """
    found: Any = weakref.WeakMethod(method)

    def pressed(_: Any) -> None:
        call = found()
        if call is not None and (while_typing or not is_typing()):
            call()

    return pressed


def bind_window_key(
    viewer: Any, owner: QObject, key: str, pressed: Callable[[Any], None]
) -> Callable[..., None]:
    """Bind a key in a window until its owner is destroyed; return a function that does so earlier.

    Parameters
    ----------
    pressed
        Must not keep the owner alive; see `weak_callback`.
    """
    # The viewer itself: a plugin's proxy of it is gone with the panel.
    give_back = functools.partial(_give_back, weakref.ref(unwrap(viewer)), key, pressed)
    owner.destroyed.connect(give_back)
    viewer.bind_key(key, pressed, overwrite=True)
    return give_back


def _give_back(
    viewer: weakref.ref[Any], key: str, pressed: Callable[[Any], None], *_: object
) -> None:
    """Give a key back, unless another owner has taken it meanwhile."""
    found = viewer()
    if found is not None and pressed in found.keymap.values():
        found.bind_key(key, None, overwrite=True)


def _napari_key(action: str, usual: str) -> Any:
    """Return the key by which napari does this to a Labels layer: on a Mac it is another one."""
    actions = {function.__name__: key for key, function in Labels.class_keymap.items()}
    return actions.get(action, usual)


UNDO_KEY, REDO_KEY = _napari_key("undo", "Control-Z"), _napari_key("redo", "Control-Shift-Z")


def take_undo_keys(layer: Labels, undo: Callable[..., None], redo: Callable[..., None]) -> None:
    """Let a layer's undo keys work on the journal.

    napari's own history knows nothing of other slices and of earlier sessions, and our undo, which
    writes into the data, would leave it wrong.
    """
    layer.bind_key(UNDO_KEY, undo, overwrite=True)
    layer.bind_key(REDO_KEY, redo, overwrite=True)


def give_undo_keys_back(layer: Labels) -> None:
    """Give the undo keys back to napari, and clear its own history of the layer."""
    layer.bind_key(UNDO_KEY, None)
    layer.bind_key(REDO_KEY, None)
    if layer.editable:
        # napari clears the history when a layer becomes editable, and there is no other way to.
        mode, layer.editable = layer.mode, False
        layer.editable = True
        layer.mode = mode
