"""The size of the objects: asked for in pixels or micrometres, or found in the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from discs import disc_image, nested_image

from napari_unet.core.errors import SettingsError
from napari_unet.core.evaluation.metrics import evaluate
from napari_unet.core.image.diameters import median_diameter
from napari_unet.core.image.frames import Frame
from napari_unet.core.io.sample_images import blobs
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.diameter_estimation import (
    ESTIMATING,
    estimate_diameter,
    resolve_diameter,
)
from napari_unet.nn.inference.model import load_model
from napari_unet.nn.inference.model_input import get_voxel_ratio, open_frame
from napari_unet.nn.inference.scale_trials import (
    ScaleTrial,
    check_consistency,
    choose_part,
    try_scale,
)
from napari_unet.nn.inference.second_size import count_held, find_second_size
from napari_unet.nn.inference.segment import segment_steps
from napari_unet.nn.unet.net import UNet


@pytest.fixture(scope="module")
def nuclei():
    return load_model("nuclei", "cpu")


@pytest.mark.parametrize("diameter", [9, 20, 50, 90])
def test_the_size_is_found(nuclei, diameter):
    image, labels = disc_image(diameter)
    found = estimate_diameter(open_stack(image), nuclei)
    assert found == pytest.approx(median_diameter(labels), rel=0.25)


@pytest.mark.parametrize("diameter", [9, 60])
def test_objects_of_any_size_are_found_without_asking(nuclei, diameter):
    image, labels = disc_image(diameter)
    result = run_to_end(segment_steps(image, nuclei))
    assert evaluate(result.labels, labels, (0.5,)).ap[0] > 0.9
    provenance = result.provenance
    assert provenance["settings"]["diameter"] is None
    assert provenance["diameter_px"] == pytest.approx(diameter, rel=0.25)
    assert provenance["scale"] == pytest.approx(nuclei.diameter / provenance["diameter_px"])


def test_a_stack_without_frames_has_no_objects_to_look_at(nuclei):
    labels = run_to_end(segment_steps(np.zeros((0, 60, 60), np.uint8), nuclei)).labels
    assert labels.shape == (0, 60, 60)


def test_objects_are_looked_for_where_they_are(nuclei):
    image = np.random.default_rng(0).normal(0, 3, (1800, 1800))
    part, labels = disc_image(20, 300)
    image[100:400, 1400:1700] += part
    found = estimate_diameter(open_stack(image), nuclei)
    assert found == pytest.approx(median_diameter(labels), rel=0.25)


def test_nothing_to_find_leaves_the_image_as_it_is(nuclei):
    flat = open_stack(np.zeros((64, 64)))
    assert estimate_diameter(flat, nuclei) == 0
    assert resolve_diameter(flat, nuclei, PredictSettings())[0].diameter == nuclei.diameter


def test_it_can_be_stopped_between_two_trials(nuclei, monkeypatch):
    noise = open_stack(np.random.default_rng(0).normal(0, 3, (200, 200)))
    scales = []

    def counting(*values, **options):
        scales.append(values[1])
        return try_scale(*values, **options)

    monkeypatch.setattr("napari_unet.nn.inference.diameter_estimation.try_scale", counting)
    steps = segment_steps(noise, nuclei)
    assert next(steps).what == ESTIMATING and scales == [1]
    assert next(steps).what == ESTIMATING and scales == [1, 0.25]  # the first is not made twice
    steps.close()
    assert len(scales) == 2


@pytest.fixture
def passes(monkeypatch):
    """The shapes of what goes through any network."""
    seen, levels = [], UNet._levels

    def counted(net, x, core, **options):
        seen.append(tuple(x.shape[2:]))
        return levels(net, x, core, **options)

    monkeypatch.setattr(UNet, "_levels", counted)
    return seen


@pytest.mark.parametrize("size", [(64, 64), (70, 90)])
def test_a_small_image_is_not_computed_again_after_the_look_at_it(nuclei, passes, size):
    image = blobs(size)
    looked = run_to_end(segment_steps(image, nuclei)).labels
    assert passes == [size]
    settings = PredictSettings(diameter=nuclei.diameter, survey=False)
    told = run_to_end(segment_steps(image, nuclei, settings)).labels
    assert len(passes) == 2 and looked.any() and np.array_equal(looked, told)


def test_a_small_image_is_not_computed_again_at_another_scale(nuclei, passes):
    settings = PredictSettings(
        diameter=nuclei.diameter / 2
    )  # 60 px become 120, which are read whole
    looked = run_to_end(segment_steps(disc_image(11, 60)[0], nuclei, settings)).labels
    count, plain = len(passes), replace(settings, survey=False)
    assert passes[0] == (120, 120) and passes.count((120, 120)) == count == 2, "turned, too"
    told = run_to_end(segment_steps(disc_image(11, 60)[0], nuclei, plain)).labels
    assert len(passes) == count + 1 and looked.any() and np.array_equal(looked, told)


def test_where_the_size_is_told_other_scales_are_looked_at_only_if_it_shows_nothing(passes):
    general = load_model("general", "cpu")
    image, told = blobs((64, 64)), PredictSettings(diameter=22)
    assert resolve_diameter(open_stack(image), general, told)[1] == ()
    assert passes == [(64, 64), (64, 64)], "straight and turned"
    passes.clear()
    wrong = PredictSettings(diameter=90)
    _, remarks = resolve_diameter(open_stack(image), general, wrong)
    assert any(remark.diameter and remark.diameter < 40 for remark in remarks)
    assert len(passes) > 6
    # Other scales have been looked at in between, and the image's own is still there.
    run_to_end(segment_steps(blobs((96, 96)), general, PredictSettings()))
    assert passes.count((96, 96)) == 2


def test_of_a_small_frame_the_part_is_chosen_in_one_reading(nuclei, monkeypatch):
    image = blobs((300, 280))
    image[:, 150:] = 200
    frame = open_frame(open_stack(image), nuclei, PredictSettings(), ())
    reads, read = [], Frame.read
    monkeypatch.setattr(Frame, "read", lambda *args: reads.append(args[1]) or read(*args))
    part, window = choose_part(frame, 1.0)
    assert len(reads) == 1 and window[1].start == 0
    np.testing.assert_array_equal(part, read(frame, tuple(window)))
    reads.clear()
    choose_part(frame.at(8.0), 1.0)  # 2400 x 2240 px, of which 16 windows of 256 px are less
    assert len(reads) == 16


def test_micrometres_become_pixels_of_the_image(nuclei):
    stack = open_stack(np.ones((8, 8)), voxel_size_um=(1, 0.5, 0.5))
    settings, _ = resolve_diameter(stack, nuclei, PredictSettings(diameter_um=12))
    assert settings.diameter == 24
    with pytest.raises(SettingsError, match="give the diameter in pixels"):
        resolve_diameter(open_stack(np.ones((8, 8))), nuclei, PredictSettings(diameter_um=12))
    with pytest.raises(SettingsError, match="give one of them"):
        PredictSettings(diameter=5, diameter_um=3)


def test_the_smallest_size_follows_the_scale(nuclei):
    stack, least = open_stack(np.ones((8, 8))), nuclei.decoding.min_size
    twice, _ = resolve_diameter(stack, nuclei, PredictSettings(diameter=2 * nuclei.diameter))
    assert twice.min_size == 4 * least
    assert resolve_diameter(stack, nuclei, PredictSettings(min_size=7))[0].min_size == 7


def test_objects_in_long_voxels_have_their_diameter_in_the_plane(make_model):
    image = np.random.default_rng(0).random((6, 24, 24))
    stack = open_stack(image, axes="ZYX", voxel_size_um=(4.0, 0.5, 0.5))
    found = []
    for ratio in ({}, {"voxel_ratio": 2.0}):  # of a model that was taught in unknown voxels, too
        card = {"training": {"working_diameter_px": 5.0, **ratio}}
        model = make_model(ndim=3, depth=1, gain=6.0, card=card)
        frame = open_frame(stack, model, PredictSettings(), ())
        found.append(try_scale(frame, 1.0, model, PredictSettings()).diameter)
    assert found[0] and found[1] == pytest.approx(2 * found[0])
    bare = open_stack(image, axes="ZYX")
    assert get_voxel_ratio(model, stack) == 8 and get_voxel_ratio(model, bare) == 2


def test_a_model_that_knows_no_size_leaves_images_alone(make_model):
    model = make_model()
    stack = open_stack(np.random.default_rng(0).random((40, 40)))
    assert estimate_diameter(stack, model) == 0
    assert resolve_diameter(stack, model, PredictSettings())[0].diameter is None


def test_what_is_found_in_the_turned_image_counts():
    statistics = {"peak": 0.8, "certainty": 0.9}
    steady, chance = (
        ScaleTrial(2.0, 11.0, 20, statistics, 0.9),
        ScaleTrial(0.5, 44.0, 20, statistics, 0.4),
    )
    assert steady.quality(22.0) == pytest.approx(chance.quality(22.0) + 1)


def test_discs_are_found_again_in_the_turned_image_but_noise_is_not(nuclei):
    settings = PredictSettings()
    trials = []
    for image in (disc_image(20)[0], np.random.default_rng(0).normal(0, 3, (400, 400))):
        frame = open_frame(open_stack(image), nuclei, settings, ())
        trial = try_scale(frame, 1.0, nuclei, settings)
        trials.append(check_consistency(trial, nuclei, settings))
    assert trials[0].consistency > 0.9
    assert trials[1].consistency < 0.6


def test_two_sizes_are_named_and_the_one_that_was_told_is_not_doubted(nuclei):
    stack = open_stack(nested_image(20, 74))
    settings, remarks = resolve_diameter(stack, nuclei, PredictSettings())
    two = next(remark for remark in remarks if remark.sizes)
    assert two.sizes == pytest.approx((74, 20), rel=0.15)
    assert two.sizes[0] == pytest.approx(settings.diameter, abs=0.1)
    assert two.text.startswith("21 px or 7") and two.diameter is None
    frame = open_frame(stack, nuclei, PredictSettings(), ())
    held = count_held(frame, 20, 74, nuclei, PredictSettings())
    assert len(held) > 5 and held.min() >= 0 and held[held > 0].mean() <= 1.1
    _, told = resolve_diameter(stack, nuclei, PredictSettings(diameter=20))
    assert not any(remark.sizes or remark.diameter for remark in told)


@pytest.mark.parametrize(
    ("clear", "held", "named"),
    [
        (6, (0, 1, 1, 1), 30),  # a nucleus in each cell
        (6, (0, 1, 1, 0), 0),  # by accident
        (6, (2, 3, 1, 2), 0),  # clumps
        (60, (), 30),  # more of them than of the size that was taken
    ],
)
def test_clumps_and_pieces_are_no_second_size(nuclei, monkeypatch, clear, held, named):
    statistics = {"peak": 0.8, "certainty": 0.9}
    taken = ScaleTrial(2.0, 10.0, 20, statistics, 0.9, 20, 10.0)
    other = ScaleTrial(0.7, 30.0, 60, statistics, 0.9, clear, 30.0)
    module = "napari_unet.nn.inference.second_size"
    monkeypatch.setattr(f"{module}.count_held", lambda *_: np.array(held, int))
    frame = open_frame(open_stack(np.zeros((9, 9))), nuclei, PredictSettings(), ())
    found = find_second_size([taken, other], 10.0, frame, nuclei, PredictSettings())
    assert found == named
