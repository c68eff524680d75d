"""Known is what the user looked at, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.annotations import patches as patches_module
from napari_unet.core.annotations import plane_mask
from napari_unet.core.annotations.edits import DROPPED, KNOWN, SCRIBBLES, UNKNOWN
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.known_around import MARGIN, near
from napari_unet.core.annotations.mask import mask_from_events, read_annotation_mask
from napari_unet.core.annotations.patches import extract_patches
from napari_unet.core.annotations.plane_mask import PlaneMask
from napari_unet.core.io.stack import open_stack

Y, X = np.mgrid[:80, :100]


def disc(y, x, radius=10):
    return np.hypot(Y - y, X - x) < radius


FIRST = np.zeros((80, 100), np.uint16)
for number, (y, x) in enumerate([(20, 20), (20, 44), (60, 70)], 1):
    FIRST[disc(y, x)] = number


@pytest.fixture
def begin(request):
    """A way to begin a journal on labels, and to paint in it."""
    journals = []

    def make(labels, axes="YX", **how):
        image = np.random.default_rng(len(journals)).integers(0, 99, labels.shape, np.uint8)
        journals.append(Journal.begin(open_stack(image, axes), labels, **how))
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def paint(journal, labels, mask, new, canvas="labels"):
    where = np.nonzero(mask)
    old = labels[where]
    labels[where] = new
    journal.record(journal.edit(where, old, new, canvas=canvas, labels=labels))


def test_nothing_is_known_at_first(begin):
    truth = read_annotation_mask(begin(FIRST))
    assert not truth.annotated.any()
    assert np.array_equal(truth.labels, FIRST)


def test_what_is_known_does_not_depend_on_how_large_the_image_is(begin):
    small, large = FIRST.copy(), np.zeros((1500, 700), np.uint16)
    large[1000:1080, 300:400] = small
    found = []
    for labels, corner in ((small, (0, 0)), (large, (1000, 300))):
        journal = begin(labels)
        for part, new in ((FIRST == 2, 0), (disc(20, 40, 4), 7), (disc(61, 88, 5), 8)):
            moved = np.zeros(labels.shape, bool)
            moved[corner[0] : corner[0] + 80, corner[1] : corner[1] + 100] = part
            paint(journal, labels, moved, new)
        found.append(read_annotation_mask(journal))
    inside = np.s_[1000:1080, 300:400]
    for name in ("known", "assumed"):
        one, other = (getattr(mask, name) for mask in found)
        assert one.any() and np.array_equal(other[inside], one)
    assert np.count_nonzero(found[1].assumed) == np.count_nonzero(found[0].assumed)


def test_a_touched_object_is_known_with_background_around_but_not_its_neighbour(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, disc(10, 20, 4), 1)
    known = read_annotation_mask(journal, margin=8).known
    assert known[labels == 1].all()
    assert not known[FIRST == 2].any()
    assert not known[FIRST == 3].any()
    assert known[20, 32]  # between the two, nearer than the margin
    assert not known[20, 60]
    far = np.hypot(Y - 20, X - 20) > 30
    assert not known[far].any()


def test_the_background_of_the_margin_is_assumed_but_for_the_rim(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, disc(66, 70, 8), 3)
    truth = read_annotation_mask(journal, margin=8)
    away = np.where(Y <= 60, np.hypot(Y - 60, X - 70), 12)  # above the stroke
    assert truth.assumed[(away > 13) & (away < 17)].all()
    assert not truth.assumed[away < 11].any()  # the object, and the rim that its outline shows
    assert not truth.assumed[~truth.known].any()


def test_what_was_deleted_or_marked_is_not_assumed(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, labels == 3, 0)
    truth = read_annotation_mask(journal, margin=8)
    assert truth.known[FIRST == 3].all()
    assert not truth.assumed[FIRST == 3].any()
    assert truth.assumed.any()
    journal.mark(KNOWN, ())
    truth = read_annotation_mask(journal, margin=8)
    assert truth.known.all()
    assert not truth.assumed.any()


def test_the_margin_goes_by_the_diameter_of_what_was_touched(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, (labels == 3) & (Y == 60) & (X == 70), 0)
    known = read_annotation_mask(journal).known
    reach = np.hypot(Y - 60, X - 70)[known].max() - 10
    assert reach == pytest.approx(MARGIN * 20, abs=1.5)


def test_a_deleted_object_is_known_background(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, labels == 2, 0)
    truth = read_annotation_mask(journal)
    assert truth.known[FIRST == 2].all()
    assert not truth.labels[FIRST == 2].any()
    assert not truth.known[FIRST == 1].any()


def test_what_is_left_of_a_clump_is_not_background(begin):
    labels = np.zeros((80, 100), np.uint16)
    clump = np.zeros(labels.shape, bool)
    clump[10:70, 10:90] = True
    labels[clump] = 1
    journal = begin(labels)
    paint(journal, labels, clump, 0)
    assert read_annotation_mask(journal).known[clump].all()  # nothing there, as far as one knows
    paint(journal, labels, disc(30, 30), 2)
    found = read_annotation_mask(journal, margin=5)
    assert found.known[disc(30, 30, 11)].all()
    assert not found.known[disc(30, 43, 2)].any(), "one of the clump's other objects may be there"
    paint(journal, labels, disc(55, 75), 3)
    found = read_annotation_mask(journal, margin=5)
    assert found.known[disc(55, 75, 11)].all() and not found.known[20:25, 70:80].any()


def test_what_was_undone_is_not_known(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, labels == 2, 0)
    journal.undo()
    assert not read_annotation_mask(journal).annotated.any()
    journal.redo()
    assert read_annotation_mask(journal).known[FIRST == 2].all()


def test_a_confirmed_object_is_known_as_it_is(begin):
    journal = begin(FIRST)
    journal.confirm([3], ())
    known = read_annotation_mask(journal).known
    assert known[FIRST == 3].all()
    assert not known[FIRST == 1].any()


def test_a_checked_frame_or_box_is_known_until_it_is_unchecked_or_dropped(begin):
    journal = begin(FIRST)
    journal.mark(KNOWN)
    assert read_annotation_mask(journal).known.all()
    journal.mark(UNKNOWN, (), (slice(10, 80), slice(0, 100)))
    journal.mark(DROPPED, (), (slice(0, 10), slice(50, 100)))
    expected = np.zeros(FIRST.shape, bool)
    expected[:10, :50] = True
    assert np.array_equal(read_annotation_mask(journal).known, expected)


def test_what_is_dropped_counts_again_when_it_is_touched_again(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, disc(20, 20, 3), 0)
    paint(journal, labels, disc(60, 70, 3), 0)
    journal.mark(DROPPED)
    assert not read_annotation_mask(journal).annotated.any()
    paint(journal, labels, disc(60, 70, 3), 3)
    known = read_annotation_mask(journal).known
    assert known[FIRST == 3].all()
    assert not known[FIRST == 1].any()


def test_a_dropped_box_is_cut_out_of_what_was_touched(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, disc(20, 20, 3), 0)
    journal.mark(DROPPED, (), (slice(0, 20), slice(0, 100)))
    known = read_annotation_mask(journal).known
    assert not known[:20].any()
    assert known[20:][FIRST[20:] == 1].all()


def test_touched_may_be_left_out_of_account(begin):
    labels = FIRST.copy()
    journal = begin(labels)
    paint(journal, labels, disc(20, 20, 3), 0)
    journal.mark(KNOWN, (), (slice(0, 5), slice(0, 5)))
    assert read_annotation_mask(journal, touched=False).known.sum() == 25


def test_scribbles_of_objects_teach_the_foreground_alone(begin):
    scribbles = np.zeros(FIRST.shape, np.uint8)
    journal = begin(FIRST)
    nothing, inside = (Y == 45) & (X < 9), (Y == 60) & (abs(X - 70) < 4)
    wrong = (Y == 20) & (abs(X - 44) < 4)
    for mask, value in ((nothing, 2), (inside, 2), (wrong, 1)):
        paint(journal, scribbles, mask, value, SCRIBBLES)
    truth = read_annotation_mask(journal)
    assert np.array_equal(truth.scribbled, nothing | inside)
    assert np.array_equal(truth.known, wrong)
    assert not truth.labels[wrong].any()
    journal.confirm([3], ())
    truth = read_annotation_mask(journal)
    assert np.array_equal(truth.scribbled, nothing)
    assert truth.known[inside].all()


def test_scribbles_of_classes_are_their_labels(begin):
    scribbles = np.zeros(FIRST.shape, np.uint8)
    journal = begin(np.minimum(FIRST, 1), head="semantic")
    paint(journal, scribbles, (Y == 45), 3, SCRIBBLES)
    truth = read_annotation_mask(journal)
    assert np.array_equal(truth.known, Y == 45)
    assert (truth.labels[45] == 2).all()
    assert not truth.scribbled.any()


def test_where_labels_are_classes_all_near_a_change_is_known_and_nothing_else(begin):
    labels = np.ones(FIRST.shape, np.uint8)
    journal = begin(labels, head="semantic")
    paint(journal, labels, disc(40, 50, 5), 2)
    known = read_annotation_mask(journal, margin=4).known
    assert np.array_equal(known, disc(40, 50, 5) | (known & (labels == 1)))
    assert 5 + 3 < np.hypot(Y - 40, X - 50)[known].max() < 5 + 5


def test_an_edit_in_one_plane_of_a_volume_says_nothing_about_others(begin):
    labels = np.repeat(FIRST[None], 5, axis=0)
    journal = begin(labels, "ZYX", ndim=3)
    mask = np.zeros(labels.shape, bool)
    mask[2] = disc(20, 20, 3)
    paint(journal, labels, mask, 0)
    journal.mark(KNOWN, (4,))
    known = read_annotation_mask(journal).known
    assert known.any((1, 2)).tolist() == [False, False, True, False, True]
    assert known[2][labels[2] == 1].all()
    assert known[4].all()
    journal.confirm([3], ())
    assert read_annotation_mask(journal).known[labels == 3].all()


def test_frames_of_a_time_series_do_not_mix(begin):
    labels = np.repeat(FIRST[None], 3, axis=0)
    journal = begin(labels, "TYX")
    mask = np.zeros(labels.shape, bool)
    mask[1] = disc(20, 20, 3)
    paint(journal, labels, mask, 0)
    assert not read_annotation_mask(journal, (0,)).annotated.any()
    assert read_annotation_mask(journal, (1,)).known[labels[1] == 1].all()


def test_large_ids_cost_nothing(begin):
    labels = FIRST.astype(np.uint32)
    labels[labels == 3] = 4_000_000_000
    journal = begin(labels)
    paint(journal, labels, disc(60, 70, 3), 0)
    assert read_annotation_mask(journal).known[labels == 4_000_000_000].all()


@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_what_is_known_of_a_window_is_that_part_of_the_frame(begin, axes):
    labels = FIRST.copy() if axes == "YX" else np.stack([FIRST, FIRST])
    journal = begin(labels, axes)
    draw = (disc(50, 50, 6), disc(10, 20, 4), disc(70, 20, 5))
    for new, mask in enumerate(draw, 4):
        paint(journal, labels, mask if axes == "YX" else np.stack([mask, mask & False]), new)
    paint(journal, labels, labels == 3, 0)
    journal.mark(KNOWN, (), (slice(0, len(labels)),) * (axes == "ZYX") + (slice(60, 80),) * 2)
    whole = read_annotation_mask(journal, margin=8)
    window = (slice(0, len(labels)),) * (axes == "ZYX") + (slice(30, 78), slice(5, 95))
    part = mask_from_events(labels[window], journal.history(), journal.box((), window), margin=8)
    inside = (..., slice(8, -8), slice(8, -8))  # what lies outside reaches as far as the margin
    assert part.known[inside].any()
    np.testing.assert_array_equal(part.known[inside], whole.known[window][inside])
    np.testing.assert_array_equal(part.labels, whole.labels[window])


def corrected_at_random(begin, seed, head="instance"):
    """A journal of all kinds of edits and marks, undone and dropped ones among them."""
    rng = np.random.default_rng(seed)
    labels = FIRST.copy()
    journal = begin(labels, head=head)
    for number in range(12):
        place = disc(*rng.integers(0, (80, 100)), rng.integers(2, 9))
        kind = rng.choice(["delete", "paint", "scribble", "confirm", "mark", "undo"])
        if kind == "delete" and labels.any():
            paint(journal, labels, labels == rng.choice(labels[labels > 0]), 0)
        elif kind == "paint":
            paint(journal, labels, place & (labels != number), number)
        elif kind == "scribble":
            where = np.nonzero(place)
            journal.record(journal.edit(where, 0, int(rng.integers(1, 3)), canvas=SCRIBBLES))
        elif kind == "confirm":
            journal.confirm([1, 2], (), labels=labels)
        elif kind == "mark":
            box = (slice(0, 1 + int(rng.integers(80))), slice(int(rng.integers(99)), 100))
            journal.mark(str(rng.choice([KNOWN, UNKNOWN, DROPPED])), (), box)
        elif (step := journal.undo()) is not None and step.edit.canvas == "labels":
            labels[step.where] = step.values
    return journal


@pytest.mark.parametrize("seed", range(6))
def test_a_large_plane_is_worked_out_in_bands_with_the_same_result(begin, monkeypatch, seed):
    journal = corrected_at_random(begin, seed, "semantic" if seed == 5 else "instance")
    whole = read_annotation_mask(journal)
    patches = [*_patches(journal)]
    monkeypatch.setattr(plane_mask, "BAND", 700)
    monkeypatch.setattr(patches_module, "BLOCK", 8)
    banded = PlaneMask.from_journal(journal, ())
    window = (slice(13, 50), slice(22, 71))
    for name in ("labels", "known", "scribbled", "assumed"):
        expected = getattr(whole, name)
        np.testing.assert_array_equal(getattr(banded.whole(), name), expected, name)
        np.testing.assert_array_equal(getattr(banded.read(window), name), expected[window], name)
    again = [*_patches(journal)]
    assert [p.window for p in again] == [p.window for p in patches]
    for one, other in zip(patches, again, strict=True):
        np.testing.assert_array_equal(one.mask.labels, other.mask.labels)
        np.testing.assert_array_equal(one.mask.known, other.mask.known)


def _patches(journal):
    source = SimpleNamespace(frame=lambda index, _: (None, index))
    return extract_patches(journal, source, 2)


def test_a_window_is_replayed_as_a_part_of_the_plane(begin):
    journal, window = corrected_at_random(begin, 3), (slice(7, 61), slice(30, 90))
    for canvas in ("labels", SCRIBBLES):
        whole = journal.replay(canvas=canvas)
        np.testing.assert_array_equal(journal.replay((), window, canvas=canvas), whole[window])
    assert journal.replay((), window).any()


def test_a_large_plane_is_worked_out_once(begin, monkeypatch):
    labels = np.zeros((90, 100), np.uint16)
    labels[8:20, 8:20], labels[50:64, 40:61] = 1, 2
    journal = begin(labels)
    journal.record(journal.edit(np.nonzero(labels == 2), 2, 3, labels=labels))
    whole = read_annotation_mask(journal)
    monkeypatch.setattr(plane_mask, "BAND", 700)
    plane = PlaneMask.from_journal(journal, ())
    assert len(list(plane.bands())) == 13
    monkeypatch.delattr(PlaneMask, "_work_out")
    for window in ((slice(0, 90), slice(0, 100)), (slice(43, 70), slice(33, 68))):
        found = plane.read(window)
        for name in ("labels", "known", "scribbled", "assumed"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[window])


def test_what_is_near_is_that_of_exact_distances():
    rng = np.random.default_rng(0)
    for reach in (0.5, 1.5, 13**0.5, 9.37, 30.0):
        core = rng.random((40, 70)) < 0.01
        away = ndimage.distance_transform_edt(~core)
        np.testing.assert_array_equal(near(core, reach), away <= reach)
    assert not near(np.zeros((3, 4), bool), 2.0).any()
