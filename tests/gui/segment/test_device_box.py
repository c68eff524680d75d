"""The choice of a server: asked for once, remembered, and chosen when it has answered."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from napari_unet.core.server_access import Access, remembered_servers
from napari_unet.gui.segment.device_box import ANOTHER, DeviceBox

pytestmark = pytest.mark.gui


@pytest.fixture
def server():
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            right = self.headers["Authorization"] == "Bearer word"
            body = json.dumps({"device": "cuda (H200)"}).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_server_is_entered_and_chosen(qtbot, server):
    box = DeviceBox()
    qtbot.addWidget(box.native)
    box.value = "cpu"
    box.value = ANOTHER
    dialog = box.dialog
    assert box.value == "cpu" and dialog.isVisible()
    assert dialog.token.echoMode() == dialog.token.EchoMode.Password

    dialog.address.setText("gpu/no address")
    dialog.connect_server()
    assert "is no address of a server" in dialog.status.text()
    dialog.address.setText(server)
    dialog.token.setText("another")
    dialog.connect_server()
    qtbot.waitUntil(lambda: "does not know the token" in dialog.status.text())
    assert remembered_servers() == {}

    dialog.token.setText("word")
    qtbot.waitUntil(dialog.buttons.isEnabled)
    dialog.connect_server()
    qtbot.waitUntil(lambda: box.dialog is None)
    assert box.value == f"remote:{server}"
    assert remembered_servers() == {server: Access("word")}
    again = DeviceBox()
    qtbot.addWidget(again.native)
    assert f"remote:{server}" in again.choices
