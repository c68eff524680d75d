"""What a server refuses, and whose turn it is."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import threading

import numpy as np
import pytest

from napari_unet.cli import main
from napari_unet.core.errors import UnetError
from napari_unet.core.models.folder import CARD, WEIGHTS
from napari_unet.core.models.store import find_model
from napari_unet.nn.inference.model import load_model
from napari_unet.nn.inference.remote import sent_model
from napari_unet.nn.remote import message
from napari_unet.nn.remote.message import BODY_LIMIT, MessageError, pack, unpack
from napari_unet.nn.serve.fair_queue import FairQueue
from napari_unet.nn.serve.service import Service, UnknownModelError

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("aiohttp"), reason="needs the extra serve"
)


@pytest.fixture
def service():
    made = Service("cpu")
    yield made
    made.close()


@pytest.fixture
def sent(tiny_model):
    model = load_model(tiny_model, "cpu")
    return sent_model(find_model(tiny_model), model.spec, model.card.hash)


def request(**changes):
    header = {
        "kind": "basins",
        "threshold": 0.5,
        "precision": "float32",
        "augment": "off",
        "frame": {
            "size": [20, 20],
            "shape": [20, 20],
            "channels": [0, 0, 0],
            "normaliser": {"low": [0.0], "high": [900.0]},
        },
        "origin": [0, 0],
        "tile": {name: [[0, 20], [0, 20]] for name in ("read", "write", "outer", "crop")},
    }
    return header | changes


def test_a_model_is_taken_and_a_tile_computed(service, sent):
    pixels = np.arange(400, dtype=np.uint16).reshape(1, 20, 20)
    body = pack(request(), {"pixels": pixels})
    with pytest.raises(UnknownModelError):
        service.prepare(sent.key, body)
    service.take_model(sent.key, sent.body())
    header, arrays = service.prepare(sent.key, body)()
    assert header == {"kind": "basins"} and arrays["ids"].shape == (20, 20)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "pickle"}, "is none of maps"),
        ({"precision": "int4"}, "is none of float32"),
        ({"origin": [5, 0]}, "sizes disagree"),
        ({"origin": ["../../etc/passwd", 0]}, "is no whole number"),
        ({"frame": request()["frame"] | {"size": [20, 2**39], "shape": [20, 1]}}, "sizes disagree"),
        ({"frame": request()["frame"] | {"channels": [3]}}, "numbers of axes or channels"),
        ({"frame": request()["frame"] | {"normaliser": {"low": [], "high": []}}}, "intensities"),
        ({"tile": request()["tile"] | {"outer": [[0, 2**20], [0, 2**20]]}}, "too large"),
        ({"tile": request()["tile"] | {"read": [[0, 0], [0, 9]]}}, "empty"),
    ],
)
def test_requests_that_are_refused(service, sent, changes, problem):
    service.take_model(sent.key, sent.body())
    body = pack(request(**changes), {"pixels": np.zeros((1, 20, 20), np.uint16)})
    with pytest.raises(UnetError, match=problem):
        service.prepare(sent.key, body)()


def test_models_that_are_refused(service, sent):
    card = (sent.folder / CARD).read_text()
    weights = np.fromfile(sent.folder / WEIGHTS, np.uint8)
    for key in ("../../home", "a" * 64, "/etc/passwd"):
        with pytest.raises(UnetError):
            service.take_model(key, sent.body())
    weights[-1] ^= 1
    with pytest.raises(UnetError, match="damaged"):
        service.take_model(sent.key, pack({"card": card}, {"weights": weights}))
    assert not service.has(sent.key)
    assert [path.name for path in service._folder.iterdir()] == []


def test_messages():
    arrays = {
        "a": np.arange(6, dtype=">u2").reshape(2, 3),
        "b": np.zeros((0, 4), np.float32),
        "c": np.array([True, False]),
    }
    found = unpack(pack({"x": [1]}, arrays))
    assert found.header == {"x": [1]}
    assert all(np.array_equal(found.arrays[name], values) for name, values in arrays.items())
    whole = pack({}, {"a": np.zeros(1000, np.uint8)})
    with pytest.raises(MessageError, match="too large"):
        unpack(whole, limit=999)
    for cut in range(0, len(whole), 3):
        with pytest.raises(MessageError):
            unpack(whole[:cut])
    with pytest.raises(MessageError, match="plain type"):
        unpack(whole.replace(b'"uint8"', b'"objec"'))
    with pytest.raises(MessageError, match="another size"):  # blosc would write beyond the array
        unpack(whole.replace(b"[1000]", b"[0999]".replace(b"0999", b" 999")))
    with pytest.raises(MessageError, match="version 2"):
        unpack(whole.replace(b'"version": 1', b'"version": 2'))
    assert message.BODY_LIMIT < message.MODEL_LIMIT


def test_users_take_turns():
    done: list[str] = []

    async def scene() -> None:
        queue, gate = FairQueue(), threading.Event()
        first = asyncio.ensure_future(queue.run("greedy", gate.wait))
        await asyncio.sleep(0)
        names = ["greedy 1", "greedy 2", "greedy 3", "modest 1", "modest 2"]
        rest = [
            asyncio.ensure_future(queue.run(name.split()[0], lambda name=name: done.append(name)))
            for name in names
        ]
        await asyncio.sleep(0)
        rest[1].cancel()
        gate.set()
        await asyncio.gather(first, *rest, return_exceptions=True)
        queue.close()

    asyncio.run(scene())
    assert done == ["greedy 1", "modest 1", "greedy 3", "modest 2"]


def test_http(service):
    from napari_unet.nn.serve.server import make_app

    async def scene() -> None:
        from aiohttp.test_utils import TestServer

        async with TestServer(make_app(service, "word")) as running:
            for headers, path, length, status in [
                ({}, "/v1/hello", 0, 401),
                ({"Authorization": "Bearer wor"}, "/v1/hello", 0, 401),
                ({"Authorization": "Bearer wörd"}, "/v1/hello", 0, 401),
                ({"Authorization": "Bearer word"}, "/v1/hello", 0, 200),
                ({"Authorization": "Bearer word"}, "/v1/run/x", BODY_LIMIT + 1, 413),
                ({"Authorization": "Bearer word"}, "/v1/run/x", 3, 400),
                ({"Authorization": "Bearer word"}, "/v1/models/..%2F..%2Fetc", 0, 404),
            ]:
                await asyncio.to_thread(ask, running.port, headers, path, length, status)

    def ask(port, headers, path, length, status) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        line.putrequest("POST" if length else "GET", path)
        for name, value in headers.items():
            line.putheader(name, value.encode("latin-1"))
        line.putheader("Content-Length", str(length))
        line.endheaders(b"abc" if length == 3 else None)
        answer = line.getresponse()
        assert answer.status == status, (path, answer.read())
        if status == 200:
            assert json.loads(answer.read())["device"] == "cpu"
        line.close()

    asyncio.run(scene())


def test_command_line(tmp_path, capsys):
    for options, problem in [
        (["--host", "0.0.0.0"], "give --certificate and --key"),
        (["--certificate", "a.pem"], "belong together"),
        (["--token-file", str(tmp_path / "none")], "cannot be read"),
    ]:
        assert main(["serve", *options]) == 2
        assert problem in capsys.readouterr().err
