"""`napari-unet view`: an image and its labels in napari."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as
from napari_unet.cli.terminal import ending_at_once
from napari_unet.core.errors import InputError
from napari_unet.core.io.files import check_exists, expand_path

if TYPE_CHECKING:
    from argparse import Namespace


def add_view(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(commands, "view", _view, "Open an image with its labels in napari")
    command.add_argument("image", metavar="IMAGE", help="TIFF, Zarr, or any other image")
    command.add_argument(
        "labels",
        nargs="*",
        metavar="LABELS",
        help="its label files (default: those that lie in an OME-Zarr)",
    )
    add_labels_as(command)


def _view(values: Namespace) -> int:
    from napari_unet.cli.demo import why_no_window

    image, labels = expand_path(values.image), [expand_path(name) for name in values.labels]
    check_exists(image, *labels)
    if problem := why_no_window():
        raise InputError(f"{problem}; give the files to napari where there is a window.")
    from napari_unet.core.labels.label_file import LabelReading
    from napari_unet.gui.open_files import run_view

    with ending_at_once():
        run_view(image, labels, LabelReading(values.labels_as) if values.labels_as else None)
    return 0
