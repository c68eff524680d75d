"""What is like the objects that were corrected last: found and edited in a job's thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.alike.edit_kinds import recognise
from napari_unet.core.alike.group_edits import RESHAPE, edit_all
from napari_unet.core.alike.ranking import AlikeRanking, first_cut
from napari_unet.core.errors import InputError
from napari_unet.core.instances.label_edits import MERGE, SPLIT
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.alike.descriptors import Candidate
    from napari_unet.core.alike.edit_kinds import Example
    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.jobs.engine import KeptFeatures

EXAMPLES = 8
"""So many of the last corrections, at most, are taken for examples, if they are of one kind."""
SAVE_S = 30.0
"""How long is waited for corrections that are being saved."""


@dataclass(frozen=True, eq=False)
class AlikeQuery:
    """What is searched, and with what.

    Attributes
    ----------
    recording
        Of the labels.
    model, device, settings, kept
        The model whose features tell objects apart, how it is run, and features computed already.
    frames
        Those to search; None: all.
    """

    recording: LayerRecording
    model: str
    device: str
    settings: PredictSettings
    kept: KeptFeatures
    frames: tuple[Index, ...] | None = None


@dataclass(eq=False)
class Alike:
    """Objects ranked by how much they are like the examples.

    Attributes
    ----------
    query
        What was searched.
    kind
        What was done to the examples.
    items
        The examples, followed by all objects that there are, or pairs that touch.
    examples
        How many examples there are.
    state
        The journal's, to notice later changes.
    positive, negative
        More examples, and counterexamples, by their place in `items`.
    scores
        By place in `items`, 0 to 1.
    """

    query: AlikeQuery
    kind: str
    items: tuple[Candidate, ...]
    examples: int
    ranking: AlikeRanking
    state: tuple[int, ...]
    positive: list[int] = field(default_factory=list)
    negative: list[int] = field(default_factory=list)
    scores: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Rank by the examples alone."""
        self.rank()

    def rank(self) -> None:
        """Rank again, by all examples and counterexamples."""
        self.scores = self.ranking.scores([*range(self.examples), *self.positive], self.negative)

    @property
    def first_cut(self) -> float:
        """The score from which on objects are marked, until the user sets it."""
        return first_cut(np.delete(self.scores, [*range(self.examples), *self.negative]))

    def marked(self, least: float) -> list[int]:
        """Return the places in `items` of those to edit: a score of `least`, or chosen by hand."""
        found = self.scores >= least
        found[self.positive] = True
        found[self.negative] = False
        found[: self.examples] = False
        return [int(place) for place in np.flatnonzero(found)]

    def toggle(self, index: Index, label: int, least: float) -> bool:
        """Take an object out, or in, as a click on it says; return whether there is one.

        It becomes a counterexample, or an example, and all are ranked again.
        """
        there = [
            place
            for place, item in enumerate(self.items)
            if place >= self.examples and item.index == index and label in item.labels
        ]
        if not there:
            return False
        marked = set(self.marked(least))
        out = [place for place in there if place in marked]
        chosen = out or [max(there, key=lambda place: self.scores[place])]
        for place in chosen:
            for kept in (self.positive, self.negative):
                if place in kept:
                    kept.remove(place)
            (self.negative if out else self.positive).append(place)
        self.rank()
        return True

    def is_current(self) -> bool:
        """Return whether the labels are as they were when they were searched."""
        return journal_state(self.query.recording) == self.state


def journal_state(recording: LayerRecording) -> tuple[int, ...]:
    """Return what changes with each correction, undo and redo."""
    journal = recording.journal
    if journal is None:
        return ()
    return (recording.pending, journal.undoable, journal.redoable)


