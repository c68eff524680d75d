"""`napari-unet demo`: a sample image segmented in napari, or without a window into a folder."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_model_options, load_model
from napari_unet.cli.terminal import ending_at_once, follow, format_table, progress_bar, say
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import expand_path, make_folder
from napari_unet.core.io.sample_images import sample_path
from napari_unet.core.settings.tasks import PredictSettings

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Generator

    from napari_unet.core.progress import Progress
    from napari_unet.nn.inference.model import Model


HEADINGS = ("image", "size", "objects", "seconds", "MPx/s", "device")
_QT = ("PyQt6", "PyQt5", "PySide6", "PySide2")


def why_no_window() -> str:
    """Return why no window can open on this computer; "" if one can."""
    if not importlib.util.find_spec("napari") or not any(map(importlib.util.find_spec, _QT)):
        return "napari is not installed (pip install 'napari-unet[gui]')"
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    on_screen = sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if platform in ("offscreen", "minimal") or not on_screen:
        return "there is no display"
    return ""


def demo_steps(
    model: Model, folder: Path
) -> Generator[Progress, None, tuple[list[Path], list[str]]]:
    """Segment the fluorescence sample into a folder; yield progress after each tile.

    Returns
    -------
    list of Path, list of str
        The files of the labels and their picture; the row below `HEADINGS`.

    Raises
    ------
    OutputError
        The folder cannot be written, or holds other files of these names.
    """
    import numpy as np

    from napari_unet.batch.file_job import FileJob, segment_file
    from napari_unet.core.evaluation.overlay import draw_outlines, write_picture
    from napari_unet.core.io.label_reader import read_labels
    from napari_unet.core.io.provenance import find_provenance
    from napari_unet.core.io.stack import open_stack

    make_folder(folder)
    source, target = sample_path("fluorescence"), folder / "labels.tif"
    drawn = folder / "overlay.png"
    made = find_provenance(target).get("image") or {}
    if made.get("name") != source.name:  # the files of an earlier demo are replaced, no others
        for path in (target, drawn):
            if path.exists():
                raise OutputError(f"{path} exists already; name another folder (--out).")
    job = FileJob(source, target)
    provenance = yield from segment_file(job, model, PredictSettings(), overwrite=True)
    image = np.asarray(open_stack(source).data[...])
    write_picture(drawn, draw_outlines(image, read_labels(target)))
    return [target, drawn], _row(source.name, image.shape, provenance)


def _row(name: str, shape: tuple[int, ...], provenance: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{shape[0]} x {shape[1]}",
        f"{provenance['objects']:,}",
        f"{provenance['seconds']:.2f}",
        f"{provenance['mpx_per_s']:.2f}",
        f"{provenance['device']} ({provenance['precision']})",
    ]


def add_demo(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "demo", _demo, "Segment a sample image: in napari, or into files"
    )
    command.add_argument("--headless", action="store_true", help="write files, open no window")
    command.add_argument(
        "--out",
        type=expand_path,
        default=Path("demo"),
        metavar="DIR",
        help="folder (default: demo)",
    )
    add_model_options(command)


def _demo(values: Namespace) -> int:
    problem = "" if values.headless else why_no_window()
    if not values.headless and not problem:
        from napari_unet.gui.samples import run_demo

        with ending_at_once():
            run_demo(values.model, values.device)
        return 0
    if problem:
        say(f"{problem}; the demo runs without a window and writes files.")
    model = load_model(values)
    with progress_bar(1) as bar:
        files, row = follow(demo_steps(model, values.out), bar)
    print(format_table(HEADINGS, [row]))
    print(f"written: {', '.join(map(str, files))}")
    return 0
