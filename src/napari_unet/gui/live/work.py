"""What the background learns from the corrections, and what it would change in view.

Everything here is in memory: a kill loses what was learned, never what was corrected, for that is
in the journals. The store hears of it when the user keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.alike.take_over import take_over, without_cut, without_known
from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.mask import mask_from_events
from napari_unet.core.annotations.training_set import to_samples
from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.label_diff import LabelDiff, diff_classes, diff_objects
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.models.store import get_free_folder
from napari_unet.core.progress import Progress, map_steps
from napari_unet.gui.correct.alike_search import journal_state

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.annotations.corrections import Correction
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.live import LiveTuning

STEPS_A_ROUND = 8
"""Training steps between two looks at what is in view."""
REST_AFTER = 240
"""Steps after the last correction beyond which learning rests until the next one."""
PIXEL_BUDGET = 2**23
"""Pixels of all samples together, about 250 MB: it shares the memory with the window."""
CHANGED, FOUND = 0.75, 0.5
"""Below this IoU an object has changed for the eye; from that on, it was found."""
SAME_SIZE, FEW = 2.0, 3
"""Objects that were taught are taken for as large as those of the result up to this ratio, or if
there are fewer than so many of them."""
SAVE_S = 30.0
"""How long is waited for corrections that are being saved."""


@dataclass(frozen=True, eq=False)
class ViewedPart:
    """What is in view, as it was when a round of learning began.

    Attributes
    ----------
    stack, index, window
        The image, the frame and the part of it.
    labels
        A copy of the user's labels there, ([Z,] Y, X).
    journal
        What was corrected; None if nothing was.
    settings
        How the model is run.
    classes
        The model finds classes, not objects.
    diameter
        Of the objects, as the run that made the labels took it, in pixels; None if unknown.
    """

    stack: Stack
    index: Index
    window: Window
    labels: np.ndarray
    journal: JournalReader | None
    settings: PredictSettings
    classes: bool = False
    diameter: float | None = None


@dataclass(frozen=True, eq=False)
class Round:
    """What a round of learning came to.

    Attributes
    ----------
    objects, images
        What is learned from so far.
    changes
        How what was not corrected in view would change; None if nothing is in view.
    view, found
        The part that was looked at, and what the model finds there now.
    corrected, right
        How many corrected objects are in view, and how many of them the model finds by itself.
    """

    objects: int
    images: int
    changes: LabelDiff | None = None
    view: ViewedPart | None = None
    found: np.ndarray | None = None
    corrected: int = 0
    right: int = 0


class LiveWork:
    """The learning of one model, in rounds; each round is a job, and may be closed at any step.

    Parameters
    ----------
    base, device
        The model that learns, and where.
    waiting
        False if it knows all corrections so far already.

    Attributes
    ----------
    waiting
        Whether there are corrections that were not taken in yet.
    looked
        Whether a round has come to its end; set by who shows it.
    """

    def __init__(self, base: str, device: str, *, waiting: bool = True) -> None:
        self.base, self.device = base, device
        self.waiting, self.looked = waiting, False
        self._live: LiveTuning | None = None
        self._rows: list[Correction] = []
        self._objects = self._images = self._taken_at = 0

    @property
    def learned(self) -> bool:
        """Whether there is something to keep."""
        return self._live is not None and self._live.steps > 0

    @property
    def rests(self) -> bool:
        """Whether all was learned often enough, until the next correction."""
        if self.waiting:
            return False
        live = self._live
        if live is None or live.tuning is None:  # there was nothing to learn from
            return True
        return live.steps >= self._taken_at + REST_AFTER

    def round_steps(
        self, opened: Sequence[Stack], view: ViewedPart | None, *, touched: bool
    ) -> Generator[Progress, None, Round]:
        """Take in what is new, learn a little unless it `rests`, and look at what is in view.

        Parameters
        ----------
        opened
            Stacks that are open in the window.
        view
            What is looked at; None if there is nothing to look at.
        touched
            Whether objects that were only touched count as annotated.

        Raises
        ------
        UnetError
            There is nothing to learn from yet, or the model cannot learn.
        """
        yield Progress(0, 0, "loading the model")
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads - 1))  # one is left for the window
        try:
            return (yield from self._round(opened, view, touched))
        finally:
            torch.set_num_threads(threads)

    def _round(
        self, opened: Sequence[Stack], view: ViewedPart | None, touched: bool
    ) -> Generator[Progress, None, Round]:
        from napari_unet.nn.inference.model import load_model
        from napari_unet.nn.training.live import LiveTuning

        live = self._live
        if live is None:
            model = load_model(self.base, self.device)
            if not model.has_features:
                raise InputError(f"{self.base!r} was made by another program and cannot learn.")
            live = self._live = LiveTuning(model)
        if self.waiting or live.tuning is None:
            self.waiting = False  # first: what is corrected from now on sets it again
            try:
                yield from self._take_in(live, opened, touched)
            except BaseException:
                self.waiting = True
                raise
            self._taken_at = live.steps
        if not self.rests:
            yield from live.learn(STEPS_A_ROUND)
        learned = Round(self._objects, self._images)
        return learned if view is None else (yield from _look(live, learned, view, touched))

    def versions(self) -> tuple[Model, Model]:
        """Return the model before, and as it is now; where no round goes on, in a job's thread.

        Raises
        ------
        InputError
            What was learned was discarded meanwhile.
        """
        if self._live is None:
            raise InputError("Nothing was learned yet; correct some objects first.")
        return self._live.model, self._live.current()

    def keep_steps(self, name: str) -> Generator[Progress, None, ModelComparison | None]:
        """Judge what was learned, and `save` it unless it is worse."""
        yield Progress(0, 0, "comparing")
        get_free_folder(name)
        judgement = yield from self.conclude()
        if judgement is not None and judgement.keep:
            self.save(name)
        return judgement

    def conclude(self) -> Generator[Progress, None, ModelComparison | None]:
        """Judge what was learned; None if that is nothing."""
        if self._live is None:
            return None
        tuning = yield from self._live.conclude()
        return None if tuning is None else tuning.judgement

    def save(self, name: str) -> None:
        """Put the model into the store, as a fine-tuning does; whole or not at all.

        Raises
        ------
        UnetError
            The store cannot be written, or the name was taken meanwhile; nothing is lost.
        """
        if self._live is not None and self._live.tuning is not None:
            self._live.tuning.save(name)

    def _take_in(
        self, live: LiveTuning, opened: Sequence[Stack], touched: bool
    ) -> Generator[Progress, None, None]:
        """Read the journals that changed, and hand their samples over."""
        rows = []
        for row in list_corrections(self.base, earlier=self._rows):
            yield Progress(0, 0, "reading the corrections")
            rows.append(row)
        self._rows = rows
        spec = live.model.spec
        reading = to_samples(
            [row for row in rows if row.frames],
            get_head(spec),
            ndim=spec.ndim,
            channels=spec.in_channels,
            touched=touched,
            opened=opened,
            budget=PIXEL_BUDGET,
        )
        samples, _ = yield from map_steps(
            reading, lambda step: replace(step, what="reading the images")
        )
        yield from live.take(samples)
        self._objects = sum(row.objects for row in rows)
        self._images = len({item.source for item in samples.items})


def _look(
    live: LiveTuning, learned: Round, view: ViewedPart, touched: bool
) -> Generator[Progress, None, Round]:
    """Compare what the model finds in view now with the labels, corrected or not."""
    from napari_unet.nn.inference.segment_window import segment_window

    model = live.current()
    settings = choose_view_settings(view, model.card.training)
    now = yield from segment_window(view.stack, model, settings, view.index, view.window)
    known = known_part(view, touched=touched)
    learned = replace(learned, view=view, found=now)
    if view.classes:
        before, after = (np.where(known, 0, labels) for labels in (view.labels, now))
        return replace(learned, changes=diff_classes(before, after))
    other = without_known(view.labels, known)
    size = view.stack.labels_shape[len(view.index) :]
    before, after = without_cut(other, without_known(now, known), view.window, size)
    corrected = Overlap.from_labels(now, np.where(other > 0, 0, view.labels))
    return replace(
        learned,
        changes=diff_objects(before, after, same=CHANGED),
        corrected=len(corrected.true_ids),
        right=len(match(corrected, FOUND).true),
    )


def choose_view_settings(view: ViewedPart, taught: Mapping[str, Any]) -> PredictSettings:
    """Return the settings by which the labels were made, unless another size is taught.

    The size of objects is not estimated anew in each round: objects would seem to change.

    Parameters
    ----------
    taught
        The entry `training` of the card of the model that learns.
    """
    size, result = (taught.get("taught_diameter") or {}).get("px"), view.diameter
    if view.settings.diameter is not None or view.settings.diameter_um is not None or not result:
        return view.settings
    enough = taught.get("objects", 0) >= FEW
    if size and enough and not 1 / SAME_SIZE <= size / result <= SAME_SIZE:
        return view.settings
    return replace(view.settings, diameter=result)


def take_over_steps(
    recording: LayerRecording, view: ViewedPart, found: np.ndarray
) -> Generator[Progress, None, tuple[GroupEdit, tuple[int, ...]]]:
    """Work out the change that takes over what the model finds, apart from what was corrected.

    Parameters
    ----------
    recording
        Of the labels; they are looked at as they are now.
    view, found
        Of the round that was looked at.

    Returns
    -------
    edit
        The change.
    state
        The journal's, to notice later corrections.

    Raises
    ------
    InputError
        Corrections are not saved yet, or there are not enough unused ids.
    """
    yield Progress(0, 0, "taking over")
    if recording.geometry is None or not recording.wait(SAVE_S):
        raise InputError("There are corrections that are not saved yet; try again then.")
    state = journal_state(recording)
    labels = recording.geometry.array(recording.data)
    place: Any = (*view.index, *view.window)
    now = replace(view, journal=recording.journal, labels=np.array(labels[place]))
    known = known_part(now, touched=True)  # what was touched is never replaced
    part = (labels, found, known, view.index, view.window)
    return take_over(*part, classes=view.classes, same=CHANGED), state


def known_part(view: ViewedPart, *, touched: bool) -> np.ndarray:
    """Return which pixels in view the user has corrected or checked; bool, of the window."""
    journal = view.journal
    if journal is None:
        return np.zeros(view.labels.shape, bool)
    events, box = journal.history(view.index), journal.box(view.index, view.window)
    return mask_from_events(view.labels, events, box, classes=view.classes, touched=touched).known
