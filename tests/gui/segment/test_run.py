"""Runs of the real engine from the panel, and the demo."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import SettingsError
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui import samples as demo
from napari_unet.gui.correct.edit_tracker import get_learner
from napari_unet.gui.jobs import engine
from napari_unet.gui.layers.image_settings import update_image_settings
from napari_unet.gui.layers.result_info import RESULT_KEY
from napari_unet.gui.segment import run


@pytest.fixture
def discs():
    y, x = np.mgrid[:90, :110]
    centres = [(20, 20), (20, 60), (60, 30), (64, 64), (45, 90)]
    image = np.zeros(y.shape, np.float32)
    for cy, cx in centres:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 100] = 1
    return image


def test_the_panel_gives_what_the_library_gives(viewer, real_panel, real, discs, finish):
    from napari_unet.nn.inference.segment import segment as plain

    stack = np.stack([discs, discs[::-1], np.zeros_like(discs)])
    viewer.add_image(stack, name="im", scale=(1, 0.5, 0.5), units=("um",) * 3)
    real_panel.run()
    finish(real_panel)
    layer = viewer.layers["im real"]
    assert np.array_equal(layer.data, plain(stack, real, PredictSettings(tile=32)))
    assert layer.data[0].max() == 5 and layer.data[2].max() == 0
    provenance = layer.metadata[RESULT_KEY]["passport"]
    assert provenance["seam"] <= 1e-4 and provenance["settings"]["tile"] == 32
    assert real_panel.status.text().startswith("7 objects in ")  # three go through z


def test_volumes(viewer, real_panel, threshold_model, discs, finish):
    threshold_model("volumes of discs", 3)
    real_panel.form.refresh_models()
    real_panel.form.model.value = "volumes of discs"
    stack = np.zeros((2, 6, *discs.shape), np.float32)
    stack[:, 1:5] = discs
    viewer.add_image(stack, name="im")
    viewer.dims.set_point((0, 1), (1, 2))
    real_panel.run()
    finish(real_panel)
    layer = viewer.layers["im volumes of discs"]
    assert real_panel.status.text().startswith("10 objects in ")
    for time in layer.data:
        assert np.unique(time).tolist() == [0, 1, 2, 3, 4, 5]
        assert (time[1] == time[4]).all() and not time[0].any()


def test_a_plane_for_a_model_of_volumes(viewer, real_panel, discs, finish):
    viewer.add_image(discs, name="im")
    real_panel.form.model.value = "volumes"
    real_panel.run()
    finish(real_panel)
    assert "'volumes' needs volumes, but 'im' has no z axis (YX)" in real_panel.status.text()
    assert len(viewer.layers) == 1


def test_a_model_is_loaded_once_and_again_when_it_has_changed(real):
    first = engine.loaded_model("real", "cpu")
    assert engine.loaded_model("real", "cpu") is first
    from napari_unet.nn.inference.model import save_model

    save_model(real, "real", overwrite=True)
    assert engine.loaded_model("real", "cpu") is not first


def test_a_device_that_is_not_there(viewer, real_panel, discs, finish):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    viewer.add_image(discs, name="im")
    real_panel.form.device.value = "cuda"
    real_panel.run()
    finish(real_panel)
    assert "'cuda' was asked for, but torch finds none" in real_panel.status.text()
    assert len(viewer.layers) == 1


def test_cancelling_the_real_engine_keeps_its_tiles(viewer, real_panel, discs, qtbot, finish):
    viewer.add_image(np.tile(discs, (1, 3, 3)).repeat(40, 0), name="im")
    real_panel.run()
    qtbot.waitUntil(lambda: real_panel.active.progress.done > 3)
    real_panel.cancel()
    finish(real_panel)
    layer = viewer.layers["im real"]
    assert layer.data.any() and layer.editable and not layer.data.all(axis=(1, 2)).any()
    assert real_panel.status.text().startswith("Cancelled; ")


def test_the_demo_runs_a_model_over_the_sample(viewer, real, monkeypatch, engine, finish):
    monkeypatch.setattr("napari_unet.gui.segment.panel.engine_steps", engine)
    panel = demo.open_demo(viewer, real.name)
    finish(panel)
    image, labels = viewer.layers
    assert labels.name.startswith(f"{image.name} ") and labels.data.shape == image.data.shape
    assert engine.request.settings.tile == demo.DEMO_TILE
    assert engine.request.model == real.name
    assert panel.form.advanced.values()["tile"] is None


def test_the_demo_refuses_a_model_that_is_not_there(viewer):
    with pytest.raises(SettingsError, match="choose one of: nuclei"):
        demo.open_demo(viewer, "mitochondria")


def test_the_demo_opens_a_window_of_its_own(monkeypatch, make_napari_viewer, models, engine):
    import napari

    calls = []
    monkeypatch.setattr("napari_unet.gui.segment.panel.engine_steps", engine)
    monkeypatch.setattr(napari, "Viewer", lambda **_: make_napari_viewer())
    monkeypatch.setattr(napari, "run", lambda: calls.append("run"))
    demo.run_demo()
    assert calls == ["run"]


@pytest.mark.parametrize("way", ["planes", "joined", "orthogonal"])
def test_stacks_in_three_ways_are_as_by_library(viewer, real_panel, real, discs, finish, way):
    from napari_unet.core.io.stack import open_stack
    from napari_unet.nn.inference.segment import segment as plain

    data = np.stack([np.zeros_like(discs), discs, discs, discs, np.zeros_like(discs)])
    viewer.add_image(data, name="im", scale=(2, 0.5, 0.5), units=("um",) * 3)
    real_panel.form.advanced.restore({"tile": 32, "volumes": way})
    real_panel.run()
    finish(real_panel)
    layer, stack = viewer.layers["im real"], open_stack(data, "ZYX", (2, 0.5, 0.5))
    expected = plain(stack, real, PredictSettings(tile=32, volumes=way))
    assert expected.any() and np.array_equal(layer.data, expected)
    provenance = layer.metadata[RESULT_KEY]["passport"]
    assert provenance["volumes"] == way
    assert provenance["object_axes"] == ("YX" if way == "planes" else "ZYX")
    assert get_learner(layer, "real").ndim == 2  # the model of planes learns what is corrected
    provenance["model_hash"] = "of a version that is gone"
    assert get_learner(layer, "real").ndim == 2
    provenance["settings"]["channel"] = 2
    update_image_settings(viewer.layers["im"], channel=1)  # chosen since, or for labels by hand
    assert get_learner(layer, "real", viewer.layers["im"]).channel == 2
    drawn = viewer.add_labels(np.zeros(data.shape, np.uint8))
    assert get_learner(drawn, "real", viewer.layers["im"]).channel == 1


def test_the_rate_is_told_from_the_second_tile_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    speed = run.Eta()
    assert speed.describe(Progress(0, 0, "loading the model")) == "Loading the model …"
    now[0] = 103.0  # loading took its time
    speed.tick(1)
    assert speed.describe(Progress(1, 9, "tiles")) == "1 of 9 tiles"
    now[0] = 104.0
    speed.tick(3)
    assert speed.describe(Progress(3, 9, "tiles")) == "3 of 9 tiles · 2.0 tiles/s · 0:03 left"
    assert speed.seconds == 4.0
