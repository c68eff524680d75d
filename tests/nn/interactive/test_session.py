"""A click session, from clicks to labels: masks, history, other objects, late answers, planes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import napari_unet as nu
from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.prompts.simulation import iou
from napari_unet.nn.inference.embeddings import FeatureCache
from napari_unet.nn.interactive.session import ClickSession

DISCS = {1: (30, 30), 2: (30, 90), 3: (80, 60)}


def truth(shape=(120, 130), radius=10):
    y, x = np.ogrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.uint16)
    for number, (cy, cx) in DISCS.items():
        labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return labels


def image(**kwargs):
    return (truth(**kwargs) > 0).astype(np.float32)


def test_a_click_gives_the_object_and_nothing_else(clicking_model):
    session = nu.ClickSession(clicking_model(), image())
    mask = session.add(nu.Click((28, 33)))
    assert mask.shape == (120, 130) and mask.dtype == bool
    assert iou(mask, truth() == 1) > 0.95


@pytest.mark.parametrize("place", [(30, 40), (30.3, 40.4), (29.6, 39.7)])
def test_a_click_on_the_rim_mends_the_rim_and_nothing_beyond_it(clicking_model, place):
    session = nu.ClickSession(clicking_model(), image())
    before = session.add(nu.Click((30, 30)))
    assert before[30, 39] and not before[30, 40]
    added = session.add(nu.Click(place)) & ~before
    assert np.argwhere(added).tolist() == [[30, 40]]


def test_clicks_are_taken_back_and_done_again(clicking_model):
    session = ClickSession(clicking_model(), image())
    first = session.add(nu.Click((30, 30)))
    second = session.add(nu.Click((30, 38), positive=False))
    assert second.sum() < first.sum()
    assert not second[30, 38]
    assert np.array_equal(session.undo(), first)
    assert np.array_equal(session.redo(), second)
    session.undo()
    assert not session.undo().any()
    assert not session.undo().any()  # nothing more to take back
    session.redo()
    third = session.add(nu.Click((24, 30), positive=False))
    assert np.array_equal(session.redo(), third)  # what was taken back is gone
    session.reset()
    assert not session.mask.any()
    assert len(session.shown.clicks) == 0


def test_an_object_is_committed_with_a_new_id_and_taken_out_again(clicking_model):
    labels = np.where(truth() == 3, 7, 0).astype(np.uint16)
    before = labels.copy()
    session = ClickSession(clicking_model(), image(), labels)
    mask = session.add(nu.Click((30, 90)))
    change = session.commit()
    assert change.label == 8
    assert np.array_equal(labels == 8, mask)
    assert not session.mask.any()
    session.add(nu.Click((30, 30)))
    assert session.commit(label=20).label == 20
    change.undo(labels)
    assert not (labels == 8).any()
    labels[labels == 20] = 0
    assert np.array_equal(labels, before)


def test_labels_may_be_given_only_to_commit(clicking_model):
    session, labels = ClickSession(clicking_model(), image()), np.zeros((120, 130), np.uint8)
    session.add(nu.Click((30, 90)))
    assert session.commit(labels).label == 1
    assert labels[30, 90] == 1


def test_other_objects_are_protected_unless_they_may_be_overwritten(clicking_model):
    labels = np.zeros((120, 130), np.uint16)
    labels[:, 30:40] = 5
    session = ClickSession(clicking_model(), image(), labels)
    assert not session.add(nu.Click((30, 25)))[:, 30:40].any()
    session.commit()
    assert (labels[:, 30:40] == 5).all()
    session.overwrite = True
    labels[labels == 6] = 0
    assert session.add(nu.Click((30, 25)))[30, 35]
    session.commit()
    assert labels[30, 35] == 6


def test_an_object_under_others_cannot_be_committed(clicking_model):
    labels = np.ones((120, 130), np.uint16)
    session = ClickSession(clicking_model(), image(), labels)
    session.add(nu.Click((30, 30)))
    with pytest.raises(InputError, match=r"no pixels|belong to others"):
        session.commit()


def test_refining_keeps_the_id_and_replaces_the_object(clicking_model):
    labels = np.zeros((120, 130), np.uint16)
    labels[20:30, 20:34] = 4  # a part of the disc
    labels[38:48, 22:38] = 4  # hangs not together with it
    session = ClickSession(clicking_model(), image(), labels)
    assert np.count_nonzero(session.refine((25, 25))) == 140
    mask = session.add(nu.Click((34, 30)))
    assert iou(mask, (truth() == 1) & (labels != 4) | (labels == 4) & mask) > 0.9
    session.commit()
    assert iou(labels == 4, mask | (labels == 4) & (np.arange(120) >= 38)[:, None]) == 1
    assert set(np.unique(labels)) == {0, 4}
    with pytest.raises(InputError, match="no object"):
        session.refine((100, 10))


def test_a_box_begins_an_object_that_stays_in_it(clicking_model):
    session = ClickSession(clicking_model(), image())
    session.box((18, 18), (42, 42))
    mask = session.add(nu.Click((30, 30)))
    assert iou(mask, truth() == 1) > 0.95
    inside = session.box((50.2, 200), (-10, 40))  # any two corners; what is outside does not count
    assert not inside[:, :28].any()
    for low, high in [((10, 10), (10, 40)), ((300, 300), (400, 400))]:
        with pytest.raises(InputError, match=r"The box from .* holds too few pixels"):
            session.box(low, high)
    for low, high in [((1, 10, 10), (1, 20, 20)), ((10, 10), (1, 20, 20))]:
        with pytest.raises(InputError, match=r"has 3 coordinates; .* give \(y, x\)"):
            session.box(low, high)


def test_a_box_lies_in_one_plane_that_is_there(clicking_model):
    session = ClickSession(clicking_model(), np.stack([image()] * 3))
    assert session.box((1, 18, 18), (1, 42, 42))[1].any()
    with pytest.raises(InputError, match=r"\(7, 18, 18\) lies outside the image"):
        session.box((7, 18, 18), (7, 42, 42))
    with pytest.raises(InputError, match=r"from \(1, 18.3, 18\) .* several frames"):
        session.box((1, 18.333, 18), (2, 42, 42))


def test_a_mask_may_be_what_there_is_of_the_object_so_far(clicking_model):
    part = (truth() == 1) & (np.arange(130) < 30)
    labels = np.where(truth() == 2, 2, 0).astype(np.uint16)
    session = ClickSession(clicking_model(), image(), labels)
    assert np.array_equal(session.begin(part), part)
    mask = session.add(nu.Click((30, 36)))
    assert iou(mask, truth() == 1) > 0.95
    assert np.array_equal(session.undo(), part)
    assert session.commit().label == 3
    assert not session.begin(255.0 * (truth() == 2)).any()  # which belongs to an object
    deep = ClickSession(clicking_model(), np.stack([image()] * 3))
    planes = np.stack([part, np.zeros_like(part), part])
    assert np.array_equal(deep.begin(planes), planes)
    for mask, message in [
        (part[1:], r"shape \(119, 130\); give bool of shape \(120, 130\)"),
        (np.zeros((120, 130)), "no pixels"),
        (np.full((120, 130), "x"), "give bool"),
    ]:
        with pytest.raises(InputError, match=message):
            session.begin(mask)


def test_where_nothing_is_left_of_an_object_another_begins(clicking_model):
    labels = np.zeros((120, 130), np.uint16)
    labels[30, 30] = 4
    session = ClickSession(clicking_model(), image(), labels)
    session.refine((30, 30))
    assert not session.add(nu.Click((30, 30), positive=False)).any()
    mask = session.add(nu.Click((30, 90)))
    assert iou(mask, truth() == 2) > 0.95
    assert session.commit().label == 5
    assert labels[30, 30] == 4


def test_hovering_changes_nothing(clicking_model):
    session = ClickSession(clicking_model(), image())
    shown = session.preview(nu.Click((30, 30)))
    assert iou(shown[()].within((slice(0, 120), slice(0, 130))), truth() == 1) > 0.95
    assert not session.mask.any()
    kept = session.add(nu.Click((30, 30)))
    session.preview(nu.Click((30, 36), positive=False))
    assert np.array_equal(session.mask, kept)


class Held(np.ndarray):
    """An image whose pixels come only when they are let go, as from a slow disk."""

    gate: threading.Event
    asked: threading.Event

    def __getitem__(self, key):
        if (gate := getattr(self, "gate", None)) is not None:
            self.asked.set()
            gate.wait(60)
        return super().__getitem__(key)


def test_late_answers_are_dropped(clicking_model):
    held = image().view(Held)
    cache = FeatureCache()
    session = ClickSession(clicking_model(), held, cache=cache)
    session.add(nu.Click((30, 30)))
    session.reset()
    for ask in (session.add, session.preview):
        cache.clear()
        held.gate, held.asked = threading.Event(), threading.Event()
        answers = []
        thread = threading.Thread(target=lambda ask=ask: answers.append(ask(nu.Click((80, 60)))))  # noqa: B023
        thread.start()
        assert held.asked.wait(60)
        session.reset()  # the user went on
        held.gate.set()
        thread.join(60)
        assert len(session.shown.clicks) == 0
        assert answers[0] is None or not answers[0].any()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((-1, 5), "lies outside the image"),
        ((5, 130), "lies outside the image"),
        ((1, 2, 3), r"give \(y, x\)"),
    ],
)
def test_clicks_that_are_nowhere(clicking_model, place, message):
    session = ClickSession(clicking_model(), image())
    with pytest.raises(InputError, match=message):
        session.add(nu.Click(place))
    with pytest.raises(InputError, match="first click must be on the object"):
        session.add(nu.Click((5, 5), positive=False))


def test_nan_constant_and_tiny_images_give_a_mask(clicking_model):
    with_nan = image()
    with_nan[25:35, 25:35] = np.nan
    for pixels in (np.full((40, 40), np.nan), np.zeros((3, 2)), np.ones((1, 200)), with_nan):
        session = ClickSession(clicking_model(), pixels)
        place = tuple(n // 2 for n in pixels.shape) if pixels.shape != (120, 130) else (30, 30)
        with np.errstate(all="raise"), pytest.warns() if np.isnan(pixels).any() else _nothing():
            mask = session.add(nu.Click(place))
        assert mask[place]


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_contradictory_and_very_many_clicks(clicking_model):
    session, rng = ClickSession(clicking_model(), image()), np.random.default_rng(0)
    session.add(nu.Click((30, 30)))
    assert not session.add(nu.Click((30, 30), positive=False))[30, 30]
    assert session.add(nu.Click((30, 30)))[30, 30]
    clicks = session.shown.clicks
    for place in rng.uniform(0, 119, (1000, 2)):
        clicks = clicks.added(nu.Click(tuple(place), positive=bool(rng.random() < 0.5)))
    mask = session.predictor(()).answer(clicks)
    assert mask.inside[30 - mask.window[0].start, 30 - mask.window[1].start]


def test_only_the_part_at_hand_of_a_huge_plane_is_read(clicking_model):
    class Endless:
        """A plane that does not fit into memory; reading much of it at once fails."""

        shape, dtype, ndim = (200_000, 300_000), np.dtype(np.uint8), 2

        def __getitem__(self, key):
            rows, columns = (np.arange(*s.indices(n)) for s, n in zip(key, self.shape, strict=True))
            assert rows.size * columns.size < 5_000_000
            y, x = rows[:, None] % 64 - 32, columns % 64 - 32
            return np.where(y**2 + x**2 < 100, 255, 0).astype(np.uint8)

    session = ClickSession(clicking_model(), Endless())
    shown = session.preview(nu.Click((100_000, 200_032)))[()]
    found = shown.cropped()
    assert 280 < found.area < 350
    assert found.window[0].start in range(99_989, 99_993)


def test_rescaled_images_are_clicked_in_their_own_pixels(clicking_model):
    model = clicking_model(card={"training": {"working_diameter_px": 10}})
    session = ClickSession(model, image(), settings=nu.PredictSettings(diameter=20.0))
    assert iou(session.add(nu.Click((30, 30))), truth() == 1) > 0.85


def test_a_large_object_is_seen_in_a_larger_window(clicking_model):
    """The head's reach is in its own pixels, so it grows with the window."""
    pixels = np.zeros((600, 700), np.float32)
    pixels[250:350, 250:450] = 1
    session = ClickSession(clicking_model(), pixels)
    assert iou(session.add(nu.Click((300, 260))), pixels > 0) < 0.2
    assert iou(session.add(nu.Click((300, 440))), pixels > 0) > 0.85


