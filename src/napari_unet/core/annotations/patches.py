"""Patches of corrected images to train on: windows around the known pixels.

Patches stay small however large an image is: frames are divided into cells, and each cell with
known pixels is cut out with a border of context. Nothing in the context counts as known, as it does
so in a neighbouring patch.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.annotation_mask import AnnotationMask
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.annotations.plane_mask import PlaneMask
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.instances.mask import count_pixels, number_objects
from napari_unet.core.tiles import relative_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.annotations.image_source import ImageSource
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window


CELL = {2: (1, 768), 3: (48, 192)}
"""Edge lengths of a cell along Z, and (roughly) along Y and X, in pixels, of planes and volumes."""
CONTEXT = {2: (64, 256), 3: (16, 48)}
"""Minimum and maximum context on either side, in pixels; in between, it is the objects' diameter.
Along Z it is the minimum."""
BLOCK = 64
"""Edge of the squares of a plane of which it is known whether they hold annotated pixels."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of a corrected frame, to train on.

    Attributes
    ----------
    stack, place
        The image, and the frame's position in it.
    index
        The frame's position in the labels.
    window
        The patch's place in the frame.
    mask
        Labels and known pixels of the window; in the context nothing is known.
    """

    stack: Stack
    place: Index
    index: Index
    window: Window
    mask: AnnotationMask

    @property
    def pixels(self) -> int:
        """Number of pixels in the window."""
        return self.mask.labels.size

    def image(self, channels: tuple[int, ...]) -> np.ndarray:
        """Read the window's values, (C, [Z,] Y, X), not normalised."""
        return self.stack.read(self.place, self.window, channels)

    def normaliser(self, channels: tuple[int, ...]) -> Normaliser:
        """Return the normaliser of the whole frame, by whose percentiles the patch is scaled."""
        return Normaliser.from_stack(self.stack, self.place, len(self.window), channels)


def extract_patches(
    journal: JournalReader,
    source: ImageSource,
    ndim: int,
    *,
    touched: bool = True,
    classes: bool | None = None,
) -> Iterator[Patch]:
    """Yield the patches of a journal's frames, as planes (`ndim` 2) or volumes (3).

    Frames whose image is not available are skipped. Volumes are read slab by slab. If `classes`
    (whether labels are classes) is None, the journal's header tells.
    """
    classes = journal.header.head == "semantic" if classes is None else classes
    for index in journal.frames(ndim):
        found = source.frame(index, ndim)
        if found is None:
            continue
        if ndim == 2:
            plane = PlaneMask.from_journal(journal, index, touched=touched, classes=classes)
            for core, window in plane_cells(plane):
                part = plane.read(window)
                inside = relative_window(core, window)
                if part.annotated[inside].any():
                    yield Patch(*found, index, window, _only(part, inside, not classes))
            continue
        for corner, depth, mask in _slabs(journal, index, touched, classes):
            for core, window in cells(mask, depth):
                part = _only(mask.part(window), relative_window(core, window), not classes)
                yield Patch(*found, index, _shifted(window, *corner), part)


