"""The choice of the device: this computer's, servers that were entered, and the entering of one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLineEdit, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.core.server_access import (
    PORT,
    REMOTE,
    Access,
    ServerAddress,
    remember_server,
    remembered_servers,
)
from napari_unet.core.settings.tasks import DEVICES, RUN_DEVICES
from napari_unet.gui.errors import describe_error
from napari_unet.gui.jobs.engine import forget_model
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Generator

ANOTHER = "another computer …"
TIP = (
    "Where the model runs. auto: on the GPU if there is one.\n"
    "onnx, where ONNX Runtime is installed: on what it finds, such as DirectML or OpenVINO.\n"
    f"{ANOTHER}: one on which `napari-unet serve` runs."
)


def device_choices(*_: Any) -> list[str]:
    """Return what can be chosen."""
    try:
        servers = [f"{REMOTE}:{address}" for address in remembered_servers()]
    except UnetError:  # said when a server is entered
        servers = []
    return [*run_devices(), *servers, ANOTHER]


def run_devices() -> tuple[str, ...]:
    """Return this computer's devices to choose from: ONNX Runtime's only where it is installed."""
    # Only looked for: loading it takes a second.
    needed = ("onnx", "onnxruntime")
    return RUN_DEVICES if all(find_spec(name) for name in needed) else DEVICES


class DeviceBox(ComboBox):
    """A box with devices; its last choice asks for a server, and chooses it once it answers."""

    def __init__(self) -> None:
        super().__init__(name="device", choices=device_choices, tooltip=TIP)
        self.dialog: ServerDialog | None = None
        self._before = self.value
        self.changed.connect(self._chosen)

    def _chosen(self, device: str) -> None:
        if device != ANOTHER:
            self._before = device
            return
        self.value = self._before
        self.dialog = ServerDialog(self.native)
        self.dialog.entered.connect(self._take)
        self.dialog.finished.connect(self._finished)
        self.dialog.open()

    def _finished(self, *_: object) -> None:
        """Let Qt delete the dialog: left to Python's garbage collector it crashes later windows."""
        if self.dialog is not None:
            self.dialog.deleteLater()
            self.dialog = None

    def _take(self, device: str) -> None:
        self.reset_choices()
        self.value = device


class ServerDialog(QDialog):
    """Asks for a server's address and token, and remembers them once it has answered.

    Emits `entered` with the device's name, and closes itself.

    Attributes
    ----------
    address, token, certificate
        The fields.
    status
        What is wrong, or under way.
    """

    entered = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Another computer")
        self._jobs = WidgetJobs(self)
        self.address, self.token, self.certificate = QLineEdit(), QLineEdit(), QLineEdit()
        self.address.setPlaceholderText(f"localhost:{PORT}")
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.certificate.setPlaceholderText("only if it is not publicly signed")
        self.status = WrappedLabel("Run `napari-unet serve` there: it says address and token.")
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.buttons.addButton("Connect", QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.accepted.connect(self.connect_server)
        self.buttons.rejected.connect(self.reject)
        layout = QFormLayout(self)
        layout.addRow("address", self.address)
        layout.addRow("token", self.token)
        layout.addRow("certificate file", self.certificate)
        layout.addRow(self.status)
        layout.addRow(self.buttons)
        self.setMinimumWidth(380)

    def connect_server(self) -> None:
        """Ask the server whether it is there and knows the token, beside the window."""
        try:
            address = ServerAddress.parse(self.address.text() or self.address.placeholderText())
        except UnetError as error:
            self._say(error)
            return
        access = Access(self.token.text().strip(), self.certificate.text().strip())
        self.buttons.setEnabled(False)
        self.status.setText(f"Asking {address} …")
        job = Job(
            lambda: _ask(address, access),
            on_done=lambda _: self._remember(address, access),
            on_error=self._say,
            on_end=lambda _: self.buttons.setEnabled(True),
        )
        self._jobs.run("server", job)

    def _remember(self, address: ServerAddress, access: Access) -> None:
        try:
            remember_server(address, access)
        except UnetError as error:
            self._say(error)
            return
        forget_model()  # it may hold a token of before
        self.entered.emit(f"{REMOTE}:{address}")
        self.accept()

    def _say(self, error: Exception) -> None:
        self.status.setText(describe_error(error))
        self.adjustSize()  # to the lines that it takes


def _ask(address: ServerAddress, access: Access) -> Generator[Progress, None, None]:
    yield Progress(0, 0, "asking the server")
    from napari_unet.nn.remote.connection import ServerConnection

    ServerConnection(address, access).hello()