def test_an_object_is_grown_through_the_planes_until_it_ends(clicking_model):
    volume = np.zeros((12, 120, 130), np.float32)
    volume[3:9] = image()
    session = ClickSession(clicking_model(), volume)
    session.add(nu.Click((5, 30, 30)))
    assert session.mask[5].any() and not session.mask[6].any()
    seen = [step.done for step in session.grow()]
    assert seen == [1, 2, 3, 4, 5]
    assert np.flatnonzero(session.mask.any((1, 2))).tolist() == [3, 4, 5, 6, 7, 8]
    assert not session.mask[:, :, 60:].any()
    assert session.mask[5].any() and not session.undo()[6].any()
    session.redo()
    labels = np.zeros(volume.shape, np.uint16)
    session.commit(labels)
    assert np.count_nonzero(labels.any((1, 2))) == 6


def test_growth_stops_when_the_session_goes_on(clicking_model):
    volume = np.repeat(image()[None], 9, 0)
    session = ClickSession(clicking_model(), volume)
    session.add(nu.Click((4, 30, 30)))
    steps = session.grow()
    next(steps)
    session.reset()
    assert list(steps) == []
    assert not session.mask.any()


def test_where_nothing_can_be_grown(clicking_model):
    with pytest.raises(InputError, match="no planes to grow"):
        list(ClickSession(clicking_model(), image()).grow())
    with pytest.raises(InputError, match="no object to grow"):
        list(ClickSession(clicking_model(), np.zeros((3, 40, 40))).grow())


