"""Parts of corrected images that are worth training on: windows around what is known.

However large an image is, a cut is not: frames are divided into cells, and a cell in which
something is known is cut out with a border of context, in which nothing counts as known (it does in
a neighbouring cut).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.mask import AnnotationMask, frame_annotation_mask
from napari_unet.core.image.normalise import Normaliser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.annotations.image_source import ImageSource
    from napari_unet.core.annotations.reader import JournalReader
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window


CELL = {2: (1, 768), 3: (48, 192)}
"""Edges of a cell along Z, and (roughly) along Y and X, in pixels."""
CONTEXT = {2: (64, 256), 3: (16, 48)}
"""Least and most context on either side, in pixels; in between, it is the objects' diameter. Along
Z it is the least."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of a corrected frame.

    Attributes
    ----------
    stack, place
        The image, and the frame's position in it.
    index
        The frame's position in the labels.
    window
        The cut's place in the frame.
    truth
        Of the window; what is known in the context alone does not count.
    """

    stack: Stack
    place: Index
    index: Index
    window: Window
    truth: AnnotationMask

    @property
    def pixels(self) -> int:
        """Size of the window."""
        return self.truth.labels.size

    def image(self, channels: tuple[int, ...]) -> np.ndarray:
        """Read the window's values, (C, [Z,] Y, X), as they are."""
        return self.stack.read(self.place, self.window, channels)

    def normaliser(self, channels: tuple[int, ...]) -> Normaliser:
        """Measure the whole frame, by whose percentiles the window is normalised."""
        return Normaliser.from_stack(self.stack, self.place, len(self.window), channels)


def extract_patches(
    journal: JournalReader,
    source: ImageSource,
    ndim: int,
    *,
    touched: bool = True,
    classes: bool | None = None,
) -> Iterator[Patch]:
    """Yield the cuts of a journal's frames, as planes (`ndim` 2) or, with a Z axis, volumes (3).

    Frames whose image is not at hand are passed by. A volume is worked on slab by slab. Whether
    labels are classes is as the journal says, if it is not given.
    """
    classes = journal.about.head == "semantic" if classes is None else classes
    for index in journal.frames(ndim):
        found = source.frame(index, ndim)
        if found is None:
            continue
        for corner, depth, truth in _slabs(journal, index, ndim, touched, classes):
            for core, window in cells(truth, depth):
                part = _part(truth, core, window, not classes)
                yield Patch(*found, index, _shifted(window, *corner), part)


def cells(truth: AnnotationMask, depth: slice | None = None) -> Iterator[tuple[Window, Window]]:
    """Yield the cells in which something is known, each without and with context.

    Parameters
    ----------
    truth
        A plane, or a slab of a volume.
    depth
        The planes of the slab that are no context.
    """
    ndim = truth.labels.ndim
    seen = truth.seen if depth is None else truth.seen[depth]
    if not seen.any():
        return
    context = _context(truth, ndim)
    spans = [
        _divided(int(place[0]), int(place[-1]) + 1, CELL[ndim][1])
        for place in (
            np.flatnonzero(seen.any(_others(axis, ndim))) for axis in (ndim - 2, ndim - 1)
        )
    ]
    for core in itertools.product(*spans):
        core = core if depth is None else (depth, *core)
        if truth.seen[core].any():
            yield core, _widened(core, context, truth.labels.shape)


def _slabs(
    journal: JournalReader, index: Index, ndim: int, touched: bool, classes: bool
) -> Iterator[tuple[Index, slice | None, AnnotationMask]]:
    """Yield a volume's slabs as corner, planes that are no context, and truth; or the plane.

    What is known is judged plane by plane, so that a volume need not be held as a whole.
    """
    if ndim == 2:
        yield (0, 0), None, frame_annotation_mask(journal, index, touched=touched, classes=classes)
        return
    thickness, context = CELL[3][0], CONTEXT[3][0]
    count = journal.about.shape[-3]
    planes = {place[-1] for place in journal.frames(2) if place[:-1] == index}
    for start in sorted({plane // thickness * thickness for plane in planes}):
        stop = min(count, start + thickness)
        inside = sorted(plane for plane in planes if start <= plane < stop)
        window = _seen_window(journal, index, inside, touched, classes)
        if window is None:
            continue
        first, last = max(0, start - context), min(count, stop + context)
        parts = []
        for z in range(first, last):
            if z in inside:
                found = frame_annotation_mask(
                    journal, (*index, z), touched=touched, classes=classes
                )
                part = (found.labels[window], found.known[window], found.sketched[window])
            else:
                labels = journal.replay((*index, z))[window]
                part = (labels, np.zeros(labels.shape, bool), np.zeros(labels.shape, bool))
            parts.append(part)
        slab = AnnotationMask(*(np.stack(field) for field in zip(*parts, strict=True)))
        corner = (first, window[0].start, window[1].start)
        yield corner, slice(start - first, stop - first), slab


def _seen_window(
    journal: JournalReader, index: Index, planes: list[int], touched: bool, classes: bool
) -> Window | None:
    """Return the part of Y and X in which something is known in these planes, with context."""
    seen = np.zeros(journal.about.shape[-2:], bool)
    for z in planes:
        seen |= frame_annotation_mask(journal, (*index, z), touched=touched, classes=classes).seen
    if not seen.any():
        return None
    places = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    core = tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)
    return _widened(core, CONTEXT[3][1], seen.shape)


def _part(truth: AnnotationMask, core: Window, window: Window, objects: bool) -> AnnotationMask:
    """Cut a window out; only what is known in its core counts, and objects are counted anew."""
    inside = np.zeros(truth.labels.shape, bool)[window]
    inside[_shifted(core, *(-w.start for w in window))] = True
    labels = truth.labels[window].copy()
    if objects:
        names, numbers = np.unique(labels, return_inverse=True)
        numbers = numbers.reshape(labels.shape) + (0 if names[0] == 0 else 1)
        labels = numbers.astype(np.uint16 if len(names) < 2**16 else np.uint32)
    return AnnotationMask(labels, truth.known[window] & inside, truth.sketched[window] & inside)


def _context(truth: AnnotationMask, ndim: int) -> int:
    """Return the context in Y and X: as much as shows the known objects whole."""
    values = truth.labels[truth.known]
    sizes = np.unique(values[values > 0], return_counts=True)[1]
    size = float(np.median(sizes)) if len(sizes) else 0.0
    diameter = size ** (1 / ndim) * 1.2
    return int(np.clip(diameter, *CONTEXT[ndim]))


def _widened(core: Window, context: int, shape: tuple[int, ...]) -> Window:
    """Add the context in Y and X; along Z a slab has its context already."""
    spans = [
        (max(0, c.start - context), min(n, c.stop + context))
        for c, n in zip(core, shape, strict=True)
    ]
    if len(core) == 3:
        spans[0] = (0, shape[0])
    return tuple(slice(*span) for span in spans)


def _divided(start: int, stop: int, edge: int) -> list[slice]:
    """Divide a span into equal parts of about `edge`; one alone may be half as long again."""
    parts = max(1, round((stop - start) / edge))
    ends = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _shifted(window: Window, *by: int) -> Window:
    """Move a window along its first axes."""
    moves = (*by, *(0,) * (len(window) - len(by)))
    return tuple(slice(w.start + m, w.stop + m) for w, m in zip(window, moves, strict=True))


def _others(axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(other for other in range(ndim) if other != axis)
