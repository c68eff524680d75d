"""napari's own plugin manager installs the built wheel, and the panel opens from it.

The plugin manager installs into the environment it runs in, so it gets one of its own. That one
sees all packages of the tests' environment but this project's, so nothing large is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import napari_unet

pytestmark = [pytest.mark.slow, pytest.mark.gui, pytest.mark.timeout(600)]

OPEN_PANEL = """
import json, napari, napari_unet
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")
viewer.open_sample("napari-unet", "nuclei_fluorescence")
QApplication.processEvents()
print(json.dumps({
    "panel": type(panel).__name__,
    "visible": panel.isVisible(),
    "layers": len(viewer.layers),
    "file": napari_unet.__file__,
    "version": napari_unet.__version__,
}))
viewer.close()
"""


class Environment:
    """A virtual environment that sees the packages of this one, except for this project's."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        shared = folder / "shared"
        shared.mkdir()
        for origin in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for entry in Path(origin).iterdir():
                if "napari_unet" not in entry.name:
                    (shared / entry.name).symlink_to(entry)
        self.site = next(folder.glob("[Ll]ib/**/site-packages"))
        (self.site / "shared.pth").write_text(str(shared))

    def run(self, *arguments: str, **environ: str) -> dict:
        """Run python in the environment, and return what its last line says in JSON."""
        environ = {**os.environ, "PIP_NO_INDEX": "1", **environ}
        command = [str(self.bin / "python"), *arguments]
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    try:
        return Environment(tmp_path_factory.mktemp("plugin-manager") / "env")
    except OSError as error:
        pytest.skip(f"needs the right to make symbolic links: {error}")


@pytest.fixture(scope="module")
def installed(environment, distributions) -> dict:
    driver = str(Path(__file__).parent / "helpers/drive_plugin_manager.py")
    answer = environment.run(driver, "install", str(distributions[1]), QT_QPA_PLATFORM="offscreen")
    yield answer
    removed = environment.run(driver, "remove", QT_QPA_PLATFORM="offscreen")
    assert removed["codes"] == [0], removed["output"]
    assert not removed["known"]
    assert not (environment.site / "napari_unet").exists()


def test_installs_the_wheel_and_downloads_nothing(installed, environment):
    assert installed["codes"] == [0], installed["output"]
    assert "Downloading" not in installed["output"]
    assert (environment.site / "napari_unet" / "napari.yaml").is_file()


def test_napari_and_the_manager_know_the_plugin(installed):
    assert installed["known"]
    assert installed["listed"]


def test_the_panel_and_a_sample_open(installed, environment):
    answer = environment.run("-c", OPEN_PANEL)
    assert answer["panel"] == "UNetPanel"
    assert answer["visible"]
    assert answer["layers"] == 1
    assert answer["version"] == napari_unet.__version__
    assert Path(answer["file"]).is_relative_to(environment.folder)


def test_the_command_line_is_there(installed, environment):
    script = environment.bin / "napari-unet"
    run = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "segment" in run.stdout