def test_channels_time_and_planes(clicking_model):
    movie = np.zeros((2, 3, 2, 120, 130), np.float32)  # t, z, c
    movie[1, 2, 1] = image()
    stack = nu.open_stack(movie, axes="TZCYX")
    session = ClickSession(clicking_model(), stack, settings=nu.PredictSettings(channel=1))
    mask = session.add(nu.Click((1, 2, 30, 30)))
    assert mask.shape == (2, 3, 120, 130)
    assert iou(mask[1, 2], truth() == 1) > 0.95
    assert np.count_nonzero(mask) == np.count_nonzero(mask[1, 2])


def test_a_volume_is_clicked_with_a_3d_model(clicking_model):
    z, y, x = np.ogrid[:40, :60, :60]
    ball = (z - 20) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 64
    session = ClickSession(clicking_model(ndim=3), ball.astype(np.float32))
    assert iou(session.add(nu.Click((19, 31, 30))), ball) > 0.9
    with pytest.raises(InputError, match="the model answers in volumes"):
        list(session.grow())
    for first, last in ((11, 29), (20, 20)):  # a box that is drawn in one plane is as deep as wide
        assert iou(session.box((first, 20, 20), (last, 40, 40)), ball) > 0.9


def test_warming_computes_what_a_click_needs(clicking_model):
    session = ClickSession(clicking_model(), np.random.default_rng(0).random((700, 700)))
    steps = session.warm((350, 350))
    first = next(steps)
    assert (first.done, first.total) == (1, 3)
    held = session.cache.bytes
    session.preview(nu.Click((350, 350)))
    grown = session.cache.bytes
    assert grown == held or session.preview(nu.Click((350, 350)))
    for _ in steps:
        pass
    assert session.cache.bytes > held


