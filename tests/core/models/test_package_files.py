"""Packages fetched from servers that answer oddly."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.models import package_files
from napari_unet.core.progress import run_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
ODD = {
    "many headers": (OK + b"X-a: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
    "a long line": (b"H" * 70_000, "more than 65536 bytes"),
    "no HTTP": (b"hello\r\n", "hello"),
    "cut short": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "cannot be fetched"),
    "a loop": (b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n", "infinite loop"),
}


@pytest.fixture
def answers() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server, and what it answers to whatever it is asked."""
    said: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(said[0])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", said
        server.shutdown()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_one_line(tmp_path: Path, answers, name: str) -> None:
    address, said = answers
    answer, message = ODD[name]
    said.append(answer)
    with pytest.raises(InputError, match=message) as caught:
        run_to_end(package_files.fetch_steps(f"{address}/m.zip", tmp_path))
    assert "\n" not in str(caught.value)


def test_the_length_that_is_said_may_be_no_number(tmp_path: Path, answers) -> None:
    address, said = answers
    said.append(OK + b"Content-Length: many\r\n\r\nabc")
    path = run_to_end(package_files.fetch_steps(f"{address}/m.zip", tmp_path))
    assert path.read_bytes() == b"abc"


def test_a_description_is_no_endless_text(tmp_path: Path, answers, monkeypatch) -> None:
    address, said = answers
    monkeypatch.setattr(package_files, "DESCRIPTION", 1000)
    said.append(OK + b"\r\n" + bytes(5000))
    with pytest.raises(ModelError, match=r"rdf\.yaml is larger than a model's may be"):
        run_to_end(package_files.fetch_steps(f"{address}/rdf.yaml", tmp_path))
