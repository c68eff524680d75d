"""Clicks that split, merge or delete objects that are there, once as many were made as it takes.

Until then they are only marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.core.instances.label_edits import EDITS

if TYPE_CHECKING:
    from napari_unet.core.prompts.clicks import Click
    from napari_unet.gui.click.target import Target
    from napari_unet.nn.interactive.interaction import Action, Steps
    from napari_unet.nn.interactive.session import ClickSession


class EditClicks:
    """Collects the clicks of one edit.

    Attributes
    ----------
    what
        What the next clicks do, of `EDITS`; None: they segment.
    marked
        Those so far.
    """

    def __init__(self) -> None:
        self.what: str | None = None
        self.marked: list[Click] = []

    def begin(self, what: str) -> None:
        """Collect clicks for an edit, the first one to come."""
        self.what, self.marked = what, []

    def leave(self) -> None:
        """Let clicks segment again."""
        self.what, self.marked = None, []

    def take(self, click: Click, target: Target) -> Action | None:
        """Take one of the clicks; with the last one, return what is to be done, and leave."""
        what = self.what
        if what is None:
            return None
        self.marked.append(click)
        clicks = tuple(self.marked)
        if len(clicks) < EDITS[what]:
            return None
        self.leave()

        def apply(session: ClickSession) -> Steps:
            from napari_unet.nn.interactive.interaction import edit_objects

            volume = target.is_volume(clicks[0], session.model.spec.ndim)
            return edit_objects(session, what, clicks, volume=volume)

        return apply