def test_a_model_without_click_head_is_refused(make_model):
    with pytest.raises(ModelError, match="has no click head; choose a model that has one"):
        ClickSession(make_model(), image())


@pytest.mark.parametrize("labels", [np.zeros((5, 5), np.uint8), np.zeros((120, 130)), [[1, 2]]])
def test_labels_that_do_not_fit(clicking_model, labels):
    with pytest.raises(InputError, match=r"integers of shape \(120, 130\)"):
        ClickSession(clicking_model(), image(), labels)


@pytest.mark.parametrize("label", [0, -3, 256, 2.5, "x"])
def test_ids_that_labels_cannot_hold(clicking_model, label):
    labels = np.zeros((120, 130), np.uint8)
    session = ClickSession(clicking_model(), image(), labels)
    session.add(nu.Click((30, 30)))
    with pytest.raises(InputError, match="give a whole number from 1 to 255"):
        session.commit(label=label)
    session.commit(label=np.uint16(9))
    assert labels[30, 30] == 9


def test_labels_that_can_only_be_read_protect_but_take_no_object(clicking_model):
    labels = np.zeros((120, 130), np.uint8)
    labels.flags.writeable = False
    session = ClickSession(clicking_model(), image(), labels)
    session.add(nu.Click((30, 30)))
    with pytest.raises(InputError, match="can only be read"):
        session.commit()
    session.commit(own := np.zeros((120, 130), np.uint8))
    assert own[30, 30] == 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_places_far_apart_do_not_lose_each_other(clicking_model, ndim):
    far, front = (2500, ()) if ndim == 2 else (260, (3,))
    places = [(*front, 30.0, 30.0), (*front, 30.0, float(far))]
    y, x = np.ogrid[:60, : far + 40]
    planes = [(y - 30) ** 2 + (x - cx) ** 2 < 100 for cx in (30, far)]
    objects = [plane if ndim == 2 else np.stack([plane] * 8) for plane in planes]
    pixels = (objects[0] | objects[1]).astype(np.float32)
    session = ClickSession(clicking_model(ndim=ndim), pixels)
    first = session.add(nu.Click(places[0]))
    assert iou(first, objects[0]) > 0.9
    both = session.add(nu.Click(places[1]))
    assert iou(both, objects[0] | objects[1]) > 0.9
    near = (*front, 5.0, 5.0)
    assert np.array_equal(
        session.add(nu.Click(near, positive=False)) & objects[1], both & objects[1]
    )
    empty = (*front, 5.0, far / 2)
    assert np.array_equal(session.add(nu.Click(empty, positive=False)), session.undo())


def test_a_large_object_is_corrected_where_it_is_clicked(clicking_model):
    labels = np.zeros((60, 2600), np.uint16)
    labels[20:40, 20:2580] = 3
    session = ClickSession(clicking_model(), (labels > 0) * 1.0, labels)
    whole = session.refine((30, 1000))
    less = session.add(nu.Click((30, 2000), positive=False))
    assert not less[30, 2000] and less[:, :1480].sum() == whole[:, :1480].sum()


def test_a_first_click_that_is_negative_is_refused_before_the_image_is_measured(clicking_model):
    pixels = np.full((40, 40), np.nan)  # measuring it warns, and warnings are errors
    session = ClickSession(clicking_model(), pixels)
    with pytest.raises(InputError, match="first click must be on the object"):
        session.add(nu.Click((5, 5), positive=False))
