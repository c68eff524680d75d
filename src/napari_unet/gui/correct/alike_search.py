"""What is like the objects that were corrected last: found and edited in a job's thread.

It is looked for in the labels that were corrected, and if the user wishes in those of other open
images and in the files of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.alike.edit_kinds import recognise
from napari_unet.core.alike.ranking import AlikeRanking, first_cut
from napari_unet.core.alike.result_file import ResultFile
from napari_unet.core.annotations.header import image_fingerprint
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.instances.label_edits import MERGE
from napari_unet.core.progress import Progress, map_steps
from napari_unet.gui.jobs.engine import KeptFeatures

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.batch.file_job import FileJob
    from napari_unet.core.alike.descriptors import Candidate
    from napari_unet.core.alike.edit_kinds import Example
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index
    from napari_unet.gui.correct.layer_recording import LayerRecording, Learner
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.object_features import DescribedObjects

EXAMPLES = 8
"""So many of the last corrections, at most, are taken for examples, if they are of one kind."""
SAVE_S = 30.0
"""How long is waited for corrections that are being saved."""
MOST = 100_000
"""No more files are searched once so many objects were found: each takes some kilobytes."""


@dataclass(frozen=True, eq=False)
class OpenLabels:
    """Labels of another open image, and how the model is run on it."""

    recording: LayerRecording
    settings: PredictSettings


@dataclass(frozen=True, eq=False)
class AlikeQuery:
    """What is searched, and with what.

    Attributes
    ----------
    recording
        Of the labels that were corrected.
    model, device, settings, kept
        The model whose features tell objects apart, how it is run, and features computed already.
    frames
        Those to search; None: all.
    others
        More labels to search, all of them.
    files, file_settings
        Results on the disk to search, and how the model is run on their images.
    opened
        All images that are open: their labels in files are left alone.
    """

    recording: LayerRecording
    model: str
    device: str
    settings: PredictSettings
    kept: KeptFeatures
    frames: tuple[Index, ...] | None = None
    others: tuple[OpenLabels, ...] = ()
    files: tuple[FileJob, ...] = ()
    file_settings: PredictSettings | None = None
    opened: tuple[Stack, ...] = ()


@dataclass(eq=False)
class SearchedImage:
    """An image whose labels were searched, in a layer or in a file.

    Attributes
    ----------
    name
        To show.
    places
        Which of the items are its objects.
    settings
        How the model is run on it.
    recording, state
        Of the layer, and the journal's state when it was searched.
    file
        The labels' file; None for a layer.
    wanted
        Whether its objects are edited; set by the user.
    opened
        Whether it was opened since; its file stays as it is meanwhile.
    """

    name: str
    places: range
    settings: PredictSettings
    recording: LayerRecording | None = None
    state: tuple[int, ...] = ()
    file: ResultFile | None = None
    wanted: bool = True
    opened: bool = False

    def is_current(self) -> bool:
        """Return whether a layer's labels are as they were when they were searched."""
        return self.recording is None or journal_state(self.recording) == self.state


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
    images
        Where the objects are; the one that was corrected comes first.
    problems
        Why others were not searched, a sentence each.
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
    images: tuple[SearchedImage, ...]
    problems: tuple[str, ...] = ()
    positive: list[int] = field(default_factory=list)
    negative: list[int] = field(default_factory=list)
    scores: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Rank by the examples alone."""
        self.rank()

    def rank(self) -> None:
        """Rank again, by all examples and counterexamples; takes a while where there are many."""
        self.scores = self.ranking.scores([*range(self.examples), *self.positive], self.negative)

    @property
    def first_cut(self) -> float:
        """The score from which on objects are marked, until the user sets it."""
        return first_cut(np.delete(self.scores, [*range(self.examples), *self.negative]))

    def marked(self, least: float, *, opened: bool = False) -> list[int]:
        """Return the places in `items` of those to edit: a score of `least`, or chosen by hand.

        Parameters
        ----------
        opened
            Also those of files that are open, which are not edited now.
        """
        found = self.scores >= least
        found[self.positive] = True
        found[self.negative] = False
        found[: self.examples] = False
        for image in self.images:
            if not image.wanted or (image.opened and not opened):
                found[image.places.start : image.places.stop] = False
        return [int(place) for place in np.flatnonzero(found)]

    def choose(self, index: Index, label: int, least: float, image: int = 0) -> bool:
        """Take an object of an image out, or in, as a click says; return whether there is one.

        It becomes a counterexample, or an example: `rank` takes it in.
        """
        there = [
            place
            for place in self.images[image].places
            if self.items[place].index == index and label in self.items[place].labels
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
        return True


def journal_state(recording: LayerRecording) -> tuple[int, ...]:
    """Return what changes with each correction, undo and redo, and when the recording ends."""
    journal = recording.journal
    return (recording.closed, recording.pending, 0 if journal is None else journal.changes)


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
    items = [described.items[place] for place in kept]
    values, problems = [described.values[kept]], list[str]()
    places = range(count, len(items))
    images = [SearchedImage(stack.name, places, query.settings, recording, state)]
    for image, found in (yield from _others(query, model, kind, problems)):
        image.places = range(len(items), len(items) + len(found.items))
        items += found.items
        values += [found.values] if found.items else []
        images.append(image)
    ranking = AlikeRanking(np.concatenate(values), count)
    return Alike(query, kind, tuple(items), count, ranking, tuple(images), tuple(problems))


def _others(
    query: AlikeQuery, model: Model, kind: str, problems: list[str]
) -> Generator[Progress, None, list[tuple[SearchedImage, DescribedObjects]]]:
    """Describe the objects of other open images and of files; those that cannot be are problems."""
    from napari_unet.nn.inference.object_features import describe_stack

    found: list[tuple[SearchedImage, DescribedObjects]] = []

    def describe(
        image: SearchedImage, stack: Stack, labels: Any
    ) -> Generator[Progress, None, None]:
        cache = KeptFeatures().open(model)  # of one image at a time
        pairs = kind == MERGE
        steps = describe_stack(stack, labels, model, image.settings, cache=cache, pairs=pairs)
        shown = map_steps(steps, lambda step: replace(step, what=f"{step.what} of {image.name}"))
        found.append((image, (yield from shown)))

    for recording, settings in [(each.recording, each.settings) for each in query.others]:
        geometry = recording.geometry
        if geometry is None or not recording.wait(SAVE_S):
            problems.append(f"{recording.layer.name}: its corrections are not saved yet.")
            continue
        image = SearchedImage(geometry.stack.name, range(0), settings, recording)
        image.state = journal_state(recording)
        try:
            yield from describe(image, geometry.stack, geometry.array(recording.data))
        except UnetError as error:
            problems.append(f"{image.name}: {error}")
    searched, opened = _fingerprints(query) if query.files else (set[str](), set[str]())
    for number, job in enumerate(query.files):
        name = Path(job.source).name
        yield Progress(number, len(query.files), "files")
        if sum(len(each.items) for _, each in found) > MOST:
            problems.append(f"There are more than {MOST:,} objects: {name} and more are left out.")
            break
        try:
            assert job.target is not None
            file, stack, labels = ResultFile.read(Path(job.source), job.target)
            mark = image_fingerprint(stack)
            if mark in searched:
                continue
            if mark in opened:
                raise InputError("it is open without these labels; open them, too, or close it.")
            _check_kind(file, query.recording.learner)
            settings = query.file_settings or query.settings
            yield from describe(SearchedImage(name, range(0), settings, file=file), stack, labels)
        except UnetError as error:
            problems.append(f"{name}: {error}")
    return found


def _fingerprints(query: AlikeQuery) -> tuple[set[str], set[str]]:
    """Return those of the open images that are searched, and of all open images."""
    recordings = [query.recording, *(each.recording for each in query.others)]
    stacks = [each.geometry.stack for each in recordings if each.geometry is not None]
    searched = {image_fingerprint(stack) for stack in stacks}
    return searched, {image_fingerprint(stack) for stack in query.opened}


def _check_kind(file: ResultFile, learner: Learner) -> None:
    """Check that labels in a file are of the kind of those that are corrected."""
    if file.head != learner.head:
        kinds = ("classes", "objects") if file.head == "semantic" else ("objects", "classes")
        raise InputError(f"its labels are {kinds[0]}, not {kinds[1]}.")
    if file.ndim != learner.ndim:
        raise InputError(f"its labels are objects in {file.ndim}D, not {learner.ndim}D.")


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
