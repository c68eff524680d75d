"""A window, a panel in it, and engines whose steps the tests know."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from click_parts import Window

from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.store import put_model
from napari_unet.core.progress import FrameDone, TileDone
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.gui.jobs import job


def job_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("napari-unet job")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    job.stop_all()
    assert job_threads() == []


@dataclass
class FakeEngine:
    """Labels each tile with its number, 2 x 2 tiles a frame; can be held, and can fail.

    It stops before tile `hold` until `wait` is set, and fails before tile `fail_at`.
    """

    wait: threading.Event = field(default_factory=threading.Event)
    hold: int | None = None
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: RuntimeError("the device is on fire"))
    offset: int = 0
    closed: int = 0
    request: object = None
    frames: list = field(default_factory=list)
    focus: list = field(default_factory=list)

    def __call__(self, stack, request, *, out, focus, what, window, features):
        self.request, done = request, 0
        self.window = window
        try:
            for index in what:
                self.frames.append(index)
                for tile in tiles_of(stack.frame_shape(request.ndim), window):
                    self._pause(done)
                    self.focus.append(focus())
                    done += 1
                    labels = np.full([t.stop - t.start for t in tile], done + self.offset)
                    out[(*index, *tile)] = labels
                    total = 4 * len(what)
                    shown = labels.astype(np.uint16)
                    yield TileDone(done, total, "tiles", index, tile, shown)
                yield FrameDone(done, 4 * len(what), "frames", index, 4)
        finally:
            self.closed += 1
        provenance = {"seam": 1.5e-6, "device": "cpu", "precision": "float32"}
        return SimpleNamespace(labels=out, objects=done, provenance=provenance)

    def _pause(self, done: int) -> None:
        if done == self.fail_at:
            raise self.error
        while done == self.hold and not self.wait.is_set():
            time.sleep(0.005)


def tiles_of(shape, window):
    window = window or tuple(slice(0, n) for n in shape)
    *depth, y, x = window
    middle_y, middle_x = (y.start + y.stop) // 2, (x.start + x.stop) // 2
    for rows in (slice(y.start, middle_y), slice(middle_y, y.stop)):
        for columns in (slice(x.start, middle_x), slice(middle_x, x.stop)):
            yield (*depth, rows, columns)


@pytest.fixture
def engine():
    fake = FakeEngine()
    yield fake
    fake.wait.set()


@pytest.fixture
def models(home):
    """Two models in the store, of planes and of volumes; the fake engine needs no weights."""
    for name, ndim in (("cells", 2), ("volumes", 3)):
        card = ModelCard(name=name, spec=ModelSpec(ndim=ndim, in_channels=1, depth=1, width=1))
        put_model(name, card, {"weight": np.zeros(1, np.float16)})


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def panel(viewer, models, engine):
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    panel.engine = engine
    panel.form.model.value = "cells"
    return panel


@pytest.fixture
def finish(qtbot):
    """Wait until a panel's run is over."""

    def wait(panel, timeout=10_000):
        qtbot.waitUntil(lambda: panel.active is None, timeout=timeout)

    return wait


@pytest.fixture
def threshold_model():
    """Store a tiny model that takes bright pixels for objects."""

    def make(name, ndim, **card):
        import torch

        from napari_unet.core.models.card import ModelCard
        from napari_unet.core.settings.model_spec import ModelSpec
        from napari_unet.nn.inference.model import Model, save_model
        from napari_unet.nn.unet.net import UNet

        spec = ModelSpec(ndim=ndim, in_channels=1, depth=1, width=2, convs=1, norm="none")
        net = UNet(spec).eval()
        with torch.no_grad():
            for weight in net.parameters():
                weight.zero_()
            middle = (0, 0, *(1,) * ndim)
            net.encoder[0].units[0].conv.weight[middle] = 1
            net.decoder[0].units[0].conv.weight[middle] = 1
            net.head.weight[:, 0] = torch.tensor([20.0, 1.0]).reshape(2, *(1,) * ndim)
            net.head.bias[0] = -10
        decode = {"threshold": 0.5, "merge": 0.1, "min_size": 5}
        card = ModelCard(name, spec, decode=decode, **card)
        model = Model(card, net, torch.device("cpu"))
        save_model(model, name)
        return model

    return make


@pytest.fixture
def real(models, threshold_model):
    return threshold_model("real", 2)


@pytest.fixture
def real_panel(viewer, real):
    """The Segment panel with a model that finds bright discs, and small tiles."""
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    panel.form.refresh_models()
    panel.form.model.value = "real"
    panel.form.device.value = "cpu"
    panel.form.advanced.restore({"tile": 32})
    return panel


@pytest.fixture
def clicker(clicking_model, home):
    """Store a model with a click head."""
    from napari_unet.nn.inference.model import save_model

    save_model(clicking_model(name="clicker"), "clicker")


@pytest.fixture
def window(make_napari_viewer, clicker, qtbot):
    """Open a window with the Click panel over an image."""

    def opened(image=None, **place):
        return Window(make_napari_viewer(show=True), qtbot, image, **place)

    return opened
