"""Settings refuse at once what they cannot use."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import ModelError, SettingsError
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import PredictSettings


@pytest.mark.parametrize("name", ["tile", "channel", "batch", "min_size", "seed"])
def test_whole_numbers_are_whole(name):
    with pytest.raises(SettingsError, match=f"{name} is 20.5; give a whole number"):
        PredictSettings(**{name: 20.5})
    for given in (20.0, np.int64(20)):
        value = getattr(PredictSettings(**{name: given}), name)
        assert value == 20
        assert type(value) is int


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": True}, "tile is True; give a number"),
        ({"tile": "64"}, "tile is '64'; give a number"),
        ({"threshold": float("nan")}, "between 0.01 and 0.99"),
        ({"batch": float("inf")}, "give a whole number"),
        ({"seed": None}, "seed is None; give a number"),
        ({"precision": "int8"}, "choose one of: auto, float32"),
    ],
)
def test_settings_refuse(settings, message):
    with pytest.raises(SettingsError, match=message):
        PredictSettings(**settings)


@pytest.mark.parametrize("spec", [{"depth": 2.5}, {"pooling": [["a", "b"]]}, {"pooling": 3}])
def test_a_spec_from_a_file_is_checked(spec):
    with pytest.raises(ModelError, match="The model's spec cannot be used"):
        ModelSpec.from_json(spec)


def test_a_spec_survives_json():
    spec = ModelSpec(ndim=3, depth=2, pooling=((1, 2, 2), (2, 2, 2)))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert type(ModelSpec.from_json({"depth": 3.0}).depth) is int


def test_kernels_of_each_level_survive_json_and_are_checked():
    spec = ModelSpec(ndim=3, depth=1, kernels=((1, 3, 3), (3, 3, 3)))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.kernel_at(0) == (1, 3, 3) and ModelSpec(depth=1).kernel_at(1) == (3, 3)
    for wrong in (((1, 3, 3),), ((1, 3), (3, 3)), ((2, 3, 3), (3, 3, 3))):
        with pytest.raises(SettingsError, match="give 2 tuples of 3 odd numbers"):
            ModelSpec(ndim=3, depth=1, kernels=wrong)


def test_a_spec_from_before_there_were_kernels_can_be_read():
    values = ModelSpec(ndim=3, depth=2).to_json()
    del values["kernels"]
    assert ModelSpec.from_json(values) == ModelSpec(ndim=3, depth=2)
