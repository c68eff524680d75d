"""The sample images that come with the package (public domain, see data/README.md)."""

from __future__ import annotations

from pathlib import Path

from napari_unet.core.errors import InputError

DATA = Path(__file__).parents[2] / "data"

SAMPLES = {
    "fluorescence": "nuclei in fluorescence, grey, 520 x 696",
    "histology": "nuclei in stained tissue, RGB, 256 x 320",
}
"""Names of the sample images, and what they show."""


def sample_path(name: str) -> Path:
    """Return the file of a sample image.

    Raises
    ------
    InputError
        There is none of that name.
    """
    return _file(name, "")


def truth_path(name: str) -> Path:
    """Return the file of a sample image's objects as experts outlined them.

    Raises
    ------
    InputError
        There is none of that name.
    """
    return _file(name, "_truth")


def _file(name: str, ending: str) -> Path:
    if name not in SAMPLES:
        raise InputError(f"There is no sample {name!r}; choose one of: {', '.join(SAMPLES)}.")
    return DATA / f"nuclei_{name}{ending}.tif"
