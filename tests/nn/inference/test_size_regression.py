"""How large objects are by the look of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from discs import disc_image

from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.folder import read_model, write_model
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.diameter_estimation import estimate_diameter
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.scale_trials import try_scale
from napari_unet.nn.inference.size_regression import LARGEST_ERROR, SizeRegressor
from napari_unet.nn.training.calibrate import fit_size_regressor


@pytest.fixture(scope="module")
def nuclei():
    return load_model("nuclei", "cpu")


@pytest.fixture(scope="module")
def samples():
    return Samples.from_labels([disc_image(d, 192, seed=d) for d in (12, 18, 26, 40)])


@pytest.fixture(scope="module")
def sized(nuclei, samples):
    return replace(nuclei, size=fit_size_regressor(nuclei, samples))


def test_a_linear_rule_is_learned():
    rng = np.random.default_rng(0)
    features = rng.normal(3, [1, 2, 5], (400, 3)).astype(np.float32)
    errors = 0.3 * (features[:, 0] - 3) - 0.1 * (features[:, 2] - 3)
    regressor = SizeRegressor.fit(features, errors, np.ones(400))
    seen = [regressor(row) for row in features]
    assert np.corrcoef(seen, np.clip(errors, -LARGEST_ERROR, LARGEST_ERROR))[0, 1] > 0.99
    assert abs(regressor(features[0] + 1000)) == pytest.approx(LARGEST_ERROR)


def test_the_summary_of_features_comes_with_the_maps_of_a_plain_run(nuclei):
    tile = torch.rand(3, 50, 70)
    runner = nuclei.runner()
    (maps,), summary = runner.summary(tile[None])
    torch.testing.assert_close(maps, runner(tile[None])[0])
    assert summary.shape == (2 * sum(nuclei.spec.widths),)
    assert torch.equal(runner.maps(tile), maps)
    with torch.inference_mode():
        coarsest, *_ = runner.net.pyramid(tile[None])
        wanted = (coarsest[0].mean((1, 2)), coarsest[0].std((1, 2), correction=0))
    torch.testing.assert_close(summary[: 2 * nuclei.spec.widths[-1]], torch.cat(wanted))


def test_the_size_is_told_at_any_zoom(sized, samples):
    for sample in samples.items:
        frame = open_frame(open_stack(sample.image, axes="CYX"), sized, PredictSettings(), ())
        right = sized.diameter / sample.diameter
        for zoom in (0.5, 1.0, 2.0):
            trial = try_scale(frame, right * zoom, sized, PredictSettings())
            assert trial.expected == pytest.approx(sample.diameter, rel=0.35)
    # The learned look outweighs what is found at a wrong scale.
    found = estimate_diameter(open_stack(samples.items[3].image, axes="CYX"), sized)
    assert found == pytest.approx(samples.items[3].diameter, rel=0.25)


def test_it_is_stored_with_the_model(sized, tmp_path):
    again = load_model(save_model(sized, tmp_path / "sized"), "cpu")
    for name, values in sized.size.to_arrays().items():
        np.testing.assert_array_equal(again.size.to_arrays()[name], values)
    assert again.to("cpu").size is again.size
    card, arrays = read_model(tmp_path / "sized")
    arrays["size/weight"] = arrays["size/weight"][:5]
    write_model(tmp_path / "other", card, arrays)
    assert load_model(tmp_path / "other", "cpu").size is None
