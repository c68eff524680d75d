"""Labelled images become training crops that are known where they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from discs import disc_labels
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.training.known_pixels import MAX_BACKGROUND_WEIGHT, labelled_diameter
from napari_unet.core.training.samples import Samples, find_voxel_ratio, with_voxel_ratio


def discs(count=4, size=120, radius=9):
    rng = np.random.default_rng(count)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for number, (cy, cx) in enumerate(rng.uniform(radius, size - radius, (count, 2)), 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return (labels > 0) * 100.0 + rng.normal(0, 5, labels.shape), labels


def test_images_are_normalised_and_targets_made():
    samples = Samples.from_labels([discs()])
    item = samples.items[0]
    assert item.image.shape == (3, 120, 120)
    assert item.image.dtype == np.float32
    assert np.percentile(item.image, 99.8) == pytest.approx(1, abs=0.01)
    assert item.targets.shape == (2, 120, 120)
    assert item.known.all()


def test_the_diameter_is_that_of_the_discs():
    assert median_diameter(discs(1, radius=12)[1]) == pytest.approx(24, abs=1)
    assert median_diameter(np.zeros((5, 5), int)) == 0


def test_balls_in_long_voxels_have_their_diameter_in_the_plane():
    z, y, x = np.ogrid[:7, :40, :40]
    labels = np.uint8(((z - 3) * 5.0) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 81)
    stack = open_stack(labels * 9.0, axes="ZYX", voxel_size_um=(2.5, 0.5, 0.5))
    samples = Samples.from_labels([(stack, labels)], channels=1)
    assert samples.items[0].diameter == pytest.approx(18, abs=0.5)
    assert samples.card()["diameter_px"]["q50"] == pytest.approx(18, abs=0.5)
    assert samples.taught_diameter()["um"] == pytest.approx(9, abs=0.25)
    assert find_voxel_ratio(samples) == 5
    unknown = Samples.from_labels([(labels * 9.0, labels)], channels=1)
    assert find_voxel_ratio(unknown) is None
    assert with_voxel_ratio(unknown, 5.0).items[0].diameter == samples.items[0].diameter
    assert with_voxel_ratio(samples, None).items[0].diameter == unknown.items[0].diameter


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match="give integers of shape"):
        Samples.from_labels([(np.zeros((9, 9)), np.zeros((9, 8), int))])


def test_a_movie_is_to_be_given_frame_by_frame():
    image, labels = discs()
    movie = open_stack(np.stack([image] * 2), axes="TYX")
    with pytest.raises(InputError, match="has axes TYX; give its frames one by one"):
        Samples.from_labels([(movie, np.stack([labels] * 2))])


def test_no_images_are_refused():
    with pytest.raises(InputError, match="at least one"):
        Samples.from_labels([])


@pytest.mark.parametrize("what", ["known", "groups"])
@pytest.mark.parametrize("count", [1, 3])
def test_masks_and_groups_of_another_number_are_refused(what, count):
    one = {"known": None, "groups": "a"}[what]
    with pytest.raises(InputError, match=rf"There are {count} .* for .* images; give one for each"):
        Samples.from_labels((discs(n) for n in (2, 3)), **{what: [one] * count})


def test_masks_of_another_shape_and_labels_that_are_no_objects_are_refused():
    image, labels = discs()
    with pytest.raises(InputError, match=r"known mask of image has shape \(120,\)"):
        Samples.from_labels([(image, labels)], known=[np.ones(120, bool)])
    with pytest.raises(InputError, match=r"holds numbers between the labels, such as 0\.5"):
        Samples.from_labels([(image, labels + 0.5)])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_whole_numbers_of_any_type_are_labels_and_below_zero_is_background(dtype):
    image, labels = discs()
    written = np.where(labels == 0, -1, np.int64(labels)).astype(dtype)
    (plain,), (other,) = (Samples.from_labels([(image, v)]).items for v in (labels, written))
    assert np.array_equal(plain.targets, other.targets) and np.array_equal(other.labels, labels)


def test_images_of_which_nothing_is_known_are_refused():
    image, labels = discs()
    nothing, some = np.zeros(labels.shape, bool), labels > 0
    with pytest.raises(InputError, match="Nothing is known in any image"):
        Samples.from_labels([(image, labels)], known=[nothing])
    assert len(Samples.from_labels([(image, labels)] * 2, known=[nothing, some]).items) == 2


def test_crowded_images_and_small_groups_weigh_more_but_not_in_proportion():
    pairs = [discs(1), discs(9), discs(4), discs(4)]
    weights = Samples.from_labels(pairs, groups=["a", "a", "a", "b"]).weights()
    assert weights.sum() == pytest.approx(1)
    assert weights[0] < weights[2] < weights[1]
    assert weights[3] > weights[:3].max()


def test_the_card_counts_and_hashes():
    pairs = [discs(3), discs(5)]
    card = Samples.from_labels(pairs, groups=["x", "y"]).card()
    assert card["images"] == 2
    assert card["groups"] == {"x": 1, "y": 1}
    assert card["diameter_px"]["q05"] <= card["diameter_px"]["q50"] <= card["diameter_px"]["q95"]
    assert card["data_hash"] == Samples.from_labels(pairs, groups=["x", "y"]).card()["data_hash"]
    assert card["data_hash"] != Samples.from_labels(pairs[:1]).card()["data_hash"]


def test_around_touched_objects_the_background_makes_up_for_what_is_unknown():
    image, labels = discs()
    touched = ndimage.binary_dilation(labels > 0, iterations=6)
    samples = Samples.from_labels([(image, labels)] * 2, known=[touched, None])
    part, whole = samples.balanced(0.25).items
    background = part.background_weight * np.count_nonzero(touched & (labels == 0))
    objects = np.count_nonzero(labels)
    assert objects / (objects + background) == pytest.approx(0.25)
    assert whole.background_weight == 1
    assert samples.balanced(0.01).items[0].background_weight == MAX_BACKGROUND_WEIGHT
    assert samples.balanced(0.9).items[0].background_weight == 1


def test_where_there_is_no_background_nothing_weighs_more():
    image, labels = discs()
    samples = Samples.from_labels([(image, labels)], known=[labels > 0])
    assert samples.balanced(0.25).items[0].background_weight == 1


def class_labels():
    labels = np.zeros((40, 40), np.uint8)
    labels[10:], labels[20:] = 1, 2
    return labels


def test_labels_of_a_semantic_head_are_classes():
    labels = class_labels()
    samples = Samples.from_labels([(labels * 1.0, labels)], head=SemanticHead(3))
    assert samples.head == SemanticHead(3)
    assert np.array_equal(samples.items[0].targets.argmax(0), labels)
    card = samples.card()
    assert (card["images"], card["objects"], card["diameter_px"]) == (1, 0, {})


@pytest.mark.parametrize(("value", "text"), [(3, "from 0 to 3"), (-1, "from -1 to 2")])
def test_classes_that_the_head_does_not_have_are_said(value, text):
    labels = class_labels().astype(int)
    labels[0, 0] = value
    with pytest.raises(InputError, match=f"{text}; give classes from 0 to 2"):
        Samples.from_labels([(labels * 1.0, labels)], head=SemanticHead(3))


def test_corrected_objects_are_no_fair_sample_of_the_sizes_in_an_image():
    labels = disc_labels(np.random.default_rng(0), (300, 300), 10)
    names = np.unique(labels)[1:]
    small = ndimage.distance_transform_edt(labels > 0) > 6
    few, most = (np.isin(labels, names[:count]) for count in (4, len(names) - 4))
    for corrected, size in ((few, 20), (most, 8)):
        now = np.where(corrected & ~small, 0, labels)
        known = corrected | (now == 0)
        sample = Samples.from_labels([(now / 9.0, now)], known=[known]).items[0]
        assert sample.diameter == pytest.approx(size, rel=0.15)
    nothing = Samples.from_labels([(labels / 9.0, 0 * labels)], known=[few]).items[0]
    assert nothing.diameter == 0


def sized(*diameters, pixel_um=0.0):
    """Samples of an image each, of objects of these sizes."""
    labels = np.tile(np.arange(1, 31), (4, 1))
    items = Samples.from_labels([(labels, labels)] * len(diameters)).items
    sizes = zip(items, diameters, strict=True)
    return Samples([replace(i, diameter=float(d), pixel_um=pixel_um) for i, d in sizes])


def test_the_size_of_a_kind_comes_with_how_far_images_differ():
    one, alike = sized(20).taught_diameter(), sized(20, 21, 19, 20, 20).taught_diameter()
    assert one["px"] == alike["px"] == 20
    assert alike["spread"] < 0.6 * one["spread"]
    assert sized(12, 40, 20).taught_diameter()["spread"] > one["spread"]
    assert sized(5, 90, 20).taught_diameter() == {}, "there is no one size"
    assert sized(20, 20, pixel_um=0.5).taught_diameter()["um"] == 10
    first, second = sized(20, 30).items
    few = replace(second, known=second.labels == 1)
    assert Samples([first, second]).taught_diameter()["px"] == 25
    assert Samples([replace(first, source="a"), few]).taught_diameter()["px"] == 20


def test_a_speck_alone_in_its_plane_does_not_say_how_large_the_objects_of_a_volume_are():
    labels = np.zeros((20, 30, 30), np.uint8)
    labels[2:10, 3:11, 3:11], labels[2:10, 18:26, 3:11] = 1, 2
    known = np.ones(labels.shape, bool)
    size = labelled_diameter(labels, known, InstanceHead())
    labels[15, 20:22, 20:22] = 3
    known[10:15], known[16:] = False, False
    assert labelled_diameter(labels, known, InstanceHead()) == pytest.approx(size)
    known[:] = False
    known[4], known[7] = True, True  # sections that were corrected are measured as sections
    assert labelled_diameter(labels, known, InstanceHead()) == pytest.approx(
        (4 * 64 / np.pi) ** 0.5
    )
