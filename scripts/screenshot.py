"""Make docs/screenshot.png: the real window with the demo's finished labels.

Run it on any display; on a machine without one:

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/screenshot.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

SIZE = (1280, 800)
TIMEOUT_S = 600


def main() -> int:
    """Run the demo to its end and save a picture of the window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs", "screenshot.png"))
    out = parser.parse_args().out
    sys.argv = sys.argv[:1]  # Qt reads options, too
    # Neither the user's napari settings nor the panel's remembered ones belong in the picture.
    folder = tempfile.mkdtemp()
    os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
    os.environ["NAPARI_UNET_HOME"] = folder
    import napari
    from qtpy.QtWidgets import QApplication
    from skimage.io import imsave

    from napari_unet.gui.open_files import open_demo

    viewer = napari.Viewer(title="napari-unet", show_welcome_screen=False)
    viewer.window.set_geometry(0, 0, *SIZE)
    QApplication.processEvents()
    panel = open_demo(viewer)
    deadline = time.monotonic() + TIMEOUT_S
    settled = deadline
    while time.monotonic() < min(deadline, settled):
        QApplication.processEvents()
        time.sleep(0.01)
        if panel.active is None:
            settled = min(settled, time.monotonic() + 1)
    shutil.rmtree(folder, ignore_errors=True)
    finished = panel.active is None and len(viewer.layers) == 2
    print(panel.status.text())
    out.parent.mkdir(parents=True, exist_ok=True)
    imsave(out, viewer.screenshot(canvas_only=False, flash=False)[..., :3], check_contrast=False)
    viewer.close()
    return 0 if finished else 1


if __name__ == "__main__":
    raise SystemExit(main())
