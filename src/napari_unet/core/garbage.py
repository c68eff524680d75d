"""Collections of garbage that leave out what there was before."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def old_objects_spared() -> Iterator[None]:
    """Keep all present objects out of the collections that are made inside.

    A window with napari and torch holds millions: to go through them takes 0.2 to 0.4 s and more.
    What is garbage among them is left to a later collection.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