def plane_cells(plane: PlaneMask) -> Iterator[tuple[Window, Window]]:
    """Yield the cells of a plane that may have annotated pixels, each without and with context."""
    rows, columns = (np.zeros(size, bool) for size in plane.shape)
    blocks = np.zeros([-(-size // BLOCK) for size in plane.shape], bool)
    areas = Counter[int]()
    for window, mask in plane.bands():
        annotated, first = mask.annotated, window[0].start
        rows[window[0]] = annotated.any(1)
        columns |= annotated.any(0)
        wide = np.logical_or.reduceat(annotated, np.arange(0, plane.shape[1], BLOCK), axis=1)
        for row in range(first // BLOCK, -(-window[0].stop // BLOCK)):
            span = slice(max(0, row * BLOCK - first), (row + 1) * BLOCK - first)
            blocks[row] |= wide[span].any(0)
        values, counts = count_pixels(mask.labels[mask.known])
        areas.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if not rows.any():
        return
    context = _context([area for label, area in areas.items() if label > 0], 2)
    for core in itertools.product(*(_spans(line, CELL[2][1]) for line in (rows, columns))):
        there = tuple(slice(span.start // BLOCK, -(-span.stop // BLOCK)) for span in core)
        if blocks[there].any():
            yield core, _widened(core, context, plane.shape)


def cells(mask: AnnotationMask, depth: slice) -> Iterator[tuple[Window, Window]]:
    """Yield the cells with annotated pixels, each without and with context.

    Parameters
    ----------
    mask
        A slab of a volume.
    depth
        The planes of the slab that are not context.
    """
    annotated = mask.annotated[depth]  # of the whole slab, so once for all cells
    if not annotated.any():
        return
    values = mask.labels[mask.known]
    context = _context(np.unique(values[values > 0], return_counts=True)[1], 3)
    lines = [np.asarray(annotated.any(others)) for others in ((0, 2), (0, 1))]
    for span in itertools.product(*(_spans(line, CELL[3][1]) for line in lines)):
        if annotated[:, *span].any():
            core = (depth, *span)
            yield core, _widened(core, context, mask.labels.shape)


def _slabs(
    journal: JournalReader, index: Index, touched: bool, classes: bool
) -> Iterator[tuple[Index, slice, AnnotationMask]]:
    """Yield a volume's slabs as corner, planes that are not context, and mask.

    Masks are made plane by plane, so that a volume need not be held in memory as a whole.
    """
    thickness, context = CELL[3][0], CONTEXT[3][0]
    count = journal.header.shape[-3]
    planes = {place[-1] for place in journal.frames(2) if place[:-1] == index}
    for start in sorted({plane // thickness * thickness for plane in planes}):
        stop = min(count, start + thickness)
        inside = sorted(plane for plane in planes if start <= plane < stop)
        window = _annotated_window(journal, index, inside, touched, classes)
        if window is None:
            continue
        first, last = max(0, start - context), min(count, stop + context)
        parts = []
        for z in range(first, last):
            if z in inside:
                found = read_annotation_mask(journal, (*index, z), touched=touched, classes=classes)
                fields = (found.labels, found.known, found.scribbled, found.assumed)
                parts.append(tuple(values[window] for values in fields))
            else:
                labels = journal.replay((*index, z))[window]
                parts.append((labels, *np.zeros((3, *labels.shape), bool)))
        slab = AnnotationMask(*(np.stack(field) for field in zip(*parts, strict=True)))
        corner = (first, window[0].start, window[1].start)
        yield corner, slice(start - first, stop - first), slab


def _annotated_window(
    journal: JournalReader, index: Index, planes: list[int], touched: bool, classes: bool
) -> Window | None:
    """Return the part of Y and X that is annotated in these planes, with context."""
    annotated = np.zeros(journal.header.shape[-2:], bool)
    for z in planes:
        plane = read_annotation_mask(journal, (*index, z), touched=touched, classes=classes)
        annotated |= plane.annotated
    if not annotated.any():
        return None
    places = (np.flatnonzero(annotated.any(axis)) for axis in (1, 0))
    core = tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)
    return _widened(core, CONTEXT[3][1], annotated.shape)


def _only(mask: AnnotationMask, core: Window, objects: bool) -> AnnotationMask:
    """Return a mask of which only the core is known, and whose objects are numbered from 1."""
    inside = np.zeros(mask.labels.shape, bool)
    inside[core] = True
    labels = mask.labels.copy()
    if objects:
        ids, numbers = number_objects(labels)
        labels = numbers.astype(np.uint16 if len(ids) < 2**16 else np.uint32)
    fields = (mask.known, mask.scribbled, mask.assumed)
    return AnnotationMask(labels, *(values & inside for values in fields))


def _context(areas: Sequence[int] | np.ndarray, ndim: int) -> int:
    """Return the context in Y and X: enough to show known objects of these areas whole."""
    size = float(np.median(areas)) if len(areas) else 0.0
    # The diameter of a disc is 1.13 times the root of its area, that of a ball 1.24 times the cube
    # root of its volume.
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


def _spans(line: np.ndarray, edge: int) -> list[slice]:
    """Divide what is annotated along an axis into parts of about `edge`."""
    places = np.flatnonzero(line)
    return _divided(int(places[0]), int(places[-1]) + 1, edge)


def _divided(start: int, stop: int, edge: int) -> list[slice]:
    """Divide a span into equal parts of about `edge`; a single part is up to 1.5 times as long."""
    parts = max(1, round((stop - start) / edge))
    ends = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _shifted(window: Window, *by: int) -> Window:
    """Move a window along its first axes."""
    moves = (*by, *(0,) * (len(window) - len(by)))
    return tuple(slice(w.start + m, w.stop + m) for w, m in zip(window, moves, strict=True))
