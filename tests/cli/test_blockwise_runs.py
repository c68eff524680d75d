"""Runs in blocks as a user starts them: killed, on a cluster, over the network, with faults."""

from __future__ import annotations

import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_unet.cli import main
from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.errors import InputError
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.blockwise.plan import BlockwiseRequest
from napari_unet.nn.blockwise.run import BlockDone, segment_blocks
from napari_unet.nn.inference.model import load_model, save_model

DRIVER = Path(__file__).parents[1] / "helpers/drive_blockwise_run.py"


def texture(*shape, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return np.uint16(1000 + 20000 * np.clip(noise, -0.05, 1))


def write_ome_zarr(path, image, levels=2, scale=(0.5, 0.25), unit="micrometer", chunks=(64, 64)):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    data = []
    for level in range(levels):
        part = image[:: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=chunks, dimension_names=["y", "x"])
        step = [{"type": "scale", "scale": [float(s) * 2**level for s in scale]}]
        data.append({"path": str(level), "coordinateTransformations": step})
    axes = [{"name": a, "type": "space", "unit": unit} for a in "yx"]
    images = [{"name": "image", "axes": axes, "datasets": data}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": images}
    return path


@pytest.fixture
def image(tmp_path):
    return write_ome_zarr(tmp_path / "cells.zarr", texture(200, 190))


def segment_it(*arguments):
    return main(["segment", *map(str, arguments), "--no-survey"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children that are forked")
@pytest.mark.parametrize(("shape", "block"), [((300, 300), "64"), ((12, 300, 300), "300")])
def test_kills_at_any_moment_change_nothing(make_model, tmp_path, shape, block):
    save_model(make_model(gain=6.0, card={"decode": {"min_size": 0}}), tmp_path / "model")
    np.save(tmp_path / "image.npy", texture(*shape))
    names = ("image.npy", "model", "labels.zarr", "whole.zarr")
    delays = [str(delay) for delay in np.random.default_rng(0).uniform(0.05, 0.5, 3)]
    command = [sys.executable, DRIVER, *(tmp_path / name for name in names), block, *delays]
    driver = subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert int(driver.stdout) >= 2
    found, wanted = (open_stack(tmp_path / name).data[:] for name in names[2:])
    assert wanted.max() > 20
    assert np.array_equal(found, wanted)
    assert not [entry for entry in os.listdir(tmp_path) if "unfinished" in entry]


def test_labels_go_into_the_image_unless_told_otherwise(image, tiny_model, capsys):
    assert segment_it(image, "--model", tiny_model, "--block", 64) == 0
    out, err = capsys.readouterr()
    assert f"labels of {image}: " in out
    assert "12 blocks on cpu: about " in err
    assert open_stack(image / "labels" / tiny_model).voxel_size_um == (1.0, 0.5, 0.25)
    assert segment_it(image, "--model", tiny_model) == 2
    assert segment_it(image, "--model", tiny_model, "--resume") == 0


@pytest.mark.parametrize("name", ["../../out", "/out", "..", "", "a/b"])
def test_a_model_s_name_leads_nowhere_else(image, tmp_path, name):
    """A model comes from a stranger, and labels inside an image are named after it."""
    path = OutputLocation.resolve(None, image, name).path
    assert path.parent == image / "labels"
    assert path.resolve().parent == (image / "labels").resolve()
    assert OutputLocation.resolve(None, image, "nuclei 2.1").path.name == "nuclei 2.1"


def test_a_coarser_level(image, tmp_path, tiny_model, capsys):
    target = tmp_path / "labels.zarr"
    assert segment_it(image, target, "--model", tiny_model, "--level", 1) == 0
    labels = open_stack(target)
    assert labels.labels_shape == (100, 95)
    assert labels.voxel_size_um == (1.0, 1.0, 0.5)
    assert segment_it(image, tmp_path / "o.zarr", "--model", tiny_model, "--level", 2) == 2
    assert "level 2 is not in the image; choose 0 to 1" in capsys.readouterr().err


def test_blocks_become_a_zarr(image, tmp_path, tiny_model, capsys):
    assert segment_it(image, tmp_path / "a.tif", "--model", tiny_model, "--resume") == 2
    assert "ends with .zarr" in capsys.readouterr().err


def test_a_damaged_chunk_is_reported_and_the_rest_done(
    image, tmp_path, tiny_model, capsys, monkeypatch
):
    monkeypatch.setattr("napari_unet.core.io.lazy_arrays.PAUSE", 0)
    chunk = image / "0" / "c" / "2" / "2"
    chunk.write_bytes(b"damaged" + chunk.read_bytes()[7:50])
    target = tmp_path / "labels.zarr"
    assert segment_it(image, target, "--model", tiny_model, "--block", 64) == 2
    err = capsys.readouterr().err
    assert "left empty: block at (128, 128)" in err
    assert "could not be read and left empty; --resume tries again" in err
    labels = open_stack(target).data[:]
    assert labels[:60, :60].any()
    assert not labels[128:192, 128:].any()
    assert [128, 128] in read_provenance(target)["failed_blocks"]


@pytest.mark.parametrize(
    ("scale", "unit", "size"),
    [
        ((0.5, 250.0), "micrometer", (1.0, 0.5, 250.0)),
        ((0.0, 1.0), "micrometer", None),
        ((0.5, 0.25), "parsec", None),
        ((0.5, 0.25), None, None),
    ],
)
def test_odd_metadata_do_not_stop_a_run(tmp_path, tiny_model, scale, unit, size):
    path = write_ome_zarr(tmp_path / "odd.zarr", texture(60, 60), 1, scale, unit)
    target = tmp_path / "labels.zarr"
    assert segment_it(path, target, "--model", tiny_model) == 0
    assert open_stack(target).voxel_size_um == size


def test_axes_of_different_units(tmp_path):
    path = write_ome_zarr(tmp_path / "mixed.zarr", texture(60, 60), 1, (500.0, 0.25))
    group = zarr.open_group(str(path))
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["axes"][0]["unit"] = "nanometer"
    group.attrs["ome"] = ome
    assert open_stack(path).voxel_size_um == (1.0, 0.5, 0.25)


@pytest.fixture
def server(tmp_path):
    """Serves the test's folder over HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_an_address_is_read_over_http(image, tmp_path, tiny_model, server, capsys):
    pytest.importorskip("aiohttp")
    stack = open_stack(f"{server}/cells.zarr")
    assert (stack.axes, stack.voxel_size_um, stack.name) == ("YX", (1.0, 0.5, 0.25), "cells")
    here, there = tmp_path / "here.zarr", tmp_path / "there.zarr"
    options = ["--model", tiny_model, "--block", "128"]
    assert segment_it(image, here, *options) == 0
    assert segment_it(f"{server}/cells.zarr", there, *options) == 0
    assert np.array_equal(open_stack(here).data[:], open_stack(there).data[:])
    capsys.readouterr()
    assert segment_it(f"{server}/nothing.zarr", tmp_path / "x.zarr", *options) == 2
    assert "cannot be read as Zarr" in capsys.readouterr().err
    assert segment_it(f"{server}/cells.zarr", *options) == 2
    assert "give an output" in capsys.readouterr().err


def test_an_address_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"pip install 'napari-unet\[remote\]'"):
        open_stack("s3://bucket/image.zarr")
    with pytest.raises(InputError, match="give http://"):
        open_stack("gopher://bucket/image.zarr")


def test_a_full_disk_keeps_the_finished_blocks(image, tmp_path, tiny_model, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    options = ["--model", tiny_model, "--block", 64]
    with monkeypatch.context() as patch:
        patch.setattr("napari_unet.core.io.ome_zarr_labels.LabelImage.sync", full)
        assert segment_it(image, tmp_path / "labels.zarr", *options) == 2
    *_, kept, error = capsys.readouterr().err.splitlines()
    assert "finished blocks are kept; --resume goes on" in kept
    assert "labels.zarr cannot be written: No space left on device; free some space" in error
    assert segment_it(image, tmp_path / "labels.zarr", *options, "--resume") == 0


# ----------------------------------------------------------------------------------- cluster


@pytest.mark.parametrize("address", ["somewhere", "ftp://host:12", "tcp://host"])
def test_an_address_that_is_none(image, tmp_path, tiny_model, capsys, address):
    pytest.importorskip("distributed")
    options = ["--model", tiny_model, "--scheduler", address]
    assert segment_it(image, tmp_path / "labels.zarr", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{address} is no address of a scheduler" in line and "tcp://host:8786" in line


def test_the_zarrs_of_a_folder_are_done_in_blocks(image, tmp_path, tiny_model, capsys):
    import tifffile

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    image.rename(folder / "a.zarr")
    options = ["--model", tiny_model, "--block", 64]
    assert segment_it(folder, out, *options) == 0
    assert read_provenance(out / "a.zarr")["blocks"] > 1
    assert segment_it(folder, out, *options, "--resume") == 0
    assert "no image is left to segment; 1 had labels before" in capsys.readouterr().out
    tifffile.imwrite(folder / "b.tif", texture(60, 60))
    assert segment_it(folder, tmp_path / "more", *options) == 2  # not taken without a word
    assert "cannot be written in blocks" in capsys.readouterr().err


def test_the_output_may_stand_behind_the_options(image, tmp_path, tiny_model):
    line = ["segment", str(image), "--model", tiny_model, str(tmp_path / "labels.zarr")]
    assert main(line) == 0
    assert (tmp_path / "labels.zarr").is_dir()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"axes": [{"name": a, "type": "space"} for a in "zyx"]}, "names 3 axes (ZYX)"),
        ({"datasets": []}, "names no image"),
        ({"datasets": [{"path": "9"}]}, "has no array '9'"),
    ],
)
def test_wrong_metadata_are_said(image, tmp_path, tiny_model, capsys, change, says):
    file = image / "zarr.json"
    text = json.loads(file.read_text())
    text["attributes"]["ome"]["multiscales"][0].update(change)
    file.write_text(json.dumps(text))
    assert segment_it(image, tmp_path / "labels.zarr", "--model", tiny_model) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_scheduler_that_cannot_be_reached(image, tmp_path, tiny_model, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_unet.nn.blockwise.cluster.PATIENCE", 0.5)
    options = ["--model", tiny_model, "--scheduler", "tcp://127.0.0.1:9"]
    assert segment_it(image, tmp_path / "labels.zarr", *options) == 2
    err = capsys.readouterr().err
    assert "no scheduler answers at tcp://127.0.0.1:9" in err
    assert len(err.splitlines()) == 1
    assert not [entry for entry in os.listdir(tmp_path) if "labels" in entry]


@pytest.fixture
def web_server():
    """Something else that answers: the address of one that speaks before it is asked."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request" + bytes(8))
            connection.recv(4096)

    def serve() -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_what_answers_is_no_scheduler(web_server, image, tmp_path, tiny_model, capsys):
    pytest.importorskip("distributed")
    options = ["--model", tiny_model, "--scheduler", web_server]
    assert segment_it(image, tmp_path / "labels.zarr", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"what answers at {web_server} is no dask scheduler" in line


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, each a process with a nanny that replaces it."""
    pytest.importorskip("distributed")
    python = [sys.executable, "-m", "distributed.cli"]
    scheduler_file = tmp_path / "scheduler.json"
    start = functools.partial(subprocess.Popen, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, cwd=tmp_path)  # fmt: skip
    python = [sys.executable, "-m", "dask"]
    quiet = ["--no-dashboard", "--scheduler-file", str(scheduler_file)]
    scheduler = start([*python, "scheduler", "--host", "127.0.0.1", "--port", "0", *quiet])
    options = ["--nworkers", "2", "--nthreads", "1", "--local-directory", str(tmp_path / "dask")]
    workers = start([*python, "worker", *quiet, *options])
    deadline = time.monotonic() + 30
    while not scheduler_file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield json.loads(scheduler_file.read_text())["address"]
    for process in (workers, scheduler):
        process.terminate()
        process.wait(20)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_cluster_of_which_one_worker_dies(cluster, image, tmp_path, tiny_model):
    import psutil
    from distributed import Client

    settings = PredictSettings(tile=32, survey=False)
    model = load_model(tiny_model, "cpu")
    here = BlockwiseRequest(
        image, OutputLocation.resolve(tmp_path / "a.zarr", None, ""), settings, block=32
    )
    wanted = run_to_end(segment_blocks(here, model)).labels[:]
    with Client(cluster, timeout=20) as client:
        client.wait_for_workers(2, timeout=60)
        pids = client.run(os.getpid)
    there = BlockwiseRequest(
        image,
        OutputLocation.resolve(tmp_path / "b.zarr", None, ""),
        settings,
        block=32,
        scheduler=cluster,
    )
    steps, done, killed = segment_blocks(there, model), 0, None
    try:
        while True:
            step = next(steps)
            done += isinstance(step, BlockDone)
            if done == 6 and killed is None:
                killed = next(iter(pids.values()))
                psutil.Process(killed).kill()
    except StopIteration as end:
        result = end.value
    assert killed is not None
    assert done == 42, "each block once"
    assert result.provenance["failed_blocks"] == []
    assert np.array_equal(result.labels[:], wanted)
