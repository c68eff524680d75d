"""Objects told apart where the network runs are those that the host finds.

There need not be a GPU: torch does on the processor what it does there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.progress import TileDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference import decode
from napari_unet.nn.inference.decode import decodes_on
from napari_unet.nn.inference.segment import segment_steps

RNG = np.random.default_rng(0)
SIZED = {"decode": {"min_size": 3}, "training": {"diameter_px": {"q50": 20.0}}}


def run(model, image, settings, **options):
    """Return the labels, what was shown of each tile, and the provenance."""
    shown = []
    steps = segment_steps(image, model, settings, **options)
    result = run_to_end(
        steps, lambda s: shown.append(s.labels) if isinstance(s, TileDone) else None
    )
    return result.labels, shown, result.provenance


@pytest.fixture
def both(monkeypatch):
    """Run a segmentation on the host, then as on a GPU, and count what torch was asked for."""

    def twice(model, image, settings=None, **options):
        settings, asked = settings or PredictSettings(), []
        host = run(model, image, settings, **options)
        find = decode.on_device.find_basins
        with monkeypatch.context() as patch:
            patch.setattr(decode, "decodes_on", lambda device: True)
            patch.setattr(decode.on_host, "find_basins", None)  # nobody may fall back on it
            patch.setattr(decode.on_device, "find_basins", lambda *a: asked.append(a) or find(*a))
            device = run(model, image, settings, **options)
        assert len(asked) == len(host[1]) == len(device[1]) > 0
        return host, device

    return twice


@pytest.mark.parametrize(
    ("spec", "shape", "tile"),
    [({}, (150, 131), 40), ({}, (96, 96), None), ({"ndim": 3}, (20, 37, 31), 16)],
)
def test_labels_previews_and_certificate_are_equal(make_model, both, spec, shape, tile):
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}}, **spec)
    image = ndimage.gaussian_filter(RNG.normal(size=shape), 2.5)
    host, device = both(model, image, PredictSettings(tile=tile), preview=True)
    assert host[0].max() > 5
    assert np.array_equal(host[0], device[0])
    for one, other in zip(host[1], device[1], strict=True):
        assert np.array_equal(one, other)
    assert host[2]["seam"] == device[2]["seam"]


@pytest.mark.parametrize("diameter", [11.0, 40.0])
@pytest.mark.parametrize(("spec", "shape"), [({}, (140, 121)), ({"ndim": 3}, (12, 45, 39))])
def test_rescaled_images_are_equal_too(make_model, both, diameter, spec, shape):
    model = make_model(gain=6.0, card=SIZED, **spec)
    image = ndimage.gaussian_filter(RNG.normal(size=shape), diameter / 8)
    settings = PredictSettings(diameter=diameter, tile=24, threshold=0.35, min_size=2)
    host, device = both(model, image, settings)
    assert host[0].max() > 2
    assert np.array_equal(host[0], device[0])


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.93])
def test_thresholds_are_the_same_on_both(make_model, both, threshold):
    model = make_model(gain=3.0, card={"decode": {"min_size": 0}})
    image = ndimage.gaussian_filter(RNG.normal(size=(90, 70)), 2.0)
    host, device = both(model, image, PredictSettings(threshold=threshold))
    assert np.array_equal(host[0], device[0])


def short_of_memory(*args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def broken(*args):
    raise RuntimeError("a bug")


def test_the_host_takes_over_where_the_device_lacks_memory(make_model, monkeypatch):
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}})
    image = ndimage.gaussian_filter(RNG.normal(size=(80, 90)), 2.5)
    expected, _, _ = run(model, image, PredictSettings(tile=48))
    monkeypatch.setattr(decode, "decodes_on", lambda device: True)
    monkeypatch.setattr(decode.on_device, "find_basins", short_of_memory)
    assert np.array_equal(run(model, image, PredictSettings(tile=48))[0], expected)
    monkeypatch.setattr(decode.on_device, "find_basins", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(model, image, PredictSettings(tile=48))


def test_classes_are_taken_on_the_host(make_model, monkeypatch):
    model = make_model(head="semantic", classes=3)
    image = RNG.random((40, 50))
    expected, _, _ = run(model, image, PredictSettings())
    monkeypatch.setattr(decode, "decodes_on", lambda device: True)
    assert np.array_equal(run(model, image, PredictSettings())[0], expected)


def test_only_cuda_decodes():
    assert decodes_on(torch.device("cuda:1"))
    assert not decodes_on(torch.device("cpu"))
    assert not decodes_on(torch.device("mps"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("diameter", [None, 11.0])
def test_a_gpu_gives_the_objects_of_the_host(make_model, monkeypatch, diameter):
    model = make_model(gain=6.0, card=SIZED).to("cuda")
    image = ndimage.gaussian_filter(RNG.normal(size=(600, 700)), 2.5)
    settings = PredictSettings(tile=128, diameter=diameter)
    device, _, provenance = run(model, image, settings)
    assert provenance["seam"] < 1e-3
    monkeypatch.setattr(decode, "decodes_on", lambda device: False)
    host, _, _ = run(model, image, settings)
    assert np.array_equal(host, device)
