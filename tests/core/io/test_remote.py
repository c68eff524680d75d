"""Servers that never answer, or whose answer never ends, are given up in seconds and megabytes."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
import time

import numpy as np
import pytest
import zarr

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import open_stack

remote = pytest.importorskip("napari_unet.core.io.remote", reason="needs the extra remote")


@contextlib.contextmanager
def server(answer):
    """Serve one kind of answer on a port of this computer; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        while not done.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            answer(connection, done)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/image.zarr"
    finally:
        done.set()
        with contextlib.suppress(OSError):  # wakes accept
            socket.create_connection(listener.getsockname()).close()
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def silent(connection, done):
    done.wait(60)


def endless(connection, done):
    connection.sendall(HEAD + b"\r\n{")
    while not done.is_set():
        connection.sendall(b" " * 65536)


def boasting(connection, done):
    connection.sendall(HEAD + b"Content-Length: 9000000000\r\n\r\n{")
    done.wait(60)


def dripping(connection, done):
    connection.sendall(HEAD + b"\r\n{")
    while not done.wait(0.2):
        connection.sendall(b" ")


@pytest.mark.parametrize("answer", [silent, endless, boasting, dripping])
def test_a_bad_server_is_given_up(answer, monkeypatch) -> None:
    for name in ("CONNECT_S", "SILENCE_S", "METADATA_S"):
        monkeypatch.setattr(remote, name, 1)
    monkeypatch.setattr(remote, "METADATA_BYTES", 2**20)
    with server(answer) as address:
        began = time.monotonic()
        with pytest.raises(InputError, match=r"cannot be read as Zarr .*check the address"):
            open_stack(address)
        assert time.monotonic() - began < 20


def test_what_is_opened_can_be_sent_to_workers(tmp_path) -> None:
    import http.server

    zarr.save_array(tmp_path / "a.zarr", np.arange(16).reshape(4, 4))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        stack = open_stack(f"http://127.0.0.1:{httpd.server_address[1]}/a.zarr")
        again = pickle.loads(pickle.dumps(stack.data))
        assert np.array_equal(np.asarray(again[:]), np.arange(16).reshape(4, 4))
        httpd.shutdown()
