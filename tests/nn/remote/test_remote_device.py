"""A server as a device, in a process of its own: equal labels, and lines that are slow or break."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from server_parts import TOKEN, ServerProcess, SlowLine

import napari_unet as nu
from napari_unet.cli import main
from napari_unet.core.errors import ConnectionLostError, DeviceError
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.progress import Stalled, TileDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.inference.remote import RemoteRunner
from napari_unet.nn.inference.segment import segment, segment_steps
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.remote import connection

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("aiohttp"), reason="needs the extra serve"
)
FIXED = PredictSettings(survey=False, tile=32, certify=False)


@pytest.fixture(scope="module")
def server():
    running = ServerProcess()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("NAPARI_UNET_TOKEN", TOKEN)
    monkeypatch.setattr(connection, "PAUSE", 0.05)


@pytest.fixture
def image():
    return (np.random.default_rng(0).random((90, 100)) * 900).astype(np.uint16)


SPECS = {
    "instance": {"gain": 6.0, "in_channels": 3, "depth": 1},
    "semantic": {"gain": 6.0, "head": "semantic", "classes": 3},
    "volume": {"gain": 6.0, "ndim": 3, "depth": 1},
}


@pytest.mark.parametrize("kind", SPECS)
def test_the_labels_are_those_of_a_local_run(server, make_model, image, kind):
    card = {"decode": {"min_size": 0}, "training": {"working_diameter_px": 12.0}}
    if kind == "semantic":
        card = {"training": card["training"]}
    save_model(make_model(card=card, **SPECS[kind]), "tiny")
    source = image if kind != "volume" else image[:60, :40].reshape(4, 20, 30)
    here, there = load_model("tiny", "cpu"), load_model("tiny", server.device)
    augment = "flips" if kind == "instance" else "off"
    rescaled = replace(FIXED, diameter=9.0, certify=True, augment=augment)
    if kind == "volume":  # whose size takes long to estimate
        rescaled = replace(FIXED, diameter=12.0, certify=True)
    for settings in (FIXED, rescaled) if kind != "volume" else (rescaled,):
        wanted = segment(source, here, settings)
        result = run_to_end(segment_steps(source, there, settings))
        assert wanted.max() > 1 and np.array_equal(result.labels, wanted)
    assert result.provenance["device"] == f"{server.device} (cpu)"
    assert result.provenance["seam"] < 1e-4
    assert TOKEN not in str(result.provenance)


def test_maps_sizes_and_volumes_from_planes(server, tiny_model, image):
    here, there = load_model(tiny_model, "cpu"), load_model(tiny_model, server.device)
    assert np.abs(predict(image, there, FIXED) - predict(image, here, FIXED)).max() < 1e-5
    volume, settings = image[:32, :24].reshape(4, 8, 24), replace(FIXED, volumes="orthogonal")
    assert np.array_equal(segment(volume, there, settings), segment(volume, here, settings))


def test_small_planes_are_sent_before_the_last_is_back(server, tiny_model, image, monkeypatch):
    here, there = load_model(tiny_model, "cpu"), load_model(tiny_model, server.device)
    stack, log, send = image[:80].reshape(8, 10, 100)[..., :30], [], RemoteRunner.send
    monkeypatch.setattr(RemoteRunner, "send", lambda *given: log.append("sent") or send(*given))
    settings = replace(FIXED, volumes="planes")
    steps = segment_steps(stack, there, settings)
    labels = run_to_end(steps, lambda step: log.append(type(step).__name__)).labels
    log = [word for word in log if word in ("sent", "TileDone")]
    assert np.array_equal(labels, segment(stack, here, settings))
    assert log[:2] == ["sent", "TileDone"], "the first waits for no other"
    assert log[2 : 2 + connection.LINES] == ["sent"] * connection.LINES
    assert log.count("sent") == log.count("TileDone") == 8


def test_clicks(server, clicking_model):
    save_model(clicking_model(), "clicker")
    y, x = np.ogrid[:120, :130]
    picture = ((y - 30) ** 2 + (x - 90) ** 2 < 100).astype(np.float32)
    masks = []
    for device in ("cpu", server.device):
        session = ClickSession(load_model("clicker", device), picture)
        masks.append(session.add(nu.Click((30, 90))))
    assert masks[0].sum() > 200 and np.array_equal(*masks)


def test_command_in_blocks_and_in_memory(server, tiny_model, image, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "image.tif", image)
    command = ["segment", str(tmp_path / "image.tif"), "--model", tiny_model, "--tile", "48"]
    outputs = {}
    for name in ("here.tif", "there.tif", "here.zarr", "there.zarr"):
        device = "cpu" if name.startswith("here") else server.device
        block = ["--block", "64"] if name.endswith("zarr") else []
        assert main([*command, str(tmp_path / name), "--device", device, *block]) == 0
        outputs[name] = np.asarray(read_labels(tmp_path / name))
        assert device in read_provenance(tmp_path / name)["device"]
        assert TOKEN not in str(read_provenance(tmp_path / name))
    assert outputs["here.tif"].max() > 1
    assert np.array_equal(outputs["here.tif"], outputs["there.tif"])
    assert np.array_equal(outputs["here.zarr"], outputs["there.zarr"])
    assert TOKEN not in "".join(capsys.readouterr())


def test_a_wrong_token_and_nobody_there(server, tiny_model, monkeypatch, capsys):
    monkeypatch.setenv("NAPARI_UNET_TOKEN", "another")
    with pytest.raises(DeviceError, match="does not know the token") as raised:
        load_model(tiny_model, server.device)
    assert "another" not in str(raised.value)
    monkeypatch.delenv("NAPARI_UNET_TOKEN")
    with pytest.raises(DeviceError, match="There is no token for the server"):
        load_model(tiny_model, server.device)
    monkeypatch.setenv("NAPARI_UNET_TOKEN", TOKEN)
    assert main(["segment", __file__, "x.tif", "--model", tiny_model, "--device", "remote:"]) == 2
    line = SlowLine(server.port, 1e9)
    line.cut()
    with pytest.raises(ConnectionLostError, match="does not answer"):
        load_model(tiny_model, line.device)


def test_a_server_that_is_killed_midway_and_comes_back(tiny_model, image):
    """The second process has neither the model nor anything else of the first."""
    first, second, reasons, tiles = ServerProcess(), None, set(), 0
    try:
        wanted = segment(image, load_model(tiny_model, "cpu"), FIXED)
        run = segment_steps(image, load_model(tiny_model, first.device), FIXED)

        def watch(step):
            nonlocal second, tiles
            tiles += isinstance(step, TileDone)
            if tiles == 3 and first.process.poll() is None:
                first.kill()
            if isinstance(step, Stalled) and step.reason:
                reasons.add(step.reason)
                second = second or ServerProcess(first.port)

        assert np.array_equal(run_to_end(run, watch).labels, wanted)
        (reason,) = {reason.partition(" (")[0] for reason in reasons}
        assert reason == f"lost the connection to 127.0.0.1:{first.port}"
    finally:
        for process in (first, second):
            if process is not None:
                process.close()


def test_a_line_that_stays_cut_keeps_the_finished_tiles(server, tiny_model, image, monkeypatch):
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    line, tiles = SlowLine(server.port, 1e9), []
    out = np.zeros(image.shape, np.uint32)
    run = segment_steps(image, load_model(tiny_model, line.device), FIXED, out=out)
    with pytest.raises(ConnectionLostError, match=r"was lost .* What is finished is kept"):
        for step in run:
            if isinstance(step, TileDone):
                tiles.append(step.window)
            if len(tiles) == 3:
                line.cut()
    finished = np.zeros(image.shape, bool)
    for window in tiles:
        finished[window] = True
    assert out[finished].any() and not out[~finished].any()


def test_a_slow_line_can_be_cancelled_at_any_moment(server, tiny_model, image):
    line = SlowLine(server.port, 1e9)
    model = load_model(tiny_model, line.device)
    wanted = segment(image, model, FIXED)
    line.rate = 3e3  # a tile takes seconds
    run = segment_steps(image, model, FIXED)
    began = time.monotonic()
    assert isinstance(next(run), Stalled)
    run.close()
    assert time.monotonic() - began < 2.0
    passed = line.passed
    line.rate = 1e9
    assert np.array_equal(segment(image, model, FIXED), wanted), "the server is free again"
    assert passed < line.passed
    line.cut()
