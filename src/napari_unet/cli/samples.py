"""`napari-unet samples`: the sample images and their outlines as files, to try the commands on."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import atomic_file, expand_path, make_folder
from napari_unet.core.io.sample_images import DATA, SAMPLES, sample_path, truth_path

if TYPE_CHECKING:
    from argparse import Namespace

SOURCES = DATA / "README.md"
"""Where the samples come from, and their licences, which go with every copy."""


def add_samples(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "samples", _samples, "Copy the sample images, and their outlines, into a folder"
    )
    command.add_argument(
        "output",
        nargs="?",
        default="samples",
        metavar="DIR",
        help="folder, which gets `images`, `truth` with equal names, and a README that says where "
        "they come from (default: samples)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing files")


def _samples(values: Namespace) -> int:
    """Copy every sample; raises OutputError before anything is written if one is there."""
    folder = expand_path(values.output)
    pairs = [(sample_path(name), truth_path(name), what) for name, what in SAMPLES.items()]
    copies = {folder / "images" / image.name: image for image, _, _ in pairs}
    copies |= {folder / "truth" / image.name: truth for image, truth, _ in pairs}
    copies[folder / SOURCES.name] = SOURCES
    taken = [target for target in copies if target.exists()]
    if taken and not values.overwrite:
        raise OutputError(f"{taken[0]} exists already; add --overwrite, or name another folder.")
    for target, source in copies.items():
        make_folder(target.parent)
        with atomic_file(target) as partial:
            shutil.copyfile(source, partial)
    for image, _, what in pairs:
        print(f"{folder / 'images' / image.name}: {what}")
    return 0