def find_alike(query: AlikeQuery) -> Generator[Progress, None, Alike]:
    """Find what is like the objects that were corrected last.

    Raises
    ------
    InputError
        No correction says what to look for.
    """
    yield Progress(0, 0, "looking at the last correction")
    recording = query.recording
    if recording.geometry is None or not recording.wait(SAVE_S) or recording.journal is None:
        raise InputError("Delete, accept (Y), split, merge or reshape an object first.")
    labels = recording.geometry.array(recording.data)
    stack, state = recording.geometry.stack, journal_state(recording)
    ndim = recording.learner.ndim
    examples = _last_examples(recording, labels, ndim)
    kind = examples[0].kind
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.object_features import describe_stack

    model = loaded_model(query.model, query.device)
    if model.spec.ndim != ndim:
        raise InputError(
            f"The labels are objects in {ndim}D, and the model {query.model!r} is of "
            f"{model.spec.ndim}D; choose the model that made the labels."
        )
    extra = [example.item for example in examples]
    described = yield from describe_stack(
        stack,
        labels,
        model,
        query.settings,
        cache=query.kept.open(model),
        frames=query.frames,
        pairs=kind == MERGE,
        extra=extra,
    )
    count = len(extra)
    kept = [*range(count)]
    kept += [
        place
        for place in range(count, len(described.items))
        if not any(_is_same(described.items[place], example) for example in extra)
    ]
    items = tuple(described.items[place] for place in kept)
    ranking = AlikeRanking(described.values[kept], count)
    return Alike(query, kind, items, count, ranking, state)


def _last_examples(recording: LayerRecording, labels: Any, ndim: int) -> list[Example]:
    """Return the last corrections of one kind, the latest first."""
    assert recording.journal is not None
    frames: dict[Index, np.ndarray] = {}

    class Before:
        """The labels before the edits that were looked at already."""

        def __getitem__(self, index: Index) -> np.ndarray:
            if index not in frames:
                frames[index] = np.array(labels[index])
            return frames[index]

    found: list[Example] = []
    for edit in recording.journal.last_edits(EXAMPLES):
        example = recognise(edit, Before(), ndim)
        if example is None or (found and example.kind != found[0].kind):
            break
        frames[example.item.index] = example.before
        found.append(example)
    if not found:
        raise InputError(
            "The last correction is not one of an object: delete, accept (Y), split, merge or "
            "reshape one first."
        )
    return found


def _is_same(item: Candidate, example: Candidate) -> bool:
    """Return whether an object is what became of an example, or a part of it."""
    if item.index != example.index:
        return False
    shared = np.count_nonzero(example.mask.within(item.mask.window) & item.mask.inside)
    return bool(2 * shared > item.mask.area)


def edit_alike(alike: Alike, chosen: Sequence[int]) -> Generator[Progress, None, GroupEdit]:
    """Work out the same edit of the chosen objects; splits and shapes are the network's.

    Raises
    ------
    InputError
        The labels were changed since they were searched, or the model cannot do this.
    """
    query, kind = alike.query, alike.kind
    recording = query.recording
    if recording.geometry is None or not alike.is_current():
        raise InputError("The labels were changed meanwhile; press A to look again.")
    labels = recording.geometry.array(recording.data)
    items = [alike.items[place] for place in chosen]
    if kind not in (SPLIT, RESHAPE):
        return (yield from edit_all(labels, items, kind))
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.diameter_estimation import resolve_diameter
    from napari_unet.nn.inference.embeddings import StackFeatures
    from napari_unet.nn.interactive.mask_predictor import InitialMask, MaskPredictor

    model, stack = loaded_model(query.model, query.device), recording.geometry.stack
    if kind == RESHAPE and model.click is None:
        raise InputError(
            f"The model {model.name!r} has no click head, which reshapes objects; choose another."
        )
    settings, _ = resolve_diameter(stack, model, query.settings)
    features = StackFeatures(stack, model, settings, query.kept.open(model))

    def distance_map(index: Index, window: Window) -> np.ndarray | None:
        return features.at(index).read_distances(window) if model.has_features else None

    def reshape(item: Candidate) -> ObjectMask | None:
        from napari_unet.nn.interactive.active_object import click_on

        assert model.click is not None
        head, initial = model.click.ready(), InitialMask.from_model(model)
        return click_on(item.mask, MaskPredictor(features.at(item.index), head, initial))

    return (yield from edit_all(labels, items, kind, distance_map=distance_map, reshape=reshape))
