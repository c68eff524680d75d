"""What settings leave open is filled in; what is resolved already stays."""

from __future__ import annotations

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import LEAST_MINUTES, TrainSettings
from napari_unet.core.training.config import TrainConfig, resolve_config


def test_slow_steps_of_volumes_take_smaller_crops():
    spec = ModelSpec(ndim=3, depth=2, width=4)
    config = resolve_config(TrainSettings(crop=128, batch=2), spec, None)
    sizes = []
    while not sizes or sizes[-1] != (config.batch, config.planes, config.crop):
        sizes.append((config.batch, config.planes, config.crop))
        config = config.with_faster_steps()
    assert sizes == [(2, 64, 128), (1, 64, 128), (1, 32, 64), (1, 16, 32)]
    planes = resolve_config(TrainSettings(batch=2), ModelSpec(), None)
    assert planes.with_faster_steps() is planes


def test_a_config_is_left_as_it_is():
    spec = ModelSpec(in_channels=1, depth=1, width=4)
    config = resolve_config(TrainSettings(), spec, None)
    assert (config.steps, config.batch, config.crop, config.learning_rate) == (4000, 8, 192, 2e-3)
    assert resolve_config(config, spec, None) is config
    flat = ModelSpec(ndim=3, depth=2, pooling=((1, 2, 2), (2, 2, 2)))
    volume = resolve_config(TrainSettings(), flat, None)
    assert (volume.planes, volume.crop) == (16, 64)


def test_a_share_of_the_shortest_training_is_no_error() -> None:
    assert TrainConfig(minutes=LEAST_MINUTES).minutes_of(0.15) == LEAST_MINUTES
    assert TrainConfig(minutes=2.0).minutes_of(0.5) == 1.0
    assert TrainConfig(steps=3).minutes_of(0.5) is None
