"""Install or remove napari-unet with napari's plugin manager, in this interpreter's environment.

Usage: python drive_plugin_manager.py install WHEEL | remove

Prints one JSON object at the end: the exit codes of the manager's jobs, whether napari knows the
plugin afterwards, and whether the manager lists it. Run by test_plugin_manager.py.
"""

from __future__ import annotations

import json
import sys

import npe2
from napari_plugin_manager import base_qt_plugin_dialog, qt_plugin_dialog
from napari_plugin_manager.base_qt_package_installer import InstallerTools
from napari_plugin_manager.qt_package_installer import NapariInstallerQueue, NapariPipInstallerTool
from qtpy.QtCore import QEventLoop, QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication

TIMEOUT_MS = 300_000


def no_index():
    """Stand for the list of plugins on the internet, which the test does without."""
    yield from ()


def open_manager():
    # The restart hint is modal: nobody is here to close it.
    base_qt_plugin_dialog.RestartWarningDialog.exec_ = lambda self: 0
    qt_plugin_dialog.iter_napari_plugin_info = no_index
    # uv, which the manager prefers where it is on the path, does not see packages that an
    # environment shares with another one.
    NapariInstallerQueue.PYPI_INSTALLER_TOOL_CLASS = NapariPipInstallerTool
    npe2.PluginManager.instance().discover()
    return qt_plugin_dialog.QtPluginDialog()


def wait_for_jobs(manager, start) -> list[int]:
    """Call `start`, which queues jobs, and return their exit codes."""
    codes: list[int] = []
    loop = QEventLoop()
    manager.installer.allFinished.connect(lambda done: (codes.extend(done), loop.quit()))
    QTimer.singleShot(TIMEOUT_MS, loop.quit)
    start()
    if not codes:
        loop.exec()
    return codes


def drop(manager, wheel: str) -> None:
    """Drop a file on the dialog, as from a file manager."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(wheel)])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    manager.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys))


def main(action: str, *wheel: str) -> None:
    application = QApplication([])
    manager = open_manager()
    if action == "install":
        drop(manager, *wheel)
        codes = wait_for_jobs(manager, manager.direct_entry_btn.click)
        manager.refresh()
    else:
        tool = InstallerTools.PYPI
        codes = wait_for_jobs(manager, lambda: manager.installer.uninstall(tool, ["napari-unet"]))
    answer = {
        "codes": codes,
        "known": "napari-unet" in npe2.PluginManager.instance(),
        "listed": "napari-unet" in list(manager.installed_list.packages()),
        "output": manager.stdout_text.toPlainText(),
    }
    print(json.dumps(answer))
    manager.worker.quit()
    application.processEvents()


if __name__ == "__main__":
    main(*sys.argv[1:])
