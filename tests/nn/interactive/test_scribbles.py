"""A first segmentation from scribbles."""

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.metrics import evaluate
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT, divide_foreground, filter_image
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.interactive.scribbles import feature_steps, segment_scribbles
from napari_unet.nn.training.head_transfer import fresh_model
from tests.helpers.discs import disc_image


@pytest.fixture(scope="module")
def model():
    return fresh_model(ModelSpec(ndim=2, in_channels=3, depth=2, width=4), "any", "cpu", 0)


@pytest.fixture(scope="module")
def discs():
    image, labels = disc_image(20, 128)
    return image.astype(np.float32), labels


def strokes(labels):
    drawn = np.zeros(labels.shape, np.uint8)
    for row in range(10, 128, 32):
        drawn[row, :][labels[row] > 0] = OBJECT
    drawn[30:34][labels[30:34] == 0] = BACKGROUND
    return drawn


def test_a_few_strokes_find_all_objects_of_a_kind_that_the_model_does_not_know(model, discs):
    image, labels = discs
    features = run_to_end(feature_steps(open_stack(image), model))
    assert features.values.shape[1:] == image.shape
    found = segment_scribbles(features, strokes(labels))
    assert evaluate(found, labels, (0.7,)).ap[0] > 0.9
    assert np.array_equal(found, segment_scribbles(features, strokes(labels))), "is not repeatable"


def test_a_window_has_the_maps_of_the_whole_plane(model, discs):
    stack = open_stack(discs[0])
    whole = run_to_end(feature_steps(stack, model)).values[-4:]
    window = (slice(17, 90), slice(31, 128))
    part = run_to_end(feature_steps(stack, model, (), window)).values[-4:]
    np.testing.assert_allclose(part, whole[(slice(None), *window)], atol=0.01)


def test_both_kinds_of_scribble_are_asked_for(model, discs):
    features = run_to_end(feature_steps(open_stack(discs[0]), model))
    with pytest.raises(InputError, match="background in view"):
        segment_scribbles(features, (discs[1] > 0).astype(np.uint8) * OBJECT)
    with pytest.raises(InputError, match="an object in view"):
        segment_scribbles(features, (discs[1] == 0).astype(np.uint8) * BACKGROUND)


def test_volumes_and_huge_views_are_refused(discs):
    volumes = fresh_model(ModelSpec(ndim=3, depth=2, width=4), "deep", "cpu", 0)
    with pytest.raises(InputError, match="choose a 2D model"):
        run_to_end(feature_steps(open_stack(discs[0]), volumes))
    planes = fresh_model(ModelSpec(ndim=2, in_channels=1, depth=2, width=4), "flat", "cpu", 0)
    huge = open_stack(np.broadcast_to(np.float32(0), (3000, 3000)))
    with pytest.raises(InputError, match="zoom in"):
        run_to_end(feature_steps(huge, planes))


def test_objects_are_divided_at_necks_alike_at_every_size():
    y, x = np.mgrid[:64, :96]
    for radius in (8, 16):
        one = np.hypot(y - 32, x - 32) < radius
        other = np.hypot(y - 32, x - 32 - 1.7 * radius) < radius
        assert divide_foreground((one | other).astype(np.float32)).max() == 2
        assert divide_foreground(one.astype(np.float32)).max() == 1


def test_filters_say_what_is_bright_and_where_edges_are():
    image = np.zeros((1, 32, 32), np.float32)
    image[:, :, 16:] = 1
    values = filter_image(image)
    assert values.shape == (13, 32, 32)
    assert values[2, 16].argmax() in (15, 16)  # the gradient at the smallest scale
